"""The error of recordings."""

from instructsam.core.errors import InstructSAMError


class RecordingError(InstructSAMError):
    """The recording is missing, empty or damaged; the message says which and what to do."""

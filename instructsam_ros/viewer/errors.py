"""The errors of a viewer."""

from instructsam.core.errors import InstructSAMError


class ViewerError(InstructSAMError, RuntimeError):
    """The viewer cannot be started or reached, or the recording cannot be written."""

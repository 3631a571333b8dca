"""The errors that a caller can do something about; each message says what was wrong and what to do."""


class InstructSAMError(Exception):
    """Base of every error below, for callers that treat them alike."""


class ModelError(InstructSAMError):
    """The model could not be found, read or built (missing files, wrong tensors, another architecture)."""


class ImageError(InstructSAMError, ValueError):
    """The image cannot be used (wrong type, shape or an extreme aspect ratio)."""


class InstructionError(InstructSAMError, ValueError):
    """The instruction or the forced answer cannot be used (empty, far too long, control characters)."""


class GeometryError(InstructSAMError, ValueError):
    """The object cannot be located (sizes that contradict each other, an empty mask, too little depth)."""


class CancelledError(InstructSAMError):
    """The caller's `cancelled()` turned true before the result was ready."""


class DataError(InstructSAMError, ValueError):
    """A data set that cannot be used (missing, truncated or unknown files); the message names the file."""

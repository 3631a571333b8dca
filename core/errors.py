"""Exceptions of the packages that a caller can act on.

Every exception class of instructsam.core, instructsam.train and instructsam_ros derives from `InstructSAMError`. A
message says what is wrong, what was expected and what to do; it does not end with a full stop, so that callers can
embed it.

    InstructSAMError
    ├── ModelError          loading a model, numbers that are not finite
    ├── ImageError          InstructSAM.encode, reading image files
    ├── InstructionError    InstructSAM.segment
    ├── GeometryError       locating an object in a depth image
    ├── CancelledError      `cancelled` returned true
    ├── DataError           reading data sets
    ├── StorageError        writing files: disk full, read-only, folder removed
    └── FolderInUseError    another process writes the folder
"""

from typing import ClassVar

from instructsam.core import exit_codes


class InstructSAMError(Exception):
    """Base class, for callers that handle all of them alike.

    Attributes:
        exit_code: Exit code of a command that the error ends.
    """

    exit_code: ClassVar[int] = exit_codes.USAGE


class ModelError(InstructSAMError):
    """The model cannot be found, read or built (wrong tensors, ...), or computes numbers that are not finite."""


class ImageError(InstructSAMError, ValueError):
    """The image cannot be used (wrong type or shape, or an extreme aspect ratio)."""


class InstructionError(InstructSAMError, ValueError):
    """The instruction or the forced answer cannot be used (empty, far too long, control characters)."""


class GeometryError(InstructSAMError, ValueError):
    """The object cannot be located (sizes that contradict each other, an empty mask, too little depth)."""


class CancelledError(InstructSAMError):
    """The caller's `cancelled()` returned true before the result was ready."""


class DataError(InstructSAMError, ValueError):
    """The data set cannot be used (missing, truncated or unknown files); the message names the file."""


class StorageError(InstructSAMError):
    """A file or folder cannot be written; what was written before stays usable, and the same command resumes."""

    exit_code = exit_codes.STORAGE


class FolderInUseError(InstructSAMError):
    """Another process writes the folder; the message names it."""

    exit_code = exit_codes.IN_USE

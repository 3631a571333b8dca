"""Errors of recordings, told apart from those of the disk that holds temporary files."""

import contextlib
import errno
import os
import sqlite3
from collections.abc import Generator
from pathlib import Path

from instructsam.core.errors import InstructSAMError, StorageError

WRITING = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG)
"""Errors of writing; while a recording is read, only temporary files are written."""


class RecordingError(InstructSAMError):
    """The recording is missing, empty or damaged; the message says which and what to do."""


@contextlib.contextmanager
def explained_reading(path: Path) -> Generator[None, None, None]:
    """Raise RecordingError for an OSError of reading `path`."""
    try:
        yield
    except OSError as error:
        raise RecordingError(f'cannot read {error.filename or path}: {error.strerror}') from error


@contextlib.contextmanager
def explained_temporary_space(folder: Path) -> Generator[None, None, None]:
    """Raise StorageError that names the folder of temporary files if writing there fails, also by SQLite."""
    try:
        yield
    except (OSError, sqlite3.OperationalError) as error:
        is_full = 'disk is full' in str(error)  # SQLite has no errno.
        number = error.errno if isinstance(error, OSError) else errno.ENOSPC if is_full else None
        if number is None or number not in WRITING:
            raise
        raise StorageError(
            f'{folder}: {os.strerror(number)}; free some space or set TMPDIR to another folder, and run the same '
            'command again'
        ) from error

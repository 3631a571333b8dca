"""Faults of the storage (disk full, read-only, folder removed, ...) as StorageError, also where libraries hide them."""

from __future__ import annotations

import errno
import os
import re
import sqlite3
import threading
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from instructsam.core.errors import InstructSAMError, StorageError

ADVICE = {  # errno of a fault -> what to do
    errno.ENOSPC: 'free some space',
    errno.EDQUOT: 'free some space or raise the quota',
    errno.EFBIG: 'raise the limit of file sizes (ulimit -f)',
    errno.EROFS: 'remount the file system writable or give another folder',
    errno.EACCES: 'make it writable or give another folder',
    errno.EPERM: 'make it writable or give another folder',
    errno.ENOENT: 'if it was removed meanwhile, restore it or give another folder',
    errno.ENOTDIR: 'if it was replaced meanwhile, restore it or give another folder',
    errno.ESTALE: 'mount the file system again',
    errno.EIO: 'check the disk',
    errno.ENXIO: 'check the disk',
    errno.ENODEV: 'check the disk',
    errno.EMFILE: 'raise the limit of open files (ulimit -n)',
    errno.ENFILE: 'close other programs',
}
"""Every other errno is not a fault of the storage."""

CERTAIN = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.ESTALE, errno.EIO)
"""Faults of the storage wherever they occur; the other ones are so only while an output is written."""

NAMING = (errno.ENOENT, errno.ENOTDIR, errno.EACCES, errno.EPERM)
"""Faults that belong to the file that they name, which may be an input."""

_NUMBER = re.compile(r'\[Errno (\d+)\]|\(os error (\d+)\)')  # in texts of Python's shutil.Error; of Rust's libraries
_MESSAGES = {  # part of a library's message -> errno; 0 is unknown
    'database or disk is full': errno.ENOSPC,  # SQLite
    'disk I/O error': errno.EIO,
    'attempt to write a readonly database': errno.EROFS,
    'unable to open database file': errno.ENOENT,
    'No space left on device': errno.ENOSPC,  # torch, for one, appends strerror to its own text
    'Disk quota exceeded': errno.EDQUOT,
    'file write failed': 0,  # torch.save (PytorchStreamWriter)
    'PytorchStreamWriter failed': 0,
    'unexpected pos': 0,  # the same, at its end: the file is shorter than what was written
    'iostream error': 0,
}
_NO_PARENT = re.compile(r'Parent directory (\S+) does not exist')  # torch.save


@contextmanager
def explained_storage_faults(where: Path | str) -> Generator[None, None, None]:
    """Raise StorageError for a fault of the storage in the block.

    Args:
        where: The output, which the message names if the error names no file.
    """
    try:
        yield
    except Exception as error:
        fault = storage_fault(error, where)
        if fault is None or fault is error:
            raise
        raise fault from error


@contextmanager
def thread_faults_raised(where: Path | str | None = None) -> Generator[None, None, None]:
    """Raise a fault of the storage in any thread at the end of the block, unless the block raises.

    A thread that writes in the background, such as TensorBoard's, would print a traceback instead, and the command
    could end as if it had written everything.

    Args:
        where: The output, if threads write one, see storage_fault().
    """
    faults: list[StorageError] = []
    before = threading.excepthook

    def hook(args: threading.ExceptHookArgs) -> None:
        fault = storage_fault(args.exc_value, where) if args.exc_value is not None else None
        if fault is None or os.environ.get('INSTRUCTSAM_DEBUG'):
            before(args)
        if fault is not None:
            faults.append(fault)

    threading.excepthook = hook
    try:
        yield
    finally:
        threading.excepthook = before
    if faults:
        raise faults[0]


def storage_fault(error: BaseException, where: Path | str | None = None) -> StorageError | None:
    """Return a StorageError for an exception, or None if its cause is not the storage.

    Args:
        error: The exception. Of an InstructSAMError only a StorageError counts, because it has been explained already.
        where: The output, if it is known that one was being written. Otherwise only CERTAIN faults count.
    """
    if isinstance(error, InstructSAMError):
        return error if isinstance(error, StorageError) else None
    number, path = _errno(error), _path(error)
    if number is None or (where is None and number not in CERTAIN):
        return None
    if where is not None and path and number in NAMING and not _is_part(path, where):
        return None
    place = str(path or where or '')
    reason = os.strerror(number) if number else ' '.join(str(error).split())
    advice = ADVICE.get(number, 'make room for it and make it writable')
    return StorageError(f'{place}{": " if place else ""}{reason}; {advice}, and run the same command again')


def _is_part(path: str, output: Path | str) -> bool:
    """Return whether a file is below the folder of an output, where its temporary files are, or above the output."""
    try:
        file, target = Path(os.path.realpath(path)), Path(os.path.realpath(output))
    except OSError:
        return True  # The working folder has gone.
    return file.is_relative_to(target.parent) or file in target.parents


def _errno(error: BaseException) -> int | None:
    """Return the errno of a fault of the storage, 0 if the library does not report it, None if it is another error."""
    if isinstance(error, BrokenPipeError):
        return None  # the reader of the output has gone
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno if error.errno in ADVICE else None
    if not isinstance(error, (OSError, RuntimeError, sqlite3.Error)) and type(error).__name__ != 'SafetensorError':
        return None
    text = str(error)
    if match := _NUMBER.search(text):
        number = int(match[1] or match[2])
        return number if number in ADVICE else None
    if _NO_PARENT.search(text):
        return errno.ENOENT
    return next((number for part, number in _MESSAGES.items() if part in text), None)


def _path(error: BaseException) -> str:
    if isinstance(error, OSError) and error.filename is not None:
        return os.fsdecode(error.filename) if isinstance(error.filename, bytes) else str(error.filename)
    match = _NO_PARENT.search(str(error))
    return match[1] if match else ''

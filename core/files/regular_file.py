"""Regular files, opened without ever waiting for a FIFO or a terminal, or reading an endless device.

A path comes from a user, an annotation file or a model folder. Reading one that names /dev/zero fills the memory, and
opening one that names a FIFO waits for ever. The functions here raise OSError for everything that is not a regular
file, so that callers handle it like a file that is missing.
"""

import errno
import os
import stat
from pathlib import Path
from typing import BinaryIO

KINDS = (
    (stat.S_ISDIR, 'a directory'),
    (stat.S_ISFIFO, 'a FIFO'),
    (stat.S_ISCHR, 'a character device'),
    (stat.S_ISBLK, 'a block device'),
    (stat.S_ISSOCK, 'a socket'),
)


def open_regular_file(path: str | Path) -> BinaryIO:
    """Open a file for reading bytes.

    Raises OSError if it cannot be opened, is not a regular file, or is empty. Files of the kernel (/proc) say that
    they are empty, whatever reading them gives.
    """
    _check(path, _stat(path))  # opening a device may already have an effect
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        _check(path, os.fstat(descriptor))  # the path may lead to another file by now
        return os.fdopen(descriptor, 'rb')
    except BaseException:
        os.close(descriptor)
        raise


def read_regular_file(path: str | Path, max_bytes: int | None = None) -> bytes:
    """Return the content of a file.

    Raises OSError as `open_regular_file` does, and if the file has more than `max_bytes`.
    """
    with open_regular_file(path) as file:
        return file.read(_checked_size(path, file, max_bytes))  # not what another process appends meanwhile


def check_regular_file(path: str | Path, max_bytes: int | None = None) -> None:
    """Raise OSError as `read_regular_file` does, for a file that a library will open by its path."""
    with open_regular_file(path) as file:
        _checked_size(path, file, max_bytes)


def _checked_size(path: str | Path, file: BinaryIO, max_bytes: int | None) -> int:
    size = os.fstat(file.fileno()).st_size
    if max_bytes is not None and size > max_bytes:
        raise OSError(errno.EFBIG, f'it has {size} bytes, expected at most {max_bytes}', str(path))
    return size


def _stat(path: str | Path) -> os.stat_result:
    try:
        return os.stat(path)
    except ValueError as error:  # a path with a null character
        raise OSError(errno.EINVAL, str(error), str(path)) from error


def _check(path: str | Path, status: os.stat_result) -> None:
    if not stat.S_ISREG(status.st_mode):
        kind = next((name for is_kind, name in KINDS if is_kind(status.st_mode)), 'something else')
        raise OSError(errno.EINVAL, f'expected a regular file, this is {kind}', str(path))
    if not status.st_size:
        raise OSError(errno.ENODATA, 'the file is empty', str(path))

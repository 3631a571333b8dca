"""Files of lines that only grow: after a kill at any instant they hold complete lines, and at most the start of one."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Iterator
from pathlib import Path

from instructsam.core.errors import InstructSAMError
from instructsam.core.storage import explained_storage_faults


class AppendedFile:
    """A file of lines, written by one process, which has locked its folder.

    Args:
        path: The file; made with its folder if it does not exist, unless it is only read.
        writes: Open it for appending, too.

    Raises:
        InstructSAMError: It is not a regular file.
        StorageError: It cannot be written.
    """

    def __init__(self, path: Path, *, writes: bool = True) -> None:
        self.path = path
        if path.exists() and not path.is_file():  # a FIFO would be waited for
            raise InstructSAMError(f'{path} is not a regular file: delete it, or give another folder')
        with explained_storage_faults(path):
            if writes:
                path.parent.mkdir(parents=True, exist_ok=True)
            self._file = path.open('a+b' if writes else 'rb')
        self.size = 0  # bytes of the complete lines

    def lines(self) -> Iterator[bytes]:
        """Yield the complete lines from the first one on, and count them in `size`."""
        self._file.seek(0)
        self.size = 0
        for line in self._file:
            if not line.endswith(b'\n'):
                return
            yield line
            self.size += len(line)

    def drop_cut_line(self, lost: str) -> None:
        """Drop what follows the lines that `lines` has yielded to its end: the start of a line.

        Args:
            lost: Said of it on stderr.

        Raises:
            StorageError: The file cannot be written.
        """
        with explained_storage_faults(self.path):
            if self.path.stat().st_size > self.size:
                print(f'{self.path}: the last line was truncated, {lost}', file=sys.stderr)
                self._file.truncate(self.size)

    def read(self, first: int, length: int) -> bytes:
        """Return bytes of the file."""
        with explained_storage_faults(self.path):
            self._file.flush()
            self._file.seek(first)
            return self._file.read(length)

    def append(self, line: bytes) -> None:
        """Append a line, without its newline; it is in the file when this returns.

        Raises:
            StorageError: It cannot be written, or has been removed.
        """
        with explained_storage_faults(self.path):
            self._file.write(line + b'\n')
            self._file.flush()
            # A file without a name takes every line, and is lost when it is closed.
            if os.fstat(self._file.fileno()).st_nlink == 0 and not self.path.exists():  # some file systems count none
                raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(self.path))
        self.size += len(line) + 1

    def close(self) -> None:
        """Close the file."""
        with explained_storage_faults(self.path):
            self._file.close()

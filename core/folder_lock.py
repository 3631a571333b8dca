"""One writer per folder: `with FolderLock(folder): ...`.

The lock is `flock` on the hidden file .lock in the folder, so the system releases it however the process ends. The file
names the holder, and is removed with the lock. It is written here rather than with the package filelock because that
leaves its file behind, and does not report the process and host of the holder of a native lock.

On NFS, Linux passes flock on to the server as a lock of the whole file, so that it holds between machines too (unless
mounted with local_lock or nolock). Where a file system has no locks at all, a line says so and the run continues.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import socket
import stat
import sys
import time
from contextlib import suppress
from pathlib import Path

from instructsam.core.errors import FolderInUseError, InstructSAMError
from instructsam.core.storage import explained_storage_faults

LOCK = '.lock'
TRIES = 100
NAMED_WITHIN_S = 0.5  # time for a new holder to write its name
UNSUPPORTED = (errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOLCK, errno.EINVAL)  # raised by a file system without locks
_held: set[int] = set()  # descriptors of this process's locks


class FolderLock:
    """A context in which no other process can enter a FolderLock on the same folder.

    Args:
        folder: The folder; created if it does not exist, and removed at the end if it is still empty then.
        name: Name of the lock's file. Processes of one run that write different files have different names.

    Raises:
        FolderInUseError: Another process holds the lock; on entering.
        StorageError: The folder cannot be written; on entering.
        InstructSAMError: There is a file of the folder's name, or the lock's file is a link or the like; on entering.
    """

    def __init__(self, folder: Path | str, name: str = LOCK) -> None:
        self.folder = Path(folder)
        self.file = self.folder / name
        self._owner = 0  # process that entered the context: a forked child must not release the lock
        self._is_new = False
        self._descriptor = -1

    def __enter__(self) -> FolderLock:
        with explained_storage_faults(self.folder):
            for _ in range(TRIES):
                if self._acquire():
                    break
            else:
                raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(self.folder))
            self._owner = os.getpid()
            holder = {'pid': self._owner, 'host': socket.gethostname(), 'since': time.strftime('%Y-%m-%d %H:%M:%S')}
            try:
                os.truncate(self._descriptor, 0)
                os.pwrite(self._descriptor, json.dumps(holder).encode(), 0)
            except BaseException:
                self.__exit__()
                raise
        return self

    def __exit__(self, *_: object) -> None:
        if self._owner != os.getpid():
            return
        self._owner = 0
        with suppress(OSError):  # the folder may be gone
            if os.path.samestat(os.fstat(self._descriptor), os.stat(self.file)):
                self.file.unlink()  # before the lock is released: afterwards it could be the next holder's
        _held.discard(self._descriptor)
        os.close(self._descriptor)
        if self._is_new:
            with suppress(OSError):
                self.folder.rmdir()

    def _acquire(self) -> bool:
        """Return whether the lock was acquired. Raises FolderInUseError if it is taken.

        If it was neither, its last holder removed the file, and perhaps the folder, between two steps of this call.
        """
        self._make_folder()
        try:
            descriptor = open_own_file(self.file, os.O_RDWR)
        except FileNotFoundError:
            return False
        try:
            is_current = lock_file(descriptor, self.file)
        except BlockingIOError:
            os.close(descriptor)
            raise FolderInUseError(
                f'{self.folder} is being written by {_holder(self.file)}: wait for it to end, or give another folder'
            ) from None
        except OSError as error:
            if error.errno not in UNSUPPORTED:
                os.close(descriptor)
                raise
            print(f'{self.folder} is on a file system without locks: let no other process write it', file=sys.stderr)
            is_current = True
        if not is_current:
            os.close(descriptor)
            return False
        self._descriptor = descriptor
        _held.add(descriptor)
        return True

    def _make_folder(self) -> None:
        try:
            self.folder.mkdir(parents=True)
            self._is_new = True
        except FileExistsError:
            # Looked at once: if another process has just removed the folder, the next try makes it again.
            with suppress(FileNotFoundError):
                mode = os.lstat(self.folder).st_mode
                if not (stat.S_ISDIR(mode) or (stat.S_ISLNK(mode) and self.folder.is_dir())):
                    raise InstructSAMError(f'{self.folder} is a file: give the name of a folder') from None


def open_own_file(path: Path, flags: int) -> int:
    """Return the descriptor of a file of our own, created if it does not exist.

    Raises:
        InstructSAMError: `path` is a link, a folder, or a FIFO, at which opening could wait for ever.
        OSError: It cannot be opened.
    """
    with suppress(FileNotFoundError):
        if not stat.S_ISREG(os.lstat(path).st_mode):
            raise InstructSAMError(f'{path} is not a regular file, which it has to be: delete it')
    return os.open(path, flags | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK, 0o666)


def lock_file(descriptor: int, path: Path) -> bool:
    """Lock an open file without waiting, and return whether `path` is still its name.

    The last holder may have removed the file since it was opened.

    Raises:
        BlockingIOError: Another process holds the lock.
        OSError: The file cannot be locked; with a number of UNSUPPORTED, no file of its file system can.
    """
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except PermissionError as error:  # raised by some network file systems
        raise BlockingIOError(error.errno, error.strerror, str(path)) from error
    with suppress(FileNotFoundError):
        return os.path.samestat(os.fstat(descriptor), os.stat(path))
    return False


def _holder(file: Path) -> str:
    """Return the holder of a lock as text."""
    deadline = time.monotonic() + NAMED_WITHIN_S
    while True:
        with suppress(OSError, ValueError, KeyError, TypeError):
            holder = json.loads(file.read_text(encoding='utf-8'))
            pid, host = int(holder['pid']), str(holder['host'])
            if host != socket.gethostname() or Path('/proc', str(pid)).exists() or not Path('/proc/self').exists():
                return f'process {pid} on {host!r} since {str(holder["since"])!r}'
        # The name is not written yet, or is that of an earlier holder that was killed.
        if time.monotonic() > deadline:
            return 'another process'
        time.sleep(0.01)


def _close_in_child() -> None:
    """Close a forked child's copies of the descriptors, with which it would keep the lock after its parent's death."""
    for descriptor in _held:
        os.close(descriptor)
    _held.clear()


os.register_at_fork(after_in_child=_close_in_child)

"""Files and folders that appear completely or not at all: `with replaced(path) as part: ...`."""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import stat
import time
from collections.abc import Generator, Iterable
from contextlib import contextmanager, suppress
from pathlib import Path

from instructsam.core.errors import FolderInUseError, InstructSAMError, StorageError
from instructsam.core.folder_lock import UNSUPPORTED, FolderLock, lock_file, open_own_file
from instructsam.core.storage import explained_storage_faults, storage_fault

WAIT_S = 10.0  # time to wait for another process that writes the same file
OPEN_FILES = ('/dev/stdout', '/dev/stderr', '/dev/fd/', '/proc/')
"""Names of files that are open already: replacing one would not reach its descriptor."""


@contextmanager
def replaced(path: Path | str) -> Generator[Path, None, None]:
    """Yield a file name to write instead of `path`; it becomes `path` in one step at the end of the block.

    The name is always the same, `.NAME.part` with the ending of `path`, so that the next call replaces what a killed
    process left. It is locked meanwhile: another process that writes `path` waits. If the block raises, `path` stays as
    it is.

    Two kinds of files are written directly: a pipe or device, such as /dev/stdout, and a file in a folder in which no
    other can be created. One that is mounted by itself (in a container) is overwritten at the end.

    Args:
        path: The file. Of a symbolic link, its target is replaced. Its permissions are kept.

    Raises:
        StorageError: The file cannot be written.
        FolderInUseError: Another process has been writing it for WAIT_S.
    """
    with _part(path) as (part, target):
        mode = os.stat(part).st_mode
        yield part
        if part != target:
            if os.stat(part).st_mode != mode:  # safetensors puts a private file of its own there
                os.chmod(part, stat.S_IMODE(mode))
            _move(part, target)


def check_path(path: Path | str, taken: Iterable[Path | str] = ()) -> None:
    """Raise InstructSAMError if `replaced` could not write `path`; cheap, so that it can come before the work.

    taken: Files that the command reads, or also writes, so that it would destroy them.
    """
    target = Path(os.path.realpath(path))
    if any(_is_same(target, each) for each in taken):
        raise InstructSAMError(f'cannot write {path}: this file is also read or written otherwise. Give another name')
    if os.path.isdir(target):
        raise InstructSAMError(f'cannot write {path}: it is a folder')
    if not os.path.isdir(target.parent):
        folder = target.parent if os.path.islink(path) else Path(path).parent
        raise InstructSAMError(f'cannot write {path}: there is no folder {folder}')
    try:
        with _part(path) as (part, target):
            if part != target:
                part.unlink()
    except OSError as error:  # such as a name that is too long
        raise InstructSAMError(f'cannot write {path}: {error.strerror or error}') from error


@contextmanager
def _part(path: Path | str) -> Generator[tuple[Path, Path], None, None]:
    """Yield the file to write and the file that it has to become, which is the same if it is written directly.

    The former is created and locked, and removed if the block raises.
    """
    path, target = Path(path), Path(os.path.realpath(path))
    part = target.with_name(f'.{target.stem}.part{target.suffix}')
    try:
        if os.path.exists(path):
            if not os.path.isfile(path) or str(path).startswith(OPEN_FILES):
                yield path, path
                return
            os.close(os.open(path, os.O_WRONLY | os.O_CLOEXEC))  # Its own permissions count as well.
            if not os.access(target.parent, os.W_OK | os.X_OK):
                yield path, path
                return
        with _locked(part, path) as descriptor:
            try:
                if os.path.exists(target):
                    os.fchmod(descriptor, stat.S_IMODE(os.stat(target).st_mode))
                yield part, target
            except BaseException:
                with suppress(OSError):
                    part.unlink()
                raise
    except Exception as error:
        if isinstance(error, OSError) and error.filename == str(part):
            error.filename = str(path)
        fault = storage_fault(error, path)
        if fault is None or fault is error:
            raise
        raise StorageError(f'cannot write {fault}') from error


@contextmanager
def _locked(part: Path, path: Path) -> Generator[int, None, None]:
    """Create `part` if it does not exist, and lock it; yield its descriptor."""
    deadline = time.monotonic() + WAIT_S
    while True:
        descriptor = open_own_file(part, os.O_WRONLY)
        try:
            if _lock(descriptor, part):
                yield descriptor
                return
        finally:
            with suppress(OSError):
                fcntl.flock(descriptor, fcntl.LOCK_UN)  # a process that was forked meanwhile would keep it
            os.close(descriptor)
        if time.monotonic() > deadline:
            raise FolderInUseError(
                f'{path} is being written by another process: wait for it to end, or give another file'
            )
        time.sleep(0.01)


def _lock(descriptor: int, part: Path) -> bool:
    """Return whether the lock was acquired while the descriptor's file still had its name."""
    try:
        return lock_file(descriptor, part)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno not in UNSUPPORTED:
            raise
        return True  # FolderLock says so where folders are written for long


def _is_same(target: Path, other: Path | str) -> bool:
    """Return whether two names are of one file, which need not exist."""
    if os.path.realpath(other) == str(target):
        return True
    with suppress(OSError):
        return os.path.samefile(target, other)
    return False


def _move(part: Path, target: Path) -> None:
    try:
        os.replace(part, target)
    except OSError as error:
        if error.errno != errno.EBUSY:
            raise
        shutil.copyfile(part, target)  # `target` is a mount point, which cannot get another file
        part.unlink()


def write_text(path: Path | str, text: str) -> None:
    """Write a text file (UTF-8) completely or not at all. Raises StorageError."""
    with replaced(path) as part:
        part.write_text(text, encoding='utf-8')


@contextmanager
def new_folder(path: Path | str) -> Generator[Path, None, None]:
    """Yield the name of a folder to make instead of `path`; it becomes `path` in one step at the end of the block.

    It is written in PATH.partial, which is removed at the end, and which is locked meanwhile.

    Args:
        path: The folder; it does not exist, or is empty.

    Raises:
        InstructSAMError: It exists already, or PATH.partial is a link.
        FolderInUseError: Another process writes it.
        StorageError: It cannot be written.
    """
    check_new(path)
    target = Path(os.path.abspath(path))
    work = target.with_name(f'{target.name}.partial')
    part = work / target.name
    if os.path.islink(work):
        raise InstructSAMError(f'{work} is a link, expected a folder or nothing: delete it')
    with explained_storage_faults(target), FolderLock(work):
        check_new(path)  # another process may have finished it
        shutil.rmtree(part, ignore_errors=True)  # left by a process that was killed
        try:
            yield part
            commit_folder(part, target)
        finally:
            shutil.rmtree(part, ignore_errors=True)
    with suppress(OSError):
        work.rmdir()


def check_new(path: Path | str) -> None:
    """Raise InstructSAMError if `path` is a file or a folder with contents."""
    if os.path.exists(path) and (not os.path.isdir(path) or os.listdir(path)):
        raise InstructSAMError(f'{path} already exists: give the name of a new folder')


def commit_folder(written: Path, target: Path) -> None:
    """Move a folder that was written under another name to its own.

    A kill at any instant leaves the old folder, none, or the new one, but never a part of either.
    """
    for path in written.rglob('*'):
        if path.is_file():
            with path.open('rb') as file:
                os.fsync(file.fileno())
    replaced = written.with_name(f'replaced-{target.name}')
    if target.exists():
        shutil.rmtree(replaced, ignore_errors=True)
        os.replace(target, replaced)
    os.replace(written, target)
    shutil.rmtree(replaced, ignore_errors=True)

"""Files and folders that appear completely or not at all: `with replaced(path) as part: ...`."""

from __future__ import annotations

import os
import re
import shutil
import stat
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path

from instructsam.core.errors import InstructSAMError, StorageError
from instructsam.core.folder_lock import FolderLock
from instructsam.core.storage import explained_storage_faults, storage_fault


@contextmanager
def replaced(path: Path | str) -> Generator[Path, None, None]:
    """Yield a file name to write instead of `path`; it becomes `path` in one step at the end of the block.

    The name has the same ending and is unique to this process; what a killed process left under such a name is removed.
    If the block raises, `path` stays as it is. A pipe or device, such as /dev/stdout, is yielded itself, because it
    cannot be replaced.

    Args:
        path: The file. Of a symbolic link, its target is replaced.

    Raises:
        StorageError: The file cannot be written.
    """
    target = Path(os.path.realpath(path))
    part = target.with_name(f'.{target.stem}.{os.getpid()}.part{target.suffix}')
    try:
        if target.exists() and not stat.S_ISREG(target.stat().st_mode):
            yield Path(path)
            return
        _remove_abandoned(target)
        yield part
        os.replace(part, target)
    except OSError as error:
        if error.filename == str(part):
            error.filename = str(path)
        fault = storage_fault(error, path)
        if fault is None:
            raise
        raise StorageError(f'cannot write {fault}') from error
    finally:
        with suppress(OSError):
            part.unlink()


def _remove_abandoned(target: Path) -> None:
    """Remove the parts of `target` whose processes have ended."""
    name = re.compile(rf'\.{re.escape(target.stem)}\.(\d+)\.part{re.escape(target.suffix)}')
    for entry in os.scandir(target.parent):
        if match := name.fullmatch(entry.name):
            try:
                os.kill(int(match[1]), 0)
            except (ProcessLookupError, OverflowError):
                os.unlink(entry.path)
            except PermissionError:
                continue  # it belongs to another user's process


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
        InstructSAMError: It exists already.
        FolderInUseError: Another process writes it.
        StorageError: It cannot be written.
    """
    check_new(path)
    target = Path(os.path.abspath(path))
    work = target.with_name(f'{target.name}.partial')
    part = work / target.name
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
    path = Path(path)
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
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

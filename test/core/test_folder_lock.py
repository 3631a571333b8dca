"""One writer per folder: between processes, after kills, and with forked children."""

import json
import multiprocessing
import os
import re
import signal
import socket
import subprocess
import sys

import pytest

from instructsam.core import folder_lock
from instructsam.core.atomic_write import check_path
from instructsam.core.errors import FolderInUseError, InstructSAMError, StorageError
from instructsam.core.folder_lock import FolderLock

HOLD = """
import sys
from instructsam.core.folder_lock import FolderLock
with FolderLock(sys.argv[1]):
    print('held', flush=True)
    sys.stdin.read()
"""


def hold(folder):
    """Start a process that holds the lock until its stdin is closed."""
    process = subprocess.Popen(
        [sys.executable, '-c', HOLD, folder], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == 'held\n'
    return process


def end(process):
    process.stdin.close()
    process.stdout.close()
    assert process.wait(20) == 0


def test_a_second_process_is_refused_with_the_name_of_the_first(tmp_path):
    folder = tmp_path / 'run'
    process = hold(folder)
    with pytest.raises(FolderInUseError) as caught, FolderLock(folder):
        pass
    said = f'{folder} is being written by process {process.pid} on {socket.gethostname()!r} since '
    assert str(caught.value).startswith(said)
    assert caught.value.exit_code == 5
    end(process)
    assert not folder.exists()  # it was made for the lock and is still empty
    with FolderLock(folder):
        (folder / 'result').touch()
    assert os.listdir(folder) == ['result']


def test_the_lock_of_a_killed_process_does_not_block(tmp_path):
    process = hold(tmp_path)
    process.kill()
    process.communicate()
    assert (tmp_path / '.lock').exists()
    with FolderLock(tmp_path):
        assert json.loads((tmp_path / '.lock').read_text())['pid'] == os.getpid()
    assert not os.listdir(tmp_path)


def test_a_forked_child_neither_keeps_nor_releases_the_lock(tmp_path):
    """Data loaders fork: their processes outlive a killed parent by seconds."""
    reader, writer = os.pipe()
    lock = FolderLock(tmp_path)
    with lock:
        child = multiprocessing.get_context('fork').Process(target=lambda: (lock.__exit__(), os.read(reader, 1)))
        child.start()
        with pytest.raises(FolderInUseError, match=f'process {os.getpid()} '):
            FolderLock(tmp_path).__enter__()
    with FolderLock(tmp_path):
        assert child.is_alive()
        os.write(writer, b'.')
        child.join()
    os.close(reader)
    os.close(writer)


def test_of_many_that_start_at_once_one_enters(tmp_path):
    """Each enters and leaves a hundred times; a second writer would find the file that the first has made."""
    context, folder = multiprocessing.get_context('fork'), tmp_path / 'run'

    def contend(entered):
        while entered.value < 100:
            try:
                with FolderLock(folder):
                    os.close(os.open(folder / 'writer', os.O_CREAT | os.O_EXCL))
                    (folder / 'writer').unlink()
                    entered.value += 1
            except FolderInUseError:
                pass

    counts = [context.Value('i', 0) for _ in range(4)]
    processes = [context.Process(target=contend, args=(count,)) for count in counts]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0] * 4
    assert [count.value for count in counts] == [100] * 4
    assert not folder.exists() or not os.listdir(folder)


def test_a_folder_that_is_removed_while_it_is_looked_at_is_made_again(tmp_path, monkeypatch):
    folder = tmp_path / 'run'
    folder.mkdir()

    def then_remove(look):
        def look_and_remove(path):
            found = look(path)
            if str(path) == str(folder) and not removed:
                folder.rmdir()
                removed.append(path)
            return found

        return look_and_remove

    removed = []
    monkeypatch.setattr(os, 'lstat', then_remove(os.lstat))
    monkeypatch.setattr(os.path, 'lexists', then_remove(os.path.lexists))
    with FolderLock(folder):
        assert removed
        assert (folder / '.lock').exists()


def test_the_name_of_an_earlier_holder_is_not_given(tmp_path, monkeypatch):
    monkeypatch.setattr(folder_lock, 'NAMED_WITHIN_S', 0.05)
    process = hold(tmp_path)
    for text in ('', json.dumps({'pid': 2**22 + 1, 'host': socket.gethostname(), 'since': ''}), '[1]', '{"pid": "x"}'):
        (tmp_path / '.lock').write_text(text)
        with pytest.raises(FolderInUseError, match='is being written by another process:'):
            FolderLock(tmp_path).__enter__()
    (tmp_path / '.lock').write_text(json.dumps({'pid': 7, 'host': 'robot', 'since': 'noon'}))
    with pytest.raises(FolderInUseError, match=re.escape("process 7 on 'robot' since 'noon'")):
        FolderLock(tmp_path).__enter__()
    end(process)


def test_a_removed_folder_can_be_locked_again(tmp_path):
    folder = tmp_path / 'run'
    process = hold(folder)
    (folder / '.lock').unlink()
    folder.rmdir()
    with FolderLock(folder):
        end(process)  # must not remove the lock of its successor
        with pytest.raises(FolderInUseError):
            FolderLock(folder).__enter__()


def test_a_file_system_without_locks(tmp_path, monkeypatch, capsys):
    def flock(descriptor, operation):
        raise OSError(38, 'Function not implemented')

    monkeypatch.setattr(folder_lock.fcntl, 'flock', flock)
    with FolderLock(tmp_path):
        pass
    assert capsys.readouterr().err.startswith(f'{tmp_path} is on a file system without locks: ')


def test_a_name_that_cannot_be_written_releases_the_lock(tmp_path, monkeypatch):
    def pwrite(*_):
        raise OSError(28, 'No space left on device')

    descriptors = os.listdir('/proc/self/fd')
    with monkeypatch.context() as patch:
        patch.setattr(folder_lock.os, 'pwrite', pwrite)
        with pytest.raises(StorageError, match='No space left'):
            FolderLock(tmp_path / 'run').__enter__()
    assert os.listdir('/proc/self/fd') == descriptors
    assert not (tmp_path / 'run').exists()
    assert not folder_lock._held


def test_folders_that_cannot_be_locked(tmp_path):
    (tmp_path / 'file').touch()
    with pytest.raises(InstructSAMError, match='file is a file: give the name of a folder'):
        FolderLock(tmp_path / 'file').__enter__()
    with pytest.raises(StorageError, match='if it was replaced meanwhile'):
        FolderLock(tmp_path / 'file' / 'below').__enter__()
    with pytest.raises(StorageError, match='/proc/instructsam: No such file or directory; '):
        FolderLock('/proc/instructsam').__enter__()


def test_a_removed_working_directory(tmp_path):
    code = 'import os, shutil, sys\nfrom instructsam.core.folder_lock import FolderLock\nshutil.rmtree(os.getcwd())\n'
    done = subprocess.run(
        [sys.executable, '-c', code + 'FolderLock(".").__enter__()'], cwd=tmp_path, capture_output=True, text=True
    )
    assert 'StorageError: .: No such file or directory; ' in done.stderr


def test_a_killed_holder_is_not_waited_for(tmp_path):
    for _ in range(5):
        process = hold(tmp_path)
        os.kill(process.pid, signal.SIGKILL)
        process.communicate()
        with FolderLock(tmp_path):
            pass


@pytest.mark.parametrize('make', [lambda path: path.symlink_to('elsewhere'), lambda path: path.mkdir(), os.mkfifo])
def test_a_lock_file_that_is_no_regular_file_is_named(tmp_path, make):
    make(tmp_path / '.lock')
    with pytest.raises(InstructSAMError, match=r'\.lock is not a regular file'), FolderLock(tmp_path):
        pass
    make(tmp_path / '.a.part.txt')
    with pytest.raises(InstructSAMError, match=r'\.part\.txt is not a regular file'):
        check_path(tmp_path / 'a.txt')

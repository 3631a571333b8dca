"""Files and folders appear completely or not at all."""

import errno
import multiprocessing
import os
import signal
import stat
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

from instructsam.core import atomic_write
from instructsam.core.atomic_write import check_path, new_folder, replaced, write_text
from instructsam.core.errors import FolderInUseError, InstructSAMError, StorageError


def test_a_file_is_replaced_at_the_end(tmp_path):
    (tmp_path / 'a.txt').write_text('old')
    (tmp_path / 'link.txt').symlink_to('a.txt')
    with replaced(tmp_path / 'link.txt') as part:
        part.write_text('new')
        assert (tmp_path / 'a.txt').read_text() == 'old'
        assert part.suffix == '.txt'
    assert (tmp_path / 'link.txt').is_symlink()
    assert (tmp_path / 'a.txt').read_text() == 'new'
    assert sorted(os.listdir(tmp_path)) == ['a.txt', 'link.txt']


def test_what_a_killed_process_left_is_replaced(tmp_path):
    code = """
import os
from instructsam.core.atomic_write import replaced
for name in ('a', 'a.json', 'b.json'):
    replaced(name).__enter__().write_text('a long text')
os.kill(os.getpid(), 9)
"""
    for _ in range(2):
        assert subprocess.run([sys.executable, '-c', code], cwd=tmp_path).returncode == -signal.SIGKILL
        assert sorted(os.listdir(tmp_path)) == ['.a.part', '.a.part.json', '.b.part.json']
    (tmp_path / '.a.1.part.json').touch()  # of another program
    for name in ('a', 'a.json', 'b.json'):
        write_text(tmp_path / name, name)
        assert (tmp_path / name).read_text() == name
    assert sorted(os.listdir(tmp_path)) == ['.a.1.part.json', 'a', 'a.json', 'b.json']


def test_two_writers_of_one_file(tmp_path, monkeypatch):
    """The second one waits for the first; both write everything."""
    file = tmp_path / 'a.txt'
    with replaced(file) as part, ThreadPoolExecutor() as pool:
        part.write_text('first')
        second = pool.submit(write_text, file, 'second')
        with pytest.raises(TimeoutError):
            second.result(0.05)
        with monkeypatch.context() as patch:
            patch.setattr(atomic_write, 'WAIT_S', 0)
            with pytest.raises(FolderInUseError, match=r'a\.txt is being written by another process'):
                check_path(file)
        assert part.read_text() == 'first'
        os.replace(part, file)  # as at the end of the block
        second.result()
        part.touch()
    write_text(file, 'third')
    assert os.listdir(tmp_path) == ['a.txt']
    assert file.read_text() == 'third'


def test_a_fork_does_not_keep_a_file_locked(tmp_path):
    with replaced(tmp_path / 'a') as part:
        part.touch()
        child = subprocess.Popen(['sleep', '60'], close_fds=False)
        forked = multiprocessing.get_context('fork').Process(target=signal.pause)
        forked.start()
    try:
        write_text(tmp_path / 'a', 'x')
    finally:
        for process in (child, forked):
            process.kill()
        child.wait()
        forked.join()


def test_permissions_are_kept(tmp_path):
    write_text(tmp_path / 'a', 'old')
    (tmp_path / 'a').chmod(0o640)
    write_text(tmp_path / 'a', 'new')
    assert stat.S_IMODE((tmp_path / 'a').stat().st_mode) == 0o640
    before = os.umask(0o027)
    write_text(tmp_path / 'b', 'new')
    os.umask(before)
    assert stat.S_IMODE((tmp_path / 'b').stat().st_mode) == 0o640


@pytest.mark.parametrize('is_there', [True, False])
def test_permissions_are_kept_if_the_part_is_replaced(tmp_path, is_there):
    """Some libraries, such as safetensors, write a private file and rename it."""
    file, plain = tmp_path / 'a.bin', tmp_path / 'plain'
    plain.touch()
    if is_there:
        file.touch()
        file.chmod(0o640)
    with replaced(file) as part:
        private = tmp_path / 'private'
        private.touch(0o600)
        private.rename(part)
    assert oct(file.stat().st_mode) == (oct(0o100640) if is_there else oct(plain.stat().st_mode))


def test_a_file_that_is_mounted_by_itself_is_overwritten(tmp_path, monkeypatch):
    def busy(source, target):
        raise OSError(errno.EBUSY, os.strerror(errno.EBUSY), str(source), None, str(target))

    write_text(tmp_path / 'a.txt', 'old, and longer')
    inode = (tmp_path / 'a.txt').stat().st_ino
    monkeypatch.setattr(os, 'replace', busy)
    write_text(tmp_path / 'a.txt', 'new')
    assert (tmp_path / 'a.txt').read_text() == 'new'
    assert (tmp_path / 'a.txt').stat().st_ino == inode
    assert os.listdir(tmp_path) == ['a.txt']


def test_the_check_and_the_write_agree(tmp_path):
    """As another user, because root may write everywhere."""
    if os.getuid():
        pytest.skip('needs root, to become another user')
    code = """
import os, sys
from instructsam.core.atomic_write import check_path, write_text
from instructsam.core.errors import InstructSAMError
os.setuid(65534)
for path in sys.argv[1:]:
    for act in (check_path, lambda path: write_text(path, 'new')):
        try:
            act(path)
            print('done')
        except InstructSAMError as error:
            print(type(error).__name__, str(error).replace(path, 'FILE'))
"""
    tmp_path.chmod(0o755)
    for parent in tmp_path.parents:
        if parent.stat().st_uid == os.getuid() and 'pytest' in str(parent):
            parent.chmod(0o755)
    closed, free = tmp_path / 'closed', tmp_path / 'open'
    closed.mkdir()
    free.mkdir()
    free.chmod(0o777)
    (closed / 'own').touch()
    (closed / 'own').chmod(0o666)
    (free / 'link').symlink_to(closed / 'own')
    (free / 'forbidden').touch()
    (free / 'dangling').symlink_to(free / 'target')
    (free / 'away').symlink_to(closed / 'new')
    names = ['closed/own', 'open/link', 'open/new', 'open/dangling', 'closed/new', 'open/forbidden', 'open/away']
    paths = [str(tmp_path / name) for name in names]
    done = subprocess.run([sys.executable, '-c', code, *paths], capture_output=True, text=True)
    lines = done.stdout.splitlines()
    assert lines[:8] == 8 * ['done'], done
    refused = 'StorageError cannot write FILE: Permission denied; make it writable or give another folder'
    assert lines[8:] == 6 * [f'{refused}, and run the same command again']
    assert [(closed / 'own').read_text(), (free / 'target').read_text()] == ['new', 'new']
    assert (free / 'dangling').is_symlink()
    assert sorted(os.listdir(free)) == ['away', 'dangling', 'forbidden', 'link', 'new', 'target']
    assert os.listdir(closed) == ['own']


def test_paths_that_cannot_be_written(tmp_path):
    (tmp_path / 'folder').mkdir()
    for path, reason in [
        (tmp_path / 'absent' / 'a', f'there is no folder {tmp_path}/absent'),
        (tmp_path / 'folder', 'it is a folder'),
        (tmp_path / ('a' * 300), 'File name too long'),
        ('/proc/instructsam', 'No such file'),
    ]:
        with pytest.raises(InstructSAMError, match=f'cannot write {path}: {reason}'):
            check_path(path)
    assert os.listdir(tmp_path) == ['folder']


def test_standard_output_is_written_itself(tmp_path):
    code = """
from instructsam.core.atomic_write import check_path, write_text
for text in ('one ', 'two'):
    check_path('/dev/stdout')
    write_text('/dev/stdout', text)
"""
    command = [sys.executable, '-c', code]
    assert subprocess.run(command, capture_output=True, text=True).stdout == 'one two'
    with open(tmp_path / 'file', 'w') as file:
        inode = os.fstat(file.fileno()).st_ino
        subprocess.run(command, stdout=file, check=True)
    assert (tmp_path / 'file').read_text() == 'two'
    assert (tmp_path / 'file').stat().st_ino == inode


def test_a_failed_write_leaves_the_old_file(tmp_path):
    write_text(tmp_path / 'a.txt', 'old')

    def fail(number):
        with replaced(tmp_path / 'a.txt') as part:
            part.write_text('half')
            raise OSError(number, os.strerror(number), str(part))

    with pytest.raises(StorageError, match=f'cannot write {tmp_path}/a.txt: No space left on device; free some space'):
        fail(errno.ENOSPC)
    with pytest.raises(OSError, match='Too many levels'):
        fail(errno.ELOOP)
    assert (tmp_path / 'a.txt').read_text() == 'old'
    assert os.listdir(tmp_path) == ['a.txt']


def test_devices_are_written_themselves(tmp_path):
    write_text('/dev/null', 'x')
    with pytest.raises(StorageError, match='cannot write /dev/full: No space left on device'):
        write_text('/dev/full', 'x' * 100_000)
    os.mkfifo(tmp_path / 'pipe')
    reader = os.open(tmp_path / 'pipe', os.O_RDONLY | os.O_NONBLOCK)
    write_text(tmp_path / 'pipe', 'x')
    assert os.read(reader, 9) == b'x'
    os.close(reader)


def test_a_new_folder(tmp_path):
    target = tmp_path / 'model'
    with new_folder(target) as part:
        part.mkdir()
        (part / 'a').touch()
        assert not target.exists()
        with pytest.raises(FolderInUseError), new_folder(target):
            pass
    assert os.listdir(target) == ['a']
    assert os.listdir(tmp_path) == ['model']
    with (
        pytest.raises(InstructSAMError, match='model already exists: give the name of a new folder'),
        new_folder(target),
    ):
        pass
    (tmp_path / 'empty').mkdir()
    with new_folder(tmp_path / 'empty') as part:
        part.mkdir()
    with pytest.raises(StorageError, match='absent'), new_folder(tmp_path / 'failed') as part:
        os.rmdir(part.parent / 'absent')
    assert sorted(os.listdir(tmp_path)) == ['empty', 'model']


def test_a_killed_process_leaves_no_folder(tmp_path):
    code = """
import os, sys
from instructsam.core.atomic_write import new_folder
with new_folder('model') as part:
    part.mkdir()
    (part / 'half').touch()
    os.kill(os.getpid(), 9)
"""
    done = subprocess.run([sys.executable, '-c', code], cwd=tmp_path)
    assert done.returncode == -signal.SIGKILL
    assert os.listdir(tmp_path) == ['model.partial']
    with new_folder(tmp_path / 'model') as part:
        part.mkdir()
        (part / 'whole').touch()
    assert os.listdir(tmp_path) == ['model']
    assert os.listdir(tmp_path / 'model') == ['whole']


def test_a_new_folder_is_not_written_through_a_link(tmp_path):
    (tmp_path / 'elsewhere').mkdir()
    (tmp_path / 'out.partial').symlink_to(tmp_path / 'elsewhere')
    with pytest.raises(InstructSAMError, match=r'out\.partial is a link'), new_folder(tmp_path / 'out') as part:
        part.mkdir()
    assert list((tmp_path / 'elsewhere').iterdir()) == []

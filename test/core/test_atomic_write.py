"""Files and folders appear completely or not at all."""

import errno
import os
import signal
import subprocess
import sys

import pytest

from instructsam.core.atomic_write import new_folder, replaced, write_text
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


def test_a_killed_process_leaves_no_part(tmp_path):
    code = """
import os
from instructsam.core.atomic_write import replaced
for name in ('a', 'a.json', 'b.json'):
    replaced(name).__enter__().touch()
os.kill(os.getpid(), 9)
"""
    for _ in range(2):
        assert subprocess.run([sys.executable, '-c', code], cwd=tmp_path).returncode == -signal.SIGKILL
    own = tmp_path / f'.a.{os.getpid()}.part.txt'  # of another file
    for other in (own, tmp_path / '.a.1.part.json', tmp_path / '.a.x.part.json'):  # 1 is a process that runs
        other.touch()
    for name in ('a', 'a.json', 'b.json'):
        write_text(tmp_path / name, name)
    assert sorted(os.listdir(tmp_path)) == sorted(
        [own.name, '.a.1.part.json', '.a.x.part.json', 'a', 'a.json', 'b.json']
    )


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

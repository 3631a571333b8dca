"""Faults of the storage are recognised, also in the exceptions of libraries that hide them; other errors are not."""

import errno
import os
import resource
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from instructsam.core import cli, exit_codes
from instructsam.core.errors import DataError, StorageError
from instructsam.core.storage import ADVICE, explained_storage_faults, storage_fault

ROOT = Path(__file__).parents[2]
LIMITED = """
import sys
from instructsam.core.storage import storage_fault
try:
    {statement}
except Exception as error:
    print(type(error).__name__, '|', storage_fault(error, 'OUT'))
"""


def limit_files():
    """Let every write beyond 4 KiB fail with EFBIG, as a full disk lets it fail with ENOSPC."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))


def fault_of(statement, cwd):
    """Run a statement in a process whose files are limited, and return what it raised and how that is explained."""
    code = LIMITED.format(statement=statement)
    done = subprocess.run([sys.executable, '-c', code], cwd=cwd, capture_output=True, text=True, preexec_fn=limit_files)
    assert done.stdout, done.stderr
    return done.stdout.strip()


@pytest.mark.parametrize('number', [errno.ENOSPC, errno.EROFS, errno.EACCES, errno.ENOENT, errno.EDQUOT, errno.EIO])
def test_system_errors(number):
    fault = storage_fault(OSError(number, os.strerror(number), '/out/x'), '/out/y')
    assert str(fault) == f'/out/x: {os.strerror(number)}; {ADVICE[number]}, and run the same command again'
    assert storage_fault(OSError(number, 'text', b'/out/\xff'), '/out/y') is not None
    assert str(storage_fault(OSError(number, 'text'), 'OUT')).startswith('OUT: ')


@pytest.mark.parametrize('number', [errno.EACCES, errno.ENOENT, errno.ENOTDIR, errno.EPERM, errno.EMFILE])
def test_errors_that_are_of_the_storage_only_for_an_output(number):
    assert storage_fault(OSError(number, 'text', '/out/x')) is None
    assert storage_fault(RuntimeError(f'text (os error {number})')) is None
    for path in ('/out/run/x', '/out/run.partial/x', '/out', '/'):
        assert storage_fault(OSError(number, 'text', path), '/out/run')
    is_input_blamed = storage_fault(OSError(number, 'text', '/data/x'), '/out/run') is not None
    assert is_input_blamed == (number == errno.EMFILE)


@pytest.mark.parametrize(
    'error',
    [
        ValueError('No space left on device'),
        RuntimeError('shapes differ'),
        OSError('truncated image'),
        BrokenPipeError(errno.EPIPE, 'Broken pipe'),
        ConnectionRefusedError(errno.ECONNREFUSED, 'refused'),
        sqlite3.OperationalError('no such table: run'),
        DataError('No space left on device'),
        KeyboardInterrupt(),
    ],
    ids=repr,
)
def test_other_errors(error):
    assert storage_fault(error) is None
    with pytest.raises(type(error)), explained_storage_faults('OUT'):
        raise error


@pytest.mark.parametrize(
    ('statement', 'type_name'),
    [
        ("open('a', 'wb').write(bytes(9999))", 'OSError'),
        ("from PIL import Image; Image.effect_noise((200, 200), 9).save('a.png')", 'OSError'),
        ("import torch; torch.save(torch.zeros(9999), 'a.pt')", 'RuntimeError'),
        ("import torch; torch.save(torch.zeros(9), 'absent/a.pt')", 'RuntimeError'),
        ("import torch; from safetensors.torch import save_file; save_file({'a': torch.zeros(9999)}, 'a')", 'Safe'),
        ("import torch; from safetensors.torch import save_file; save_file({'a': torch.ones(9)}, 'absent/a')", 'Safe'),
        ("import shutil; shutil.copytree('source', 'copy')", 'Error'),
    ],
)
def test_libraries_with_limited_files(tmp_path, statement, type_name):
    (tmp_path / 'source').mkdir()
    (tmp_path / 'source' / 'large').write_bytes(bytes(9999))
    said = fault_of(statement, tmp_path)
    assert said.startswith(type_name)
    assert said.endswith(', and run the same command again')


def test_a_database_with_limited_files(tmp_path):
    statement = (
        "import sqlite3; db = sqlite3.connect('a'); db.execute('PRAGMA journal_mode=WAL'); "
        "db.execute('CREATE TABLE t (x)'); db.execute('INSERT INTO t VALUES (?)', (bytes(9999),)); db.commit()"
    )
    assert fault_of(statement, tmp_path).startswith('OperationalError | OUT: ')
    assert storage_fault(sqlite3.OperationalError('database or disk is full'), 'OUT') is not None
    assert storage_fault(sqlite3.OperationalError('attempt to write a readonly database'), 'OUT') is not None


def test_a_folder_copied_to_a_full_disk():
    error = shutil.Error([('a', 'b', "[Errno 28] No space left on device: 'b'")])
    assert str(storage_fault(error, 'OUT')).startswith('OUT: No space left on device; free some space')


def test_an_explained_fault_is_not_explained_again():
    fault = StorageError('x')
    with pytest.raises(StorageError) as caught, explained_storage_faults('OUT'):
        raise fault
    assert caught.value is fault


def test_every_command_ends_with_its_code(monkeypatch, capsys):
    def fail(argv):
        raise OSError(errno.ENOSPC, 'No space left on device', '/out/x')

    monkeypatch.setattr(cli, '_run', fail)
    assert cli.main(['bag']) == exit_codes.STORAGE == 4
    assert capsys.readouterr().err == (
        'instructsam: error: /out/x: No space left on device; free some space, and run the same command again\n'
    )


@pytest.mark.parametrize('number', [errno.ENOENT, errno.EACCES, errno.ENOTDIR])
def test_a_stray_error_is_unexpected(monkeypatch, capsys, number):
    def fail(argv):
        raise OSError(number, os.strerror(number), '/data/x')

    monkeypatch.setattr(cli, '_run', fail)
    assert cli.main(['eval']) == exit_codes.FAILED
    assert 'unexpected' in capsys.readouterr().err


@pytest.mark.parametrize('is_raised_again', [False, True])
def test_a_fault_in_a_thread(monkeypatch, capsys, is_raised_again):
    """It is one line and an exit code, whether or not the thread's owner raises it again."""

    def write():
        raise OSError(errno.ENOSPC, 'No space left on device', '/out/x')

    def run(argv):
        thread = threading.Thread(target=write)
        thread.start()
        thread.join()
        if is_raised_again:
            write()
        return 0

    monkeypatch.setattr(cli, '_run', run)
    assert cli.main(['train']) == exit_codes.STORAGE
    assert capsys.readouterr().err == (
        'instructsam: error: /out/x: No space left on device; free some space, and run the same command again\n'
    )


def test_another_error_in_a_thread_is_shown(monkeypatch, capsys):
    def run(argv):
        thread = threading.Thread(target=lambda: 1 / 0)
        thread.start()
        thread.join()
        return 0

    shown = []
    monkeypatch.setattr(threading, 'excepthook', shown.append)
    monkeypatch.setattr(cli, '_run', run)
    assert cli.main(['train']) == 0
    assert shown[0].exc_type is ZeroDivisionError


def test_a_full_standard_output():
    code = 'import sys; from instructsam.core import cli; cli._run = lambda _: print("x") or 0; sys.exit(cli.main([]))'
    with open('/dev/full', 'wb') as full:
        done = subprocess.run([sys.executable, '-c', code], stdout=full, stderr=subprocess.PIPE, text=True)
    assert done.returncode == exit_codes.STORAGE
    assert done.stderr.startswith('instructsam: error: No space left on device; ')
    assert done.stderr.count('\n') == 1


def test_the_documented_exit_codes():
    table = (ROOT / 'docs' / 'commands.md').read_text()
    for code, meaning in exit_codes.MEANINGS.items():
        assert f'| {code} | {meaning} |' in table


def test_help_shows_the_exit_codes(capsys):
    for argv in (
        ['segment', '--help'],
        ['tabletop', 'generate', '--help'],
        ['train', '--help'],
        ['eval', 'gseval', '-h'],
    ):
        with pytest.raises(SystemExit):
            cli.main(argv)
        assert exit_codes.describe() in ' '.join(capsys.readouterr().out.split())

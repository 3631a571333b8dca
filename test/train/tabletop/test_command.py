"""`instructsam tabletop`: its output, and one-line errors for wrong arguments and missing dependencies."""

import contextlib
import operator
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from command_line import COMMAND, is_one_error_line
from PIL import Image

from instructsam.core import cli

pytest.importorskip('mujoco', reason='MuJoCo renders the tabletop world: pip install mujoco')
from instructsam.train.tabletop.scenes import render
from instructsam.train.tabletop.workers import in_order


@pytest.fixture
def tabletop(tmp_path, monkeypatch, capsys):
    """Return a function that runs the command in this process in an empty folder and returns (exit code, stderr)."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments):
        try:
            code = cli.main(['tabletop', *arguments])
        except SystemExit as end:  # argparse
            code = end.code
        return code, capsys.readouterr().err

    return run


@pytest.mark.usefixtures('opengl')
def test_page(tabletop, tmp_path):
    assert tabletop('page', 'a.png', '--scenes', '7', '--split', 'test') == (0, '')
    page = Image.open(tmp_path / 'a.png')
    assert page.width > 6 * 224
    assert page.height > 2 * 224
    assert len(page.convert('RGB').getcolors(256)) > 100


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        ([], 'COMMAND'),
        (['draw'], "invalid choice: 'draw'"),
        (['generate'], 'OUT'),
        (['generate', 'out', '--scenes', '0'], '--scenes: expected a whole number of at least 1, got 0'),
        (['generate', 'out', '--seed', '-1'], "--seed: expected a whole number from 0, got '-1'"),
        (['generate', 'out', '--seed', '²'], '--seed'),
        (['generate', 'out', '--split', 'all'], "--split: invalid choice: 'all'"),
        (['generate', 'out', '--size', '224'], '--size'),
        (['generate', 'out', '--size', '224', '0'], "--size: expected 16 to 4096 px, got '0'"),
        (['generate', 'out', '--workers', '0'], '--workers'),
        (['page', 'a.jpg'], 'a page is a PNG file'),
        (['page', 'absent/a.png'], 'there is no folder absent'),
        (['page', 'a.png', '--scenes', 'x'], '--scenes'),
    ],
    ids=ascii,
)
def test_bad_arguments(tabletop, tmp_path, arguments, message):
    code, err = tabletop(*arguments)
    assert code == 2
    assert message in err
    assert is_one_error_line(err)
    assert not list(tmp_path.iterdir())


@pytest.mark.usefixtures('opengl')
def test_a_folder_that_cannot_be_written(tabletop, tmp_path):
    (tmp_path / 'out').write_text('')
    code, err = tabletop('generate', 'out', '--scenes', '1')
    assert code == 2
    assert 'out is a file: give the name of a folder' in err
    assert is_one_error_line(err)


@pytest.mark.parametrize(
    'arguments', [['tabletop', 'generate', 'out'], ['tabletop', 'page', 'a.png'], ['eval', 'tabletop']], ids=' '.join
)
def test_without_mujoco_or_opengl(arguments, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(render, 'import_module', no_library)
    assert cli.main(arguments) == 2
    err = capsys.readouterr().err
    assert 'no OpenGL through' in err
    assert 'libosmesa6' in err
    assert is_one_error_line(err)
    monkeypatch.setitem(sys.modules, 'mujoco', None)
    assert cli.main(arguments) == 2
    err = capsys.readouterr().err
    assert 'pip install "instructsam-ros[tabletop]"' in err
    assert is_one_error_line(err)
    assert not list(tmp_path.iterdir())


def no_library(name):
    """Fail like `import_module` of PyOpenGL without the OpenGL library."""
    raise AttributeError("'NoneType' object has no attribute 'glGetError'")


def test_results_of_workers_are_in_order():
    assert list(in_order(operator.neg, range(40), workers=2)) == [-index for index in range(40)]


def test_results_need_not_all_be_taken():
    results = in_order(operator.neg, range(10**9), workers=1)
    assert [next(results), next(results)] == [0, -1]
    results.close()


def test_an_error_of_a_worker_is_raised_here():
    with pytest.raises(TypeError):
        list(in_order(len, range(3), workers=1))


@pytest.mark.usefixtures('opengl')
@pytest.mark.parametrize('cut', ['', '{"scene": {"na'], ids=['', 'in the middle of a line'])
def test_resumes_after_it_was_killed(tabletop, tmp_path, cut):
    """Finished scenes are not rendered again, and the files equal those of an uninterrupted run."""
    call = ['--scenes', '4', '--seed', '5', '--size', '64', '48', '--no-depth']
    assert tabletop('generate', 'whole', *call) == (0, '')
    command = [*COMMAND, 'tabletop', 'generate', 'out', *call]
    command[command.index('4')] = '1000'
    process = subprocess.Popen([*command, '--workers', '1'], cwd=tmp_path, stderr=subprocess.DEVNULL)
    part = tmp_path / 'out/train.part'
    wait_for(lambda: part.exists() and part.read_text().count('\n') >= 2)
    process.kill()
    process.wait()
    part.write_text(''.join(part.read_text().splitlines(True)[:2]) + cut)
    first = sorted((tmp_path / 'out/images').iterdir())[0]
    written = first.stat().st_mtime_ns
    code, err = tabletop('generate', 'out', *call, '--workers', '1', '--seed', '6')
    assert code == 2
    assert 'train in out was started with other settings (seed was 5, now 6): repeat those to resume it' in err
    assert is_one_error_line(err)
    assert tabletop('generate', 'out', *call, '--workers', '1') == (0, 'train resumes after 2 of 4 scenes\n')
    assert first.stat().st_mtime_ns == written
    assert not part.exists()
    for path in (tmp_path / 'whole').rglob('*.*'):
        assert (tmp_path / 'out' / path.relative_to(tmp_path / 'whole')).read_bytes() == path.read_bytes(), path


@pytest.mark.usefixtures('opengl')
def test_two_at_once(tabletop, tmp_path):
    """The second is refused, whatever it would write, and the first writes what it writes alone."""
    call = ['--seed', '5', '--size', '64', '48', '--no-depth', '--workers', '1']
    command = [*COMMAND, 'tabletop', 'generate', 'out', *call, '--scenes', '8']
    first = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    wait_for((tmp_path / 'out/train.part').exists)
    for other in (['--scenes', '3'], ['--scenes', '3', '--split', 'val'], ['--scenes', '3', '--seed', '6']):
        code, err = tabletop('generate', 'out', *call, *other)
        assert code == 5
        assert f'out is being written by process {first.pid} on ' in err
        assert is_one_error_line(err)
    assert (first.communicate(timeout=60)[1], first.returncode) == ('', 0)
    assert tabletop('generate', 'alone', *call, '--scenes', '8') == (0, '')
    names = sorted(path.relative_to(tmp_path / 'alone') for path in (tmp_path / 'alone').rglob('*'))
    assert names == sorted(path.relative_to(tmp_path / 'out') for path in (tmp_path / 'out').rglob('*'))
    for name in names:
        if name.suffix:
            assert (tmp_path / 'out' / name).read_bytes() == (tmp_path / 'alone' / name).read_bytes(), name


@pytest.mark.usefixtures('opengl')
def test_a_finished_split(tabletop, tmp_path):
    """The same call changes nothing, more scenes are added, and anything else is refused."""
    call = ['generate', 'out', '--size', '64', '48', '--no-depth', '--workers', '1', '--scenes']
    assert tabletop(*call, '2') == (0, '')
    files = {path: path.stat().st_mtime_ns for path in (tmp_path / 'out').rglob('*.*')}
    assert tabletop(*call, '2') == (0, 'out holds the 2 scenes of train already\n')
    for arguments, said in ((['2', '--seed', '6'], 'seed was 0, now 6'), (['1'], 'scenes was 2, now 1')):
        code, err = tabletop(*call, *arguments)
        assert code == 2
        assert f'train in out was started with other settings ({said}): ' in err
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / 'out').rglob('*.*')} == files
    assert tabletop(*call, '3') == (0, '')
    assert len((tmp_path / 'out/train_scenes.jsonl').read_text().splitlines()) == 3
    assert tabletop(*call, '1', '--split', 'val') == (0, '')


@pytest.mark.usefixtures('opengl')
@pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGTERM])
def test_a_signal_to_all_processes(tmp_path, number):
    """A terminal or service manager signals the workers as well: one line, and no list of records is incomplete."""
    command = [*COMMAND, 'tabletop', 'generate', 'out', '--workers', '2']
    process = subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True, start_new_session=True)
    wait_for(lambda: list(tmp_path.glob('out/*.part')))  # the file exists once the workers are starting
    os.killpg(process.pid, number)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 128 + number
    assert err.startswith(f'instructsam: stopped by {number.name}; the same command resumes after ')
    assert err.count('\n') == 1
    assert {path.name for path in tmp_path.glob('out/*.*')} == {'train.part', 'train_run.json'}


@pytest.mark.usefixtures('opengl')
def test_workers_end_with_a_killed_process(tmp_path):
    """Otherwise they would wait forever, or write into the folder of the next run."""
    command = [*COMMAND, 'tabletop', 'generate', 'out', '--workers', '2']
    process = subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.DEVNULL, start_new_session=True)
    part = tmp_path / 'out/train.part'
    wait_for(lambda: part.exists() and part.stat().st_size)
    process.kill()
    process.wait()
    wait_for(lambda: not members(process.pid))


def members(group):
    """Return the processes of a process group."""
    found = []
    for pid in filter(str.isdecimal, os.listdir('/proc')):
        with contextlib.suppress(ProcessLookupError, FileNotFoundError):
            state = Path(f'/proc/{pid}/stat').read_text().rpartition(')')[2].split()[0]
            if os.getpgid(int(pid)) == group and state != 'Z':
                found.append(int(pid))
    return found


def wait_for(condition, timeout_s=60):
    end = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < end, 'timed out'
        time.sleep(0.02)

"""The `instructsam` command line: every error is one line and an exit code."""

import importlib
import os
import signal
import subprocess
import sys
from types import SimpleNamespace

import pytest
from command_line import COMMAND, is_one_error_line, run
from PIL import Image

from instructsam.core import cli


def test_demo_without_ros(monkeypatch, capsys):
    for name in ('instructsam_ros', 'instructsam_ros.demo.command'):
        monkeypatch.setitem(sys.modules, name, None)
    assert cli.main(['demo']) == 2
    err = capsys.readouterr().err
    assert 'no ROS side' in err
    assert is_one_error_line(err)


@pytest.mark.parametrize(('extra', 'module'), [('tabletop', 'mujoco'), ('train', 'peft')])
@pytest.mark.parametrize('when', ['import', 'run'])
def test_without_an_extra(monkeypatch, capsys, extra, module, when):
    def fail(*_):
        raise ModuleNotFoundError(f'No module named {module!r}', name=module)

    command = SimpleNamespace(add_arguments=lambda parser: None, run=fail)
    monkeypatch.setattr(importlib, 'import_module', fail if when == 'import' else lambda _: command)
    assert cli.main(['eval']) == 2
    err = capsys.readouterr().err
    assert f'pip install "instructsam-ros[{extra}]"' in err
    assert module in err
    assert is_one_error_line(err)


def test_a_missing_module_that_no_extra_installs(monkeypatch, capsys):
    def fail(*_):
        raise ModuleNotFoundError("No module named 'numpy'", name='numpy')

    monkeypatch.setattr(importlib, 'import_module', fail)
    assert cli.main(['segment']) == 1
    assert capsys.readouterr().err.startswith("instructsam: unexpected ModuleNotFoundError: No module named 'numpy'")


@pytest.mark.parametrize(
    'arguments',
    [
        ['--help'],
        ['--version'],
        ['segment', '--help'],
        ['tabletop', 'generate', '--help'],
        ['eval', 'tabletop', '-h'],
        ['train', '--help'],
        ['train', 'run', '--help'],
        ['train', 'ablate', '--help'],
        ['train', 'merge', '--help'],
        ['train', 'export', '--help'],
        ['train', 'tabletop', '--help'],
    ],
    ids=' '.join,
)
def test_help_is_quick(arguments):
    code = (
        'import sys\nfrom instructsam.core import cli\n'
        f'try:\n    cli.main({arguments})\nexcept SystemExit as end:\n    assert not end.code\n'
        'assert not {"torch", "transformers", "cv2", "rclpy"} & set(sys.modules)'
    )
    subprocess.run([sys.executable, '-c', code], check=True, stdout=subprocess.DEVNULL)


def test_training_without_its_subcommand():
    done = run('train', 'train/configs/stage1.yaml', 'steps=3')
    assert done.returncode == 2
    assert 'instructsam train run RECIPE' in done.stderr
    assert is_one_error_line(done.stderr)


@pytest.mark.parametrize('arguments', [[], ['bogus'], ['--bogus']], ids=ascii)
def test_unknown_command(arguments):
    done = run(*arguments)
    assert done.returncode == 2
    assert is_one_error_line(done.stderr)


def test_broken_images_and_bytes_that_are_not_utf8(tmp_path):
    Image.new('RGB', (80, 60), 'grey').save(tmp_path / 'image.png')
    (tmp_path / 'cut.png').write_bytes((tmp_path / 'image.png').read_bytes()[:-30])
    for arguments in [('cut.png', 'x'), ('absent', 'x'), (b'caf\xe9.png', 'x'), ('image.png', b'\xe9')]:
        done = run('segment', *arguments, cwd=tmp_path)
        assert done.returncode == 2, done.stderr
        assert is_one_error_line(done.stderr), done.stderr


@pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_signals(number):
    code = (
        'import sys, time; from instructsam.core import cli\n'
        'def wait(argv):\n    print("running", flush=True); time.sleep(60)\n'
        'cli._run = wait; sys.exit(cli.main([]))'
    )
    process = subprocess.Popen([sys.executable, '-c', code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout.readline() == 'running\n'
    process.send_signal(number)
    assert process.wait(30) == 128 + number
    assert process.stderr.read() == f'instructsam: stopped by {number.name}\n'


def test_a_signal_that_a_library_swallows():
    """The second one ends the process all the same, with the code of the first."""
    code = (
        'import sys, time; from instructsam.core import cli\n'
        'def wait(argv):\n    while True:\n        try:\n            print("running", flush=True); time.sleep(60)\n'
        '        except BaseException:\n            print("swallowed", flush=True)\n'
        'cli._run = wait; sys.exit(cli.main([]))'
    )
    process = subprocess.Popen([sys.executable, '-c', code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout.readline() == 'running\n'
    process.send_signal(signal.SIGTERM)
    assert process.stdout.readline() == 'swallowed\n'
    process.send_signal(signal.SIGINT)
    assert process.wait(30) == 128 + signal.SIGTERM
    assert process.stderr.read() == 'instructsam: stopped by SIGTERM\n'


def test_an_ignored_signal_stays_ignored():
    """As under nohup."""
    code = (
        'import signal, sys; signal.signal(signal.SIGHUP, signal.SIG_IGN); from instructsam.core import cli\n'
        'cli._run = lambda argv: signal.raise_signal(signal.SIGHUP) or 0; sys.exit(cli.main([]))'
    )
    assert subprocess.run([sys.executable, '-c', code]).returncode == 0


def test_a_fifo_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / 'pipe.png')
    done = run('segment', 'pipe.png', 'x', cwd=tmp_path)
    assert done.returncode == 2
    assert 'cannot read pipe.png: expected a regular file, this is a FIFO' in done.stderr
    assert is_one_error_line(done.stderr)


def test_a_closed_pipe():
    """The exit code is that of SIGPIPE, as in `instructsam ... | head -0`, for an output longer than any buffer."""
    code = (
        'import importlib\nimport sys\nimport instructsam.core\nfrom instructsam.core import cli\n'
        'class Command:\n    add_arguments = staticmethod(lambda parser: None)\n'
        '    run = staticmethod(lambda args: print("x" * 1_000_000))\n'
        'importlib.import_module = lambda module: Command\n'
        'sys.exit(cli.main(["segment"]))'
    )
    process = subprocess.Popen([sys.executable, '-c', code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    process.stdout.close()
    assert process.wait(30) == 141
    assert process.stderr.read() == ''


@pytest.mark.parametrize(
    ('redirection', 'is_said'),
    [('>&-', True), ('2>&-', False), ('<&- >&- 2>&-', False), ('2>/dev/full', False), ('>/dev/full', True)],
)
@pytest.mark.parametrize('arguments', ['segment /nonexistent x', 'segment --nope'])
def test_errors_without_standard_streams(arguments, redirection, is_said):
    done = run_shell(f'"$@" {arguments} {redirection}')
    assert (done.returncode, done.stdout) == (2, '')
    assert 'Traceback' not in done.stderr
    assert bool(done.stderr) == is_said


def run_shell(script):
    command = ['bash', '-c', script, 'bash', *COMMAND]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)

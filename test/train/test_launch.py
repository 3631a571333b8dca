"""Commands in processes of their own: their arguments, exit codes, signals and time limits."""

import contextlib
import json
import os
import signal
import sys

import pytest

from instructsam.core.errors import InstructSAMError
from instructsam.core.stop_signals import Stopped, raise_stopped
from instructsam.train import launch as module
from instructsam.train.launch import OutOfTimeError, launch


def test_several_processes(monkeypatch):
    called = []
    codes = iter((0, 2, 4, 5))

    class Command(contextlib.nullcontext):
        def __init__(self, command, **_):
            super().__init__(self)
            called.append(command)

        def wait(self, timeout=None):
            return next(codes)

    monkeypatch.setattr(module.subprocess, 'Popen', Command)
    launch(['train', 'run', 'a.yaml'], processes=2)
    launcher = ['-m', 'torch.distributed.run', '--standalone', '--nproc-per-node=2']
    assert called[0][1:] == [*launcher, '-m', 'instructsam.core.cli', 'train', 'run', 'a.yaml']
    for code in (2, 4, 5):
        with pytest.raises(InstructSAMError, match=f'exit code {code}') as caught:
            launch(['a'])
        assert caught.value.exit_code == code
    assert called[1][1:] == ['-m', 'instructsam.core.cli', 'a']


@pytest.fixture
def command(monkeypatch, tmp_path):
    """Return a function that sets the text of a Python script, which runs instead of Python itself."""

    def write(text):
        file = tmp_path / 'command'
        file.write_text(f'#!{sys.executable}\n{text}')
        file.chmod(0o755)
        monkeypatch.setattr(module.sys, 'executable', str(file))

    return write


def test_signals_reach_the_command_once(command, tmp_path):
    """The command is in a session of its own, gets the same signal, once, and is waited for."""
    seen = tmp_path / 'seen.json'
    command(f"""
import json, os, pathlib, signal
signals = {{signal.SIGINT, signal.SIGTERM, signal.SIGHUP}}
signal.pthread_sigmask(signal.SIG_BLOCK, signals)
os.kill(os.getppid(), signal.SIGHUP)
found = [signal.sigwait(signals), signal.sigtimedwait(signals, 0.2), os.getsid(0)]
pathlib.Path({str(seen)!r}).write_text(json.dumps(found))
""")
    with raise_stopped(), pytest.raises(Stopped):
        launch(['a'])
    number, second, session = json.loads(seen.read_text())
    assert (number, second) == (signal.SIGHUP, None)
    assert session != os.getsid(0)


def test_a_command_is_interrupted_when_its_time_is_over(command, tmp_path):
    command("""
import pathlib, signal
signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
signal.sigwait({signal.SIGINT})
pathlib.Path('ended').touch()
""")
    with pytest.raises(OutOfTimeError):
        launch(['a'], folder=tmp_path, timeout_s=0.5)
    assert (tmp_path / 'ended').exists()

"""A child process that runs examples, with a time limit; it is replaced when it crashes or hangs."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import deque
from dataclasses import dataclass
from multiprocessing.connection import Connection, Pipe
from pathlib import Path

from harness.child import load_target
from harness.example import Example

CHILD = Path(__file__).with_name('child.py')
START_S = 180.0  # time in which a child has to be ready; it imports torch on a machine that may be busy
HISTORY = 50  # examples that are kept with a failure, because it may depend on those before it
EXAMPLES_PER_CHILD = 2000  # a new child then, so that its memory tells about examples and not about hours


@dataclass(frozen=True)
class Outcome:
    """The end of one example.

    Attributes:
        state: accepted, refused or failed.
        kind: The class of the error; of a failure, its signature, which is equal for equal faults.
        message: Human-readable.
        seconds: Wall-clock time.
        peak_mb: Largest memory while it ran.
        resident_mb: Memory after it.
    """

    state: str
    kind: str
    message: str
    seconds: float
    peak_mb: float
    resident_mb: float


class Worker:
    """Runs the examples of one target, or of several that share a child. A context manager.

    Args:
        names: Names of the targets.
        slowness: Multiplies their time limits, for a machine that is shared.
    """

    def __init__(self, *names: str, slowness: float = 1.0) -> None:
        self.targets = {name: load_target(name) for name in names}
        self.folder = Path(tempfile.mkdtemp(prefix=f'fuzz_{names[0]}_'))
        self.starts = 0
        self.first_mb = 0.0  # resident memory of the present child after its first example
        self.examples = 0  # run by the present child
        self.history: deque[Example] = deque(maxlen=HISTORY)  # the last of them
        self._slowness = slowness
        self._process: subprocess.Popen[bytes] | None = None
        self._pipe: Connection | None = None
        self._log = self.folder / 'log.txt'

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        shutil.rmtree(self.folder, ignore_errors=True)

    def run(self, name: str, example: Example) -> Outcome:
        """Run an example of a target and return its outcome; a crash or a hang is one, too."""
        target = self.targets[name]
        if self.examples >= EXAMPLES_PER_CHILD:
            self.stop()
        if self._process is None:
            self._start()
        assert self._pipe is not None
        self.examples += 1
        self.history.append(example)
        start_s = time.monotonic()
        self._pipe.send((name, example.to_json()))
        outcome = self._receive(target.time_limit_s * self._slowness, start_s)
        if self.examples == 1:
            self.first_mb = outcome.resident_mb
        elif outcome.state != 'failed' and outcome.resident_mb > self.first_mb + target.memory_mb:
            grown = f'{outcome.resident_mb:.0f} MB after {self.examples} examples, {self.first_mb:.0f} after the first'
            self.stop()
            return Outcome('failed', 'memory grows', grown, *_measures(outcome))
        return outcome

    def input_folder(self, name: str) -> Path:
        """Return the folder with the files of the last example of a target."""
        return self.folder / 'child' / name / 'input'

    def stop(self) -> None:
        """End the child."""
        if self._process is None:
            return
        assert self._pipe is not None
        self._pipe.close()
        try:
            self._process.wait(20)
        except subprocess.TimeoutExpired:
            _kill_group(self._process)
        self._process = self._pipe = None

    def _start(self) -> None:
        ours, theirs = Pipe()
        folder = self.folder / 'child'
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        environment = os.environ | {'OMP_NUM_THREADS': '1', 'CUDA_VISIBLE_DEVICES': '', 'HF_HUB_OFFLINE': '1'}
        with self._log.open('wb') as log:
            self._process = subprocess.Popen(
                [sys.executable, str(CHILD), ','.join(self.targets), str(theirs.fileno()), str(folder)],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=environment,
                start_new_session=True,
            )
        theirs.close()
        self._pipe = ours
        self.starts += 1
        self.examples = 0
        self.history.clear()
        ready = self._receive(START_S * self._slowness, time.monotonic())
        if ready.state != 'ready':
            raise RuntimeError(f'the child of {", ".join(self.targets)} does not start: {ready.message}')

    def _receive(self, limit_s: float, start_s: float) -> Outcome:
        assert self._pipe is not None
        assert self._process is not None
        try:
            if self._pipe.poll(limit_s):
                return Outcome(*self._pipe.recv())
        except (EOFError, OSError):
            code = self._process.wait(20)
            log = self._tail()
            self._process = self._pipe = None
            name = signal.Signals(-code).name if code < 0 else f'exit code {code}'
            return Outcome('failed', f'crash: {name} {_place(log)}', log, time.monotonic() - start_s, 0.0, 0.0)
        self._process.send_signal(signal.SIGUSR1)  # faulthandler writes the stacks
        time.sleep(0.3)
        log = self._tail()
        _kill_group(self._process)
        self._process = self._pipe = None
        return Outcome('failed', f'hang {_place(log)}', log, time.monotonic() - start_s, 0.0, 0.0)

    def _tail(self) -> str:
        return self._log.read_text(errors='replace')[-6000:]


def _measures(outcome: Outcome) -> tuple[float, float, float]:
    return outcome.seconds, outcome.peak_mb, outcome.resident_mb


def _kill_group(process: subprocess.Popen[bytes]) -> None:
    """End a child and what it started; its session is its own."""
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _place(log: str) -> str:
    """Return the innermost function of the project in the stacks of faulthandler."""
    frames = re.findall(r'File "[^"]*?/(?:core|train|instructsam_ros)/([\w/]+\.py)", line \d+ in (\w+)', log)
    frames = [f'{file}:{name}' for file, name in frames]
    return f'in {frames[0]}' if frames else ''

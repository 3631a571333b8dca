"""The interface of a fuzzing target, and the rule by which a command's end is judged."""

from __future__ import annotations

import contextlib
import io
import json
import math
import os
import re
import resource
import sys
import traceback
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Protocol

from harness.example import LONG_BYTES, Example
from harness.mutations import changes
from hypothesis import strategies as st

EXIT_CODES = (0, 1, 2, 3, 4, 5)  # of a command that was not interrupted, see docs/commands.md
OUT_OF_MEMORY = re.compile(
    r'MemoryError|(insufficient|out of|not enough|cannot allocate|could not allocate).{0,20}memory|unable to allocate'
    r'|bad_alloc|failed to allocate|file too large',
    re.IGNORECASE,
)


class WrongAnswerError(AssertionError):
    """The project gave an answer that cannot be right."""


@dataclass(frozen=True)
class Verdict:
    """The end of one example: `accepted`, or `refused` with the kind of error and its message."""

    state: str
    kind: str = ''
    message: str = ''


ACCEPTED = Verdict('accepted')


class Target(Protocol):
    """One kind of input. Examples are drawn in the parent process and run in a child.

    Attributes:
        name: Name on the command line and in reports.
        time_limit_s: Time after which an example counts as a hang.
        memory_mb: Memory that an example may take beyond that of the process before it.
    """

    name: ClassVar[str]
    time_limit_s: ClassVar[float]
    memory_mb: ClassVar[int]

    def examples(self) -> st.SearchStrategy[Example]:
        """Return the strategy for examples."""
        ...

    def open(self, folder: Path) -> None:
        """Prepare the child process; `folder` is its own."""
        ...

    def begin(self, example: Example) -> None:
        """Prepare for an example; its time and memory count from here."""
        ...

    def run(self, example: Example, folder: Path) -> Verdict:
        """Run an example, whose files go to `folder`.

        An InstructSAMError counts as refused, any other exception as a failure.
        """
        ...

    def resident_mb(self) -> float:
        """Return the memory of the processes under test, MB."""
        ...

    def peak_mb(self) -> float:
        """Return the largest memory since the example began, MB."""
        ...

    def close(self) -> None:
        """End what `open` started."""
        ...


class InProcessTarget:
    """Base of targets whose code under test runs in the child itself."""

    name: ClassVar[str]
    time_limit_s: ClassVar[float] = 30.0
    memory_mb: ClassVar[int] = 1500
    seeds: ClassVar[tuple[str, ...]]

    def examples(self) -> st.SearchStrategy[Example]:
        """Return the strategy: a seed, changes of its files, options."""
        return st.builds(Example, st.sampled_from(self.seeds), changes().map(tuple), self.options())

    def options(self) -> st.SearchStrategy[dict[str, Any]]:
        """Return the strategy for an example's options."""
        return st.just({})

    def begin(self, example: Example) -> None:
        """Measure memory from here."""
        reset_peak('self')

    def resident_mb(self) -> float:
        """Return the memory of this process, MB."""
        return status_mb('self', 'VmRSS')

    def peak_mb(self) -> float:
        """Return the largest memory of this process since reset_peak(), MB."""
        return status_mb('self', 'VmHWM')

    def close(self) -> None:
        """Nothing has to be ended."""


def status_mb(pid: int | str, key: str) -> float:
    """Return a size from /proc/PID/status, MB; 0 if the process has ended."""
    try:
        text = Path(f'/proc/{pid}/status').read_text()
    except OSError:
        return 0.0
    found = re.search(rf'{key}:\s+(\d+) kB', text)
    return int(found[1]) / 1024 if found else 0.0


def reset_peak(pid: int | str) -> None:
    """Let VmHWM of a process start again from its present memory."""
    with contextlib.suppress(OSError):
        Path(f'/proc/{pid}/clear_refs').write_text('5')


def limit_memory(pid: int, more_mb: int) -> None:
    """Limit the memory of a process, without mapped files, to its present size and `more_mb`, and its files to 3 GB."""
    limit = int((status_mb(pid, 'VmData') + more_mb) * 2**20)
    resource.prlimit(pid, resource.RLIMIT_DATA, (limit, resource.prlimit(pid, resource.RLIMIT_DATA)[1]))
    # A copy of an endless device must not fill the disk, which others use, too.
    largest = LONG_BYTES + (1 << 20)
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (largest, resource.prlimit(pid, resource.RLIMIT_FSIZE)[1]))


# Commands


@dataclass
class Run:
    """The end of a command that ran in this process."""

    code: int
    out: str
    err: str
    unexpected: BaseException | None = None  # an exception that is no InstructSAMError
    refused: BaseException | None = None


@dataclass
class _Recorder:
    """Notes the exceptions that the command line turns into lines."""

    seen: list[BaseException] = field(default_factory=list)

    def __call__(self) -> bool:
        error = sys.exc_info()[1]
        if error is not None:
            self.seen.append(error)
        return False


def run_command(argv: list[str]) -> Run:
    """Run `instructsam` with these arguments in this process."""
    from instructsam.core import cli
    from instructsam.core.errors import InstructSAMError

    recorder = _Recorder()
    cli._show_traceback = recorder
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            code: Any = cli.main(argv)
        except SystemExit as error:
            code = error.code
    done = Run(code if isinstance(code, int) else 1, out.getvalue(), err.getvalue())
    for error in recorder.seen:
        if isinstance(error, InstructSAMError):
            done.refused = error
        else:
            done.unexpected = error
    return done


def judge(done: Run) -> Verdict:
    """Return the verdict on a command; raises what it must not have raised."""
    if done.unexpected is not None:
        raise done.unexpected
    if done.code not in EXIT_CODES:
        raise WrongAnswerError(f'exit code {done.code} is not documented')
    if 'Traceback (most recent call last)' in done.err:
        raise WrongAnswerError(f'a traceback on stderr: {done.err[-2000:]}')
    if OUT_OF_MEMORY.search(done.err):
        raise WrongAnswerError(f'memory ran out and is reported as a bad input: {done.err[-500:]}')
    check_terminal(done.out + done.err)
    if done.code == 0:
        return ACCEPTED
    lines = [line for line in done.err.splitlines() if line.startswith('instructsam: ')]
    if done.code == 2 and len(lines) != 1:
        raise WrongAnswerError(f'exit code 2 with {len(lines)} error lines: {done.err[-2000:]}')
    if done.code == 1 and not done.err.strip() and not done.out.strip():
        raise WrongAnswerError('exit code 1 without a word')
    kind = type(done.refused).__name__ if done.refused else f'exit {done.code}'
    return Verdict('refused', kind, (lines or [''])[0])


def check_terminal(text: str) -> None:
    """Raise WrongAnswerError if a text would steer the terminal that shows it."""
    found = re.search(r'[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\x80-\x9f\u202a-\u202e\u2066-\u2069]', text)
    if found:
        raise WrongAnswerError(f'the control character {found[0]!r} goes to the terminal: {text[:300]!r}')


def check_finite(value: Any, where: str = '') -> None:
    """Raise WrongAnswerError if a JSON document holds a number that is not finite."""
    if isinstance(value, float) and not math.isfinite(value):
        raise WrongAnswerError(f'{where or "a number"} is {value}')
    if isinstance(value, dict):
        for name, each in value.items():
            check_finite(each, f'{where}.{name}')
    elif isinstance(value, list):
        for number, each in enumerate(value):
            check_finite(each, f'{where}[{number}]')


def read_json(path: Path) -> Any:
    """Return a JSON document that the project wrote; raise WrongAnswerError unless it is strict JSON."""

    def refuse(constant: str) -> None:
        raise WrongAnswerError(f'{path.name} holds {constant}')

    return json.loads(path.read_text(), parse_constant=refuse)


def signature_of(error: BaseException) -> str:
    """Return the type of an error and the innermost line of the project on its way."""
    frames = traceback.extract_tb(error.__traceback__)
    inside = [
        frame
        for frame in frames
        if re.search(r'/(core|train|instructsam_ros|targets)/', frame.filename)
        and 'site-packages' not in frame.filename
    ]
    text = ' '.join(str(error).partition('\n')[0].split())
    if not inside:
        return f'{type(error).__name__}: {re.sub(r"[0-9]+", "N", text)[:80]}'
    frame = inside[-1]
    place = '/'.join(Path(frame.filename).parts[-2:])
    if isinstance(error, WrongAnswerError):
        return f'{type(error).__name__} {re.sub(r"[0-9]+", "N", text)[:60]}'
    return f'{type(error).__name__} in {place}:{frame.name}: {frame.line}'


@contextlib.contextmanager
def working_folder(folder: Path) -> Iterator[None]:
    """Run in `folder`."""
    before = Path.cwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)

"""Fuzzing of a target for a time: rounds of Hypothesis with random seeds, a report as JSON lines, failures as folders.

A report is resumed: the time of its rounds counts. A failure is kept once per signature, with its input, reduced to the
changes that it needs.
"""

from __future__ import annotations

import hashlib
import json
import random
import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness.example import Example
from harness.worker import Outcome, Worker
from hypothesis import HealthCheck, Phase, given, seed, settings

EXAMPLES_PER_ROUND = 200
MOST_KEPT_MB = 64  # larger inputs are kept as their example.json alone


@dataclass
class Round:
    """Counts of some examples, one line of the report."""

    target: str
    seed: int
    began: float  # seconds since the epoch
    seconds: float = 0.0
    examples: int = 0
    unchanged: int = 0  # valid inputs among them
    accepted: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    failed: Counter[str] = field(default_factory=Counter)
    slowest_s: float = 0.0
    slowest: str = ''  # that example
    peak_mb: float = 0.0
    child: int = 0  # number of the child process that ended the round
    child_examples: int = 0  # that it has run
    child_first_mb: float = 0.0  # its resident memory after its first example
    child_mb: float = 0.0  # its resident memory now

    def add(self, example: Example, outcome: Outcome) -> None:
        """Count an example."""
        self.examples += 1
        self.unchanged += not example.changes
        self.accepted += outcome.state == 'accepted'
        if outcome.state == 'refused':
            self.refused[outcome.kind] += 1
        if outcome.state == 'failed':
            self.failed[outcome.kind] += 1
        if outcome.seconds > self.slowest_s:
            self.slowest_s, self.slowest = outcome.seconds, example.to_json()
        self.peak_mb = max(self.peak_mb, outcome.peak_mb)
        self.child_mb = outcome.resident_mb or self.child_mb


class Report:
    """The folder of a campaign: report.jsonl and failures/."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.file = folder / 'report.jsonl'

    def rounds(self, target: str | None = None) -> list[dict[str, Any]]:
        """Return the rounds so far; a line that was cut off is left out."""
        if not self.file.exists():
            return []
        rounds = []
        for line in self.file.read_text().splitlines():
            try:
                rounds.append(json.loads(line))
            except ValueError:
                continue
        return [each for each in rounds if target in (None, each['target'])]

    def add(self, done: Round) -> None:
        """Append a round."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with self.file.open('a') as file:
            file.write(json.dumps(vars(done)) + '\n')

    def failure_folder(self, target: str, kind: str) -> Path:
        """Return the folder of a failure."""
        return self.folder / 'failures' / f'{target}-{hashlib.sha256(kind.encode()).hexdigest()[:10]}'


def run_round(
    worker: Worker,
    name: str,
    number: int,
    count: int,
    on_outcome: Callable[[Example, Outcome], None],
    is_over: Callable[[], bool] = lambda: False,
) -> None:
    """Run `count` examples of a target that Hypothesis draws with the seed `number`."""

    @seed(number)
    @settings(
        max_examples=count,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(worker.targets[name].examples())
    def run(example: Example) -> None:
        if not is_over():
            on_outcome(example, worker.run(name, example))

    run()


def run_campaign(name: str, seconds: float, report: Report, slowness: float, say: Callable[[str], None]) -> None:
    """Fuzz a target until its rounds in the report have taken `seconds`."""
    spent = sum(each['seconds'] for each in report.rounds(name))
    with Worker(name, slowness=slowness) as worker:
        while spent < seconds:
            number = random.getrandbits(48)
            done = Round(name, number, time.time())
            start_s = time.monotonic()
            with _written(report, done, start_s):
                run_round(
                    worker,
                    name,
                    number,
                    EXAMPLES_PER_ROUND,
                    lambda example, outcome, done=done: _on_outcome(worker, report, done, example, outcome, say),
                    lambda start_s=start_s, spent=spent: spent + time.monotonic() - start_s > seconds,
                )
                done.child, done.child_examples, done.child_first_mb = worker.starts, worker.examples, worker.first_mb
            spent += done.seconds
            say(
                f'{name}: {spent / 60:.1f} of {seconds / 60:.0f} min, {done.examples} examples: '
                f'{done.accepted} accepted, {sum(done.refused.values())} refused, {sum(done.failed.values())} failed; '
                f'slowest {done.slowest_s:.1f} s, peak {done.peak_mb:.0f} MB'
            )


@contextmanager
def _written(report: Report, done: Round, start_s: float) -> Iterator[None]:
    """Append the round to the report, also if it is interrupted."""
    try:
        yield
    finally:
        done.seconds = time.monotonic() - start_s
        report.add(done)


def _on_outcome(
    worker: Worker, report: Report, done: Round, example: Example, outcome: Outcome, say: Callable[[str], None]
) -> None:
    done.add(example, outcome)
    if outcome.state == 'failed' and not report.failure_folder(done.target, outcome.kind).exists():
        folder = keep_failure(worker, done.target, report, example, outcome)
        say(f'FAILED {outcome.kind}\n       {folder}')


def keep_failure(worker: Worker, name: str, report: Report, example: Example, outcome: Outcome) -> Path:
    """Write the folder of a failure, with the smallest example that still fails alike."""
    history = list(worker.history)
    for number in reversed(range(len(example.changes))):
        smaller = example.without(number)
        again = worker.run(name, smaller)
        if again.state == 'failed' and again.kind == outcome.kind:
            example, outcome = smaller, again
    worker.run(name, example)  # its files lie in the worker's folder again
    folder = report.failure_folder(name, outcome.kind)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / 'example.json').write_text(example.to_json())
    (folder / 'history.json').write_text(json.dumps([json.loads(each.to_json()) for each in history]))
    (folder / 'failure.txt').write_text(
        f'target {name}\n{outcome.kind}\nscripts/fuzz --reproduce {folder}\n\n{outcome.message}\n'
    )
    source = worker.input_folder(name)
    if source.is_dir() and sum(path.lstat().st_size for path in source.rglob('*')) < MOST_KEPT_MB << 20:
        shutil.copytree(source, folder / 'input', symlinks=True, ignore=_special, dirs_exist_ok=True)
    return folder


def _special(folder: str, names: list[str]) -> list[str]:
    """Return the names that cannot be copied: FIFOs and unreadable files."""
    return [name for name in names if (Path(folder) / name).is_fifo()]

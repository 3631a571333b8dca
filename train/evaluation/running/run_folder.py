"""A run's folder: `results-RANK.jsonl` of every process, which only grow. The first line of each is the run's header.

A run that was stopped goes on from whatever whole lines there are, in any number of processes; a line that was cut off
is dropped, and its sample asked again. Several machines need a folder that all of them see.
"""

import fcntl
import hashlib
import itertools
import json
import sys
from dataclasses import dataclass
from pathlib import Path

from instructsam.core.errors import InstructSAMError
from instructsam.train.evaluation.query import Outcome
from instructsam.train.evaluation.running.gc_pause import no_collection

PATTERN = 'results-*.jsonl'


class RunError(InstructSAMError):
    """A run's folder that cannot be used; the message names the file."""


@dataclass(frozen=True)
class Run:
    """What is in a folder: the header, and an outcome of every sample, in the split's order."""

    folder: Path
    header: dict
    outcomes: tuple[Outcome, ...]


def read_run(folder, expected=None):
    """The Run in `folder`. expected: the header that it must have. Raises RunError."""
    folder, header, found = Path(folder), expected, {}
    files = sorted(folder.glob(PATTERN))
    if not files and expected is None:
        raise RunError(f'{folder} holds no run, no {PATTERN}: `instructsam eval ... --results DIR` makes one')
    for file in files:
        lines = enumerate(_whole_lines(file), start=1)
        for _, line in itertools.islice(lines, 1):
            header = _same(_parsed(json.loads, line, file, 1).get('header'), header, file)
        with no_collection():
            for number, line in lines:
                outcome = _parsed(Outcome.from_line, line, file, number)
                known = found.get(outcome.query.id)
                if known is None or known.error:
                    found[outcome.query.id] = outcome
    if header is None:
        raise RunError(f'{folder} holds no run: {files[0].name} begins with no header')
    return Run(folder, header, tuple(sorted(found.values(), key=lambda one: one.order)))


def _parsed(parse, line, file, number):
    try:
        return parse(line)
    except (ValueError, KeyError, TypeError) as error:
        raise RunError(
            f'{file}, line {number}: no line of a run ({error}). Without it, its sample is asked again'
        ) from error


def _whole_lines(file):
    """Those that have an end."""
    with file.open('rb') as lines:
        yield from (line for line in lines if line.endswith(b'\n'))


def _same(header, expected, file):
    """`header`; raises RunError where it is not the expected one, with what differs."""
    if expected is None or header == expected:
        return header
    keys = [key for key in {**header, **expected} if header.get(key) != expected.get(key)]
    differences = '; '.join(f'{key} was {header.get(key)!r} and is {expected.get(key)!r}' for key in keys)
    raise RunError(f'{file} is of another run: {differences}. Give this one another folder with --results')


class Writer:
    """Appends outcomes to the file of one process. Whole lines: a kill loses at most the one being written."""

    def __init__(self, folder, rank, header):
        """Raises RunError: another process is writing, or it cannot be written."""
        self.path = Path(folder) / f'results-{rank:05d}.jsonl'
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._file = self.path.open('ab')
        except OSError as error:
            raise RunError(f'cannot write {self.path}: {error.strerror}') from error
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise RunError(f'{self.path} is being written by another run: wait, or give --results') from error
        whole = sum(map(len, _whole_lines(self.path)))
        if self.path.stat().st_size > whole:
            print(f'{self.path}: the last line was cut off, its sample is asked again', file=sys.stderr)
            self._file.truncate(whole)
        if not self.path.stat().st_size:
            self._append(json.dumps({'header': header}))

    def add(self, outcome):
        self._append(outcome.to_line())

    def _append(self, text):
        self._file.write(text.encode() + b'\n')
        self._file.flush()

    def close(self):
        self._file.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


def fingerprint(files):
    """sha256, 16 digits, of names and content of files."""
    digest = hashlib.sha256()
    for file in files:
        digest.update(file.name.encode())
        with file.open('rb') as content:
            for part in iter(lambda: content.read(1 << 20), b''):
                digest.update(part)
    return digest.hexdigest()[:16]

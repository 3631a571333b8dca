"""Results of a run on disk: one append-only file `results-RANK.jsonl` per process, which begins with the run's header.

A run that was stopped resumes from the complete lines on disk, in any number of processes; a truncated line is dropped
and its query asked again. Processes on several machines need a folder that all of them can see.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from instructsam.core.appended_file import AppendedFile
from instructsam.core.errors import InstructSAMError
from instructsam.core.folder_lock import LOCK, FolderLock
from instructsam.core.run_settings import check_settings
from instructsam.core.storage import explained_storage_faults
from instructsam.train.evaluation.query import Outcome
from instructsam.train.evaluation.running.gc_pause import gc_paused

PATTERN = 'results-*.jsonl'

Parsed = TypeVar('Parsed')


class RunError(InstructSAMError):
    """A run's folder that cannot be used; the message names the file."""


@dataclass(frozen=True)
class Run:
    """Contents of a run's folder: its header, and one outcome per answered query in the order of the split."""

    folder: Path
    header: dict[str, Any]
    outcomes: tuple[Outcome, ...]


def result_files(*folders: str | Path) -> list[Path]:
    """Return the files of runs, sorted by name within each folder."""
    return [file for folder in folders for file in sorted(Path(folder).glob(PATTERN))]


def read_run(folder: str | Path, expected: dict[str, Any] | None = None) -> Run:
    """Read the run in `folder`.

    Args:
        folder: Folder that `instructsam eval ... --results` wrote.
        expected: Header that the run must have; None accepts any.

    Raises:
        RunError: The folder holds no run, another run, or a broken line.
    """
    folder, header, outcomes = Path(folder), expected, {}
    files = result_files(folder)
    if not files and expected is None:
        raise RunError(f'{folder} holds no run (no {PATTERN}): `instructsam eval ... --results DIR` creates one')
    for file in files:
        lines = enumerate(complete_lines(file), start=1)
        for _, line in itertools.islice(lines, 1):
            header = _checked_header(_parse_line(json.loads, line, file, 1).get('header'), header, file)
        with gc_paused():
            for number, line in lines:
                outcome = _parse_line(Outcome.from_line, line, file, number)
                known = outcomes.get(outcome.query.id)
                if known is None or known.error:
                    outcomes[outcome.query.id] = outcome
    if header is None:
        raise RunError(f'{folder} holds no run: {files[0].name} does not begin with a header')
    return Run(folder, header, tuple(sorted(outcomes.values(), key=lambda outcome: outcome.order)))


def _parse_line(parse: Callable[[bytes], Parsed], line: bytes, file: Path, number: int) -> Parsed:
    try:
        return parse(line)
    except (ValueError, KeyError, TypeError) as error:
        raise RunError(
            f"{file}, line {number} is not a line of a run's results ({error}). Delete it and run the same command "
            'again: its query is then asked again'
        ) from error


def complete_lines(path: Path) -> Iterator[bytes]:
    """Yield the lines that end with a newline. Raises InstructSAMError if it is not a regular file."""
    file = AppendedFile(path, writes=False)
    try:
        yield from file.lines()
    finally:
        file.close()


def _checked_header(header: dict[str, Any], expected: dict[str, Any] | None, file: Path) -> dict[str, Any]:
    """Return `header`; raise OtherSettingsError with the differences if it is not the expected one."""
    if expected is not None:
        check_settings(header, expected, output=file, advice='choose another folder with --results')
    return header


class ResultWriter:
    """Appends outcomes to the file of one process, line by line: a kill loses at most the line being written."""

    def __init__(self, folder: str | Path, rank: int, header: dict[str, Any]):
        """Open the file of process `rank` and lock it; drop a truncated last line, write the header if it is new.

        Raises:
            OtherSettingsError: The folder holds another run.
            FolderInUseError: Another process is writing the file.
            StorageError: The file cannot be written.
        """
        self.path = Path(folder) / f'results-{rank:05d}.jsonl'
        self._lock = FolderLock(folder, name=f'{LOCK}-{rank:05d}' if rank else LOCK)
        self._lock.__enter__()
        try:
            with explained_storage_faults(self.path):
                # Before the file is made: with another header than the others, it would make the run unreadable.
                for file in result_files(self.path.parent):
                    for line in itertools.islice(complete_lines(file), 1):
                        _checked_header(_parse_line(json.loads, line, file, 1).get('header'), header, file)
            self._file = LineFile(self.path, header)
        except BaseException:
            self._lock.__exit__()
            raise

    def add(self, outcome: Outcome) -> None:
        """Append one outcome."""
        self._file.append(outcome.to_line().encode())

    def close(self) -> None:
        """Close the file and release its lock."""
        try:
            self._file.close()
        finally:
            self._lock.__exit__()

    def __enter__(self) -> ResultWriter:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class LineFile(AppendedFile):
    """A file of lines that begins with a header; a truncated last line is dropped.

    Args:
        path: The file.
        header: Written if the file is new.
        lost: Said of a truncated line.

    Raises:
        InstructSAMError: It is not a regular file.
        StorageError: It cannot be written.
    """

    def __init__(self, path: Path, header: dict[str, Any], lost: str = 'its query is asked again') -> None:
        super().__init__(path)
        try:
            for _ in self.lines():
                pass
            self.drop_cut_line(lost)
            if not self.size:
                self.append(json.dumps({'header': header}).encode())
        except BaseException:
            self.close()
            raise

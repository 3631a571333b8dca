"""Conversations of an agent beside the results: one append-only file `conversations-RANK.jsonl` per process.

A line holds the id of the query, every message, and the masks that were shown as run lengths. It is written before the
line of the result, so that each result has its conversation; of a query that was asked again, the last line counts.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from instructsam.train.evaluation.query import Outcome, checked_line, parse_checked_line
from instructsam.train.evaluation.running.run_folder import LineFile, RunError, complete_lines

PATTERN = 'conversations-*.jsonl'


class ConversationLog:
    """Writes the conversation of each query while its outcome passes by.

    Args:
        folder: The run's folder, which the process has locked.
        rank: Rank of the process.
        header: Header of the run.
    """

    def __init__(self, folder: Path, rank: int, header: dict[str, Any]) -> None:
        self.path = folder / f'conversations-{rank:05d}.jsonl'
        self._header = header
        self._newest: dict[str, Any] | None = None

    def record(self, conversation: dict[str, Any]) -> None:
        """Take the conversation of the query whose outcome comes next."""
        self._newest = conversation

    def keep(self, outcomes: Iterable[Outcome]) -> Iterator[Outcome]:
        """Yield outcomes, each after its conversation was written.

        Raises:
            StorageError: The file cannot be written.
        """
        file = LineFile(self.path, self._header, lost='a conversation of a query that is asked again')
        try:
            for outcome in outcomes:
                if self._newest is not None:
                    file.append(checked_line({'id': outcome.query.id, **self._newest}).encode())
                    self._newest = None
                yield outcome
        finally:
            file.close()


def read_conversations(folder: str | Path) -> dict[str, dict[str, Any]]:
    """Return the conversations of a run by the ids of their queries; empty if it is not an agent's.

    Raises:
        RunError: A line is damaged.
    """
    conversations = {}
    for file in sorted(Path(folder).glob(PATTERN)):
        for number, line in itertools.islice(enumerate(complete_lines(file), start=1), 1, None):
            try:
                document = parse_checked_line(line)
                conversations[document.pop('id')] = document
            except (ValueError, KeyError, TypeError) as error:
                raise RunError(f'{file}, line {number} is not a conversation ({error}): delete the line') from error
    return conversations

"""A check's outcome, and the way to run checks such that none of them can end the program."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from typing import Literal

from instructsam.core.text import one_line, shorten

Level = Literal['ok', 'note', 'fault']


@dataclass(frozen=True)
class Check:
    """One line of the report."""

    name: str  # the thing that was looked at, in one or two words
    level: Level  # note: it works, but something could be better or was not checked; fault: it does not work
    text: str  # what was found
    advice: str = ''  # what to do; every fault has it

    def to_json(self) -> dict[str, str]:
        """Return a dict of plain types."""
        return asdict(self)


def ok(name: str, text: object) -> Check:
    """Return a check that found nothing wrong."""
    return Check(name, 'ok', one_line(text))


def note(name: str, text: object, advice: str = '') -> Check:
    """Return a check that found something to know."""
    return Check(name, 'note', one_line(text), one_line(advice))


def fault(name: str, text: object, advice: str) -> Check:
    """Return a check that found something that does not work."""
    return Check(name, 'fault', one_line(text), one_line(advice))


def run_checks(functions: Iterable[tuple[str, Callable[[], Iterable[Check]]]]) -> Iterator[Check]:
    """Yield the outcomes of all checks, given as (name, function).

    An exception is a fault of the installation, or of the check itself, and the other checks are run all the same.
    """
    for name, function in functions:
        try:
            yield from function()
        except Exception as error:
            yield fault(
                name,
                f'the check ended with {type(error).__name__}: {shorten(error)}',
                'repair what it names; INSTRUCTSAM_DEBUG=1 with the command that fails shows the traceback',
            )

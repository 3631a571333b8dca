"""The node's log: one line per error, at a limited rate.

Why not the throttling of rclpy's logger: it counts per line of code, not per kind of message, and does not report the
number of omitted entries.
"""

import threading
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from rclpy.impl.rcutils_logger import RcutilsLogger

from instructsam.core.errors import InstructSAMError
from instructsam.core.text import shorten
from instructsam_ros.pipeline.scheduling.statistics import Statistics

BURST = 10
"""Entries of one kind that are logged at once."""

REFILL_S = 10.0
"""Time until one more entry of a kind is logged after a burst."""

REPEAT_S = 30.0
"""Shortest time between two equal errors or warnings, and between two reports of omitted entries."""

MOST_CHARACTERS = 1000
"""Longest text of an entry and of an error in a result."""

TRACEBACK_LINES = 60
TRACEBACK_CHARACTERS = 500  # longest line of a traceback

FAILURES = (Exception, KeyboardInterrupt, SystemExit)
"""Everything that a callback or the model may raise. The last two as well: a library that raises them does not decide
when the node ends."""

INFO, WARNING, ERROR = 'info', 'warning', 'error'


class Explanation(NamedTuple):
    """An error in words."""

    text: str  # one line, human-readable
    is_user_error: bool  # caused by the input rather than by a bug in this package


def explain(error: BaseException) -> Explanation:
    """Return a one-line message, and whether the input, not a bug, caused the error."""
    if isinstance(error, InstructSAMError):
        return Explanation(shorten(error, MOST_CHARACTERS), is_user_error=True)
    return Explanation(shorten(f'{type(error).__name__}: {error}', MOST_CHARACTERS), is_user_error=False)


def format_traceback(error: BaseException) -> str:
    """Return the traceback with every line marked, so that no text in it can be mistaken for an entry of the log."""
    lines = ''.join(traceback.format_exception(error)).splitlines()[-TRACEBACK_LINES:]
    return ''.join(
        f'\n  | {" " * (len(line) - len(line.lstrip(" ")))}{shorten(line, TRACEBACK_CHARACTERS)}' for line in lines
    )


@dataclass
class _Kind:
    """The entries of one kind so far."""

    severity: str
    tokens: float = BURST  # entries that may be logged now
    counted_s: float = float('-inf')  # time at which the tokens were counted
    text: str = ''  # text of the latest entry
    text_s: float = float('-inf')  # time of the latest entry
    left_out: int = 0  # entries since the latest one that were not logged


class ErrorLog:
    """Logs, at most BURST entries of a kind at once and then one in REFILL_S seconds. Thread-safe.

    Nothing resets the limit: neither a new instruction nor another text of the same kind. Entries that are left out are
    counted, and the count is logged.
    """

    def __init__(
        self, logger: RcutilsLogger, statistics: Statistics, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Log to `logger` and count bugs in `statistics`; `clock` returns seconds."""
        self._logger = logger
        self._statistics = statistics
        self._clock = clock
        self._lock = threading.Lock()
        self._kinds: dict[str, _Kind] = {}

    def info(self, kind: str, text: str) -> None:
        """Log an entry of that kind, such as 'instruction'."""
        self._log(INFO, kind, text)

    def warning(self, kind: str, text: str) -> None:
        """Log a warning of that kind."""
        self._log(WARNING, kind, text)

    def error(self, kind: str, text: str) -> None:
        """Log an error of that kind."""
        self._log(ERROR, kind, text)

    def report(self, error: BaseException) -> str:
        """Log the error of an answer, with its traceback if it is a bug; return its explanation for the result."""
        text, is_user_error = explain(error)
        self._log(ERROR, type(error).__name__, shorten(text), '' if is_user_error else format_traceback(error))
        return text

    def report_bug(self, where: str, error: BaseException) -> str:
        """Log an unhandled error and count it for the diagnostics; return its explanation.

        Args:
            where: The callback or thread that raised it, such as 'the callback of /image'.
            error: The error.
        """
        text, _ = explain(error)
        self._statistics.count_bug(f'{where}: {text}')
        kind = f'unexpected error in {where}'
        self._log(ERROR, kind, f'{kind}: {shorten(text)}', format_traceback(error))
        return text

    def flush(self) -> None:
        """Log how many entries have been left out; to be called about once per second."""
        now_s = self._clock()
        with self._lock:
            for kind, state in self._kinds.items():
                if state.left_out and now_s - state.text_s > REPEAT_S:
                    self._write(state.severity, f'{kind}: {state.left_out} more entries were left out')
                    state.left_out = 0  # text_s stays: the entry itself is due again

    def _log(self, severity: str, kind: str, text: str, details: str = '') -> None:
        now_s = self._clock()
        with self._lock:
            state = self._kinds.setdefault(kind, _Kind(severity))
            state.severity = severity
            state.tokens = min(BURST, state.tokens + max(0.0, now_s - state.counted_s) / REFILL_S)
            state.counted_s = now_s
            is_repeated = severity != INFO and text == state.text and now_s - state.text_s <= REPEAT_S
            if state.tokens < 1 or is_repeated:
                state.left_out += 1
                return
            left_out = f' ({state.left_out} more were left out before)' if state.left_out else ''
            state.tokens -= 1
            state.text, state.text_s, state.left_out = text, now_s, 0
            self._write(severity, f'{shorten(text, MOST_CHARACTERS)}{left_out}{details}')

    def _write(self, severity: str, text: str) -> None:
        # One line of code for each, because rclpy binds a line to the severity that it first had.
        if severity == INFO:
            self._logger.info(text)
        elif severity == WARNING:
            self._logger.warning(text)
        else:
            self._logger.error(text)

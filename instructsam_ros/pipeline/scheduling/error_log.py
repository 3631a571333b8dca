"""Explains errors in one line each, and logs them without repeating the same one at the rate of the camera."""

import time
import traceback
from typing import NamedTuple

from rclpy.impl.rcutils_logger import RcutilsLogger

from instructsam.core.errors import InstructSAMError
from instructsam_ros.conversions.text import one_line

REPEAT_S = 30.0  # shortest time between two log entries about the same type of error


class Explanation(NamedTuple):
    """An error in words."""

    text: str  # one line, human-readable
    is_user_error: bool  # caused by the input rather than by a bug in this package


def explain(error: Exception) -> Explanation:
    """Return a one-line message, and whether the input, not a bug, caused the error."""
    if isinstance(error, InstructSAMError):
        return Explanation(one_line(error), is_user_error=True)
    return Explanation(one_line(f'{type(error).__name__}: {error}'), is_user_error=False)


class ErrorLog:
    """Logs each type of error at most once in REPEAT_S seconds. reset() may be called from any thread."""

    def __init__(self, logger: RcutilsLogger) -> None:
        self._logger = logger
        self._logged_s: dict[type[Exception], float] = {}  # time.monotonic() of the latest log entry

    def reset(self) -> None:
        """Log the next error of every type again, as after a new instruction."""
        self._logged_s = {}

    def report(self, error: Exception) -> str:
        """Log `error`, with its traceback if it is a bug, and return its explanation for the result."""
        text, is_user_error = explain(error)
        now_s = time.monotonic()
        if now_s - self._logged_s.get(type(error), float('-inf')) > REPEAT_S:
            self._logged_s[type(error)] = now_s
            details = '' if is_user_error else '\n' + ''.join(traceback.format_exception(error))
            self._logger.error(text + details)
        return text

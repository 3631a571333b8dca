"""Each tab's newest question replaces the one before, and closing the page ends them all."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable


class Newest:
    """The number of the newest question of each tab."""

    def __init__(self) -> None:
        self._numbers = itertools.count()
        self._newest: dict[str, int] = {}
        self._is_closed = threading.Event()

    def begin(self, tab: str) -> Callable[[], bool]:
        """Begin a question of a tab, which cancels its earlier ones.

        Returns:
            A function that returns true once this question is no longer wanted.
        """
        self._newest[tab] = number = next(self._numbers)
        return lambda: self._newest.get(tab) != number or self._is_closed.is_set()

    def leave(self, tab: str) -> None:
        """Cancel the question of a tab that was closed."""
        self._newest.pop(tab, None)

    def close(self) -> None:
        """Cancel all questions, now and later."""
        self._is_closed.set()

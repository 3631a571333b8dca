"""A mailbox with one slot: a reader always gets the newest message, what it never saw is counted."""

import threading
from typing import NamedTuple


class Counts(NamedTuple):
    """Taken at one instant, so that received == used + dropped + waiting holds exactly."""

    received: int
    used: int  # taken by the reader, or by another before
    dropped: int  # replaced or thrown away unseen
    waiting: int  # 0 or 1

    def __add__(self, other):
        return Counts(*(a + b for a, b in zip(self, other, strict=True)))


class Mailbox:
    """Any number of threads may put and take."""

    def __init__(self):
        self._lock = threading.Lock()
        self._slot = []  # nothing or one message
        self._is_used = False  # that message is counted as used already
        self._received = self._used = self._dropped = 0

    def put(self, message, is_used=False):
        """Leaves `message` for the reader in place of an older one. is_used: somebody else has it, too."""
        with self._lock:
            self._drop()
            self._received += 1
            self._used += is_used
            self._slot, self._is_used = [message], is_used

    def take(self):
        """The newest message; IndexError where none is waiting."""
        with self._lock:
            message = self._slot.pop()
            self._used += not self._is_used
            return message

    def clear(self):
        """Throws away a message that waits; it counts as dropped."""
        with self._lock:
            self._drop()

    def _drop(self):
        self._dropped += bool(self._slot) and not self._is_used
        self._slot = []

    @property
    def waiting(self):
        """Whether take() has something to give."""
        return bool(self._slot)

    def counts(self):
        """Counts since the start."""
        with self._lock:
            waiting = bool(self._slot) and not self._is_used
            return Counts(self._received, self._used, self._dropped, int(waiting))

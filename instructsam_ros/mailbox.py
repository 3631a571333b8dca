"""A mailbox with one slot: a reader always gets the newest message, what it never saw is counted."""
import threading
from typing import NamedTuple


class Counts(NamedTuple):
    """Taken at one instant, so that received == used + dropped + waiting holds exactly."""

    received: int
    used: int  # taken by the reader
    dropped: int  # replaced or thrown away unseen
    waiting: int  # 0 or 1


class Mailbox:
    """Any number of threads may put and take."""

    def __init__(self):
        self._lock = threading.Lock()
        self._slot = []  # nothing or one message
        self._received = self._used = self._dropped = 0

    def put(self, message):
        """Leaves `message` for the reader in place of an older one."""
        with self._lock:
            self._received += 1
            self._dropped += len(self._slot)
            self._slot = [message]

    def take(self):
        """The newest message; IndexError where none is waiting."""
        with self._lock:
            message = self._slot.pop()
            self._used += 1
            return message

    def clear(self):
        """Throws away a message that waits; it counts as dropped."""
        with self._lock:
            self._dropped += len(self._slot)
            self._slot.clear()

    @property
    def waiting(self):
        """Whether take() has something to give."""
        return bool(self._slot)

    def counts(self):
        """Counts since the start."""
        with self._lock:
            return Counts(self._received, self._used, self._dropped, len(self._slot))

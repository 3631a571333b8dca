"""Single-slot mailbox: the latest message wins, and dropped messages are counted."""

import threading
from typing import Generic, NamedTuple, TypeVar

Message = TypeVar('Message')


class Counts(NamedTuple):
    """Counts taken at one instant, so that received == used + dropped + waiting always holds."""

    received: int
    used: int  # taken by the reader, or used by a goal before
    dropped: int  # replaced or cleared without being used
    waiting: int  # 0 or 1

    @staticmethod
    def total(counts: 'list[Counts]') -> 'Counts':
        """Return the sums over several mailboxes."""
        return Counts(*(sum(column) for column in zip(*counts, strict=True)))


class Mailbox(Generic[Message]):
    """Holds the newest message for its reader. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._slot: list[Message] = []  # empty, or one message
        self._is_used = False  # whether that message is counted as used already
        self._received = self._used = self._dropped = 0

    def put(self, message: Message, *, is_used: bool = False) -> None:
        """Replace the waiting message by `message`; `is_used` if a goal uses it as well."""
        with self._lock:
            self._drop()
            self._received += 1
            self._used += is_used
            self._slot, self._is_used = [message], is_used

    def take(self) -> Message:
        """Return the newest message and empty the slot.

        Raises:
            IndexError: No message is waiting.
        """
        with self._lock:
            message = self._slot.pop()
            self._used += not self._is_used
            return message

    def clear(self) -> None:
        """Drop the waiting message."""
        with self._lock:
            self._drop()

    def _drop(self) -> None:
        self._dropped += bool(self._slot) and not self._is_used
        self._slot = []

    @property
    def has_message(self) -> bool:
        """True if a message is waiting."""
        return bool(self._slot)

    def holds(self, message: Message) -> bool:
        """Return whether `message` itself is waiting."""
        with self._lock:
            return any(each is message for each in self._slot)

    def counts(self) -> Counts:
        """Return the counts since the start."""
        with self._lock:
            waiting = bool(self._slot) and not self._is_used
            return Counts(self._received, self._used, self._dropped, int(waiting))

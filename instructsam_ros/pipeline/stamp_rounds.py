"""Rounds of stamps: distinguishes the messages of a repeated recording from the earlier ones with the same stamps.

The stamps of a looped bag, of a simulation that is reset, and of a clock that is set back jump backwards, and a new
round begins. The topics of one camera jump one after the other, so for a moment images of the new round and depth of
the old one arrive mixed.
"""

from typing import NamedTuple

PATIENCE = 100
"""Number of messages of earlier rounds in a row, after which the topics of the newest round count as silent."""


class _Topic(NamedTuple):
    round: int
    largest_ns: int  # its largest stamp in that round
    reached_ns: int  # its largest stamp before other topics began a newer round


class StampRounds:
    """Numbers the rounds of several topics consistently. Not thread-safe.

    The first topic whose stamps go back opens a round, and the others join it when theirs go back. A topic whose stamps
    do not, because it was silent in between or because one wrong stamp has opened the round, joins when the new round
    reaches the stamp that the topic had then, or when the topics of the new round are silent.
    """

    def __init__(self) -> None:
        self.newest = 0
        self._latest_ns = 0  # stamp of the latest message in the newest round
        self._messages_behind = 0  # messages of earlier rounds since that one
        self._topics: dict[str, _Topic] = {}

    def assign(self, topic: str, stamp_ns: int, jitter_ns: int = 0) -> int:
        """Return the round of a message; called for every message of `topic` in the order of arrival.

        Args:
            topic: Any name; topics with different names restart one after the other.
            stamp_ns: The message's stamp.
            jitter_ns: Stamps of this topic may go back by this much within a round.
        """
        round_, largest_ns, reached_ns = self._topics.get(topic, _Topic(self.newest, stamp_ns, stamp_ns))
        is_behind = round_ < self.newest
        is_back = stamp_ns < largest_ns - jitter_ns
        if is_back and not is_behind:
            self.newest += 1
        is_reached = self._latest_ns >= reached_ns or self._messages_behind >= PATIENCE
        if is_back or (is_behind and (stamp_ns < largest_ns or is_reached)):
            round_, largest_ns = self.newest, stamp_ns
        largest_ns = max(stamp_ns, largest_ns)
        if round_ == self.newest:
            self._latest_ns, self._messages_behind, reached_ns = stamp_ns, 0, largest_ns
        else:
            self._messages_behind += 1
        self._topics[topic] = _Topic(round_, largest_ns, reached_ns)
        return round_

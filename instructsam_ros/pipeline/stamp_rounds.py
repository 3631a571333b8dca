"""Rounds of stamps: tells messages of a recording that starts again from those with the same stamps before.

The stamps of a looped bag, of a simulation that is reset, and of a clock that is set back go back. The topics of one
camera do so one after the other, so for a moment images of the new round and depth of the old one arrive mixed.
"""


class StampRounds:
    """Numbers the rounds of several topics consistently. Not thread-safe.

    The first topic whose stamps go back opens a round, and the others join it when theirs go back. A topic whose stamps
    do not, because it was silent in between or because one wrong stamp has opened the round, joins when the new round
    has reached its stamps.
    """

    def __init__(self) -> None:
        self.newest = 0
        self._latest_ns = 0  # stamp of the latest message in the newest round
        self._topics: dict[str, tuple[int, int]] = {}  # topic -> (its round, its largest stamp in that round, ns)

    def assign(self, topic: str, stamp_ns: int, jitter_ns: int = 0) -> int:
        """Return the round of a message; called for every message of `topic` in the order of arrival.

        Args:
            topic: Any name; topics with different names restart one after the other.
            stamp_ns: The message's stamp.
            jitter_ns: Stamps of this topic may go back by so much within a round.
        """
        round_, largest_ns = self._topics.get(topic, (self.newest, stamp_ns))
        is_behind = round_ < self.newest
        is_back = stamp_ns < largest_ns - jitter_ns
        if is_back and not is_behind:
            self.newest += 1
        if is_back or (is_behind and (stamp_ns < largest_ns or self._latest_ns >= largest_ns)):
            round_, largest_ns = self.newest, stamp_ns
        self._topics[topic] = round_, max(stamp_ns, largest_ns)
        if round_ == self.newest:
            self._latest_ns = stamp_ns
        return round_

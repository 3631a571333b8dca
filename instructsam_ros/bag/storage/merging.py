"""Several sorted sources of messages as one, in order of time."""

import heapq
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

from instructsam_ros.bag.storage.errors import RecordingError


class Record(NamedTuple):
    """A recorded message: bag time in ns, id of its channel in its file, serialized message."""

    time_ns: int
    channel: int
    data: bytes


class Source(NamedTuple):
    """Messages in order of time, read when their time has come."""

    start_ns: int
    read: Callable[[], Iterator[Record]]
    name: str = ''


def merge_by_time(sources: Iterable[Source]) -> Iterator[tuple[int, Record]]:
    """Yield (index of the source, record) in order of time; at equal times in order of the sources.

    Unlike heapq.merge, a source is opened only when the time reaches its start, so that few are in memory at once.

    Raises:
        RecordingError: A source holds a message before its start.
    """
    waiting = sorted(enumerate(sources), key=lambda each: each[1].start_ns, reverse=True)
    current: list[tuple[int, int, Record, Iterator[Record]]] = []
    while waiting or current:
        while waiting and (not current or waiting[-1][1].start_ns <= current[0][0]):
            index, source = waiting.pop()
            records = source.read()
            first = next(records, None)
            if first is None:
                continue
            if first.time_ns < source.start_ns:
                raise RecordingError(
                    f'{source.name} is listed from {source.start_ns} ns on and holds a message of {first.time_ns} ns'
                )
            heapq.heappush(current, (first.time_ns, index, first, records))
        if not current:
            return
        _, index, record, records = current[0]
        yield index, record
        following = next(records, None)
        if following is None:
            heapq.heappop(current)
        else:
            heapq.heapreplace(current, (following.time_ns, index, following, records))

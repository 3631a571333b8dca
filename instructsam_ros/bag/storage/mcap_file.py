"""An MCAP file as recorded messages (https://mcap.dev/spec).

Why not rosbags: its reader knows only the profile `ros2` and ROS's schemas, ignores attachments and, if there are
chunks, the messages outside of them, and decompresses to any size. Why not the mcap package: it reads a file without
chunks into memory as a whole, and decompresses to any size as well.

The data section is the truth: every one of its records is visited, though chunks are not decompressed for it where the
counts of their indexes and of the summary agree. An index that is incomplete would hide messages otherwise.
"""

import contextlib
import struct
from array import array
from binascii import crc32
from collections import Counter
from collections.abc import Callable, Collection, Generator, Iterator
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import BinaryIO

import numpy as np

from instructsam.core.text import one_line, shorten
from instructsam_ros.bag.storage.channel import CDR, LATEST_NS, NO_DEFINITION, Channel, known_definition, known_digest
from instructsam_ros.bag.storage.compression import decompress_lz4, decompress_zstd
from instructsam_ros.bag.storage.errors import RecordingError
from instructsam_ros.bag.storage.limits import Limits
from instructsam_ros.bag.storage.merging import Record, Source, merge_by_time
from instructsam_ros.bag.storage.metadata import parse_profiles

MAGIC = b'\x89MCAP0\r\n'
FOOTER, SCHEMA, CHANNEL, MESSAGE, CHUNK, MESSAGE_INDEX = range(2, 8)
ATTACHMENT, STATISTICS, METADATA, DATA_END = 0x09, 0x0B, 0x0C, 0x0F
MESSAGE_HEADER = struct.Struct('<HIQQ')  # channel, sequence number, log time, publish time
DECOMPRESS: dict[str, Callable[[bytes, int], bytes]] = {
    '': lambda data, limit: data,
    'lz4': decompress_lz4,
    'zstd': decompress_zstd,
}
LARGEST_RECORD = 64 << 20
"""Longest schema, channel or other record that is not a message, chunk or attachment, in bytes."""
LONGEST_NAME = 64
"""Longest name of a compression, in bytes."""
MEND = '`mcap recover` rewrites what is intact of a recording that was cut off or damaged'
OVERLAPPING = 2
"""Decompressed chunks of the largest size that may be in memory at once because their times overlap."""


@dataclass
class _Chunk:
    position: int  # of its record, for messages to the user
    offset: int  # position of the compressed records in the file
    start_ns: int
    end_ns: int
    compression: str
    compressed: int
    uncompressed: int
    crc: int  # of the decompressed records; 0 if it was not recorded
    counts: Counter[int] = field(default_factory=Counter)  # {channel: messages}, from its message indexes


class McapFile:
    """The messages of an MCAP file.

    Args:
        path: The file.
        limits: Largest sizes of chunks.
        shown: Its name in messages, which differs if the file was decompressed.
        keep_open: Whether to keep the file open, so that it may be deleted.

    Attributes:
        channels: {id: channel}, including those that hold no ROS 2 messages.
        counts: {id: number of messages}.
        start_ns, end_ns: Times of the first and last message; start_ns > end_ns if there is none.
        compresses_chunks: Whether a chunk is compressed.
        recorder_metadata: The YAML that rosbag2 stores in the file; '' if there is none.
        extras: {description: number} of all else that a copy of the messages lacks.
        publish_times: Number of messages in the latest messages() that were published at another time than recorded.

    Raises:
        RecordingError: The file is damaged or exceeds the limits.
    """

    def __init__(self, path: Path, limits: Limits, shown: Path, *, keep_open: bool = False) -> None:
        self._path, self._shown = path, shown
        self._kept = path.open('rb') if keep_open else None
        self.channels: dict[int, Channel] = {}
        self.counts: Counter[int] = Counter()
        self.start_ns, self.end_ns = LATEST_NS, -1
        self.recorder_metadata = ''
        self.extras: Counter[str] = Counter()
        self.publish_times = 0
        self._limit = limits.message_bytes
        self._schemas: dict[int, tuple[str, str, bytes]] = {}  # id -> (name, encoding, definition)
        self._chunks: list[_Chunk] = []
        self._loose_times, self._loose_offsets = array('Q'), array('Q')  # of messages outside of chunks
        self._statistics: dict[int, int] | None = None
        self._open_bytes = 0  # of decompressed chunks in memory
        with _explained(shown), self._opened() as file:
            self._visit(file)
            self._look_into_chunks(file)
        self._check_counts()
        self.compresses_chunks = any(chunk.compression for chunk in self._chunks)

    def messages(self, wanted: Collection[int]) -> Iterator[Record]:
        """Yield the messages of the channels `wanted` in order of time; at equal times in order of the file.

        Raises:
            RecordingError: The file is damaged.
        """
        self.publish_times = self._open_bytes = 0
        channels = frozenset(wanted)
        with _explained(self._shown), self._opened() as file:
            sources = [
                Source(chunk.start_ns, lambda chunk=chunk: self._read_chunk(file, chunk, channels), f'{self._shown}')
                for chunk in self._chunks
                if not channels.isdisjoint(chunk.counts)
            ]
            if self._loose_times:
                times = np.frombuffer(self._loose_times, np.uint64)
                order = np.argsort(times, kind='stable')
                sources.append(Source(int(times[order[0]]), lambda: self._read_loose(file, order, channels)))
            for _, record in merge_by_time(sources):
                yield record

    @contextlib.contextmanager
    def _opened(self) -> Generator[BinaryIO, None, None]:
        """Yield the file; its position is that of all readers if it is kept open, so each read begins with a seek."""
        if self._kept is not None:
            yield self._kept
            return
        with self._path.open('rb') as file:
            yield file

    def _visit(self, file: BinaryIO) -> None:
        """Read all records of the file but the content of chunks and messages."""
        size = file.seek(0, 2)
        file.seek(0)
        is_data, opcode = True, 0
        for opcode, offset, length in _records(file, len(MAGIC), size):
            if opcode == MESSAGE and is_data:
                self._add_loose(file, offset, length)
            elif opcode == CHUNK and is_data:
                self._add_chunk(file, offset, length)
            elif opcode == ATTACHMENT:
                self.extras['attachments'] += 1
            elif opcode in (SCHEMA, CHANNEL, MESSAGE_INDEX, METADATA, STATISTICS):
                if length > LARGEST_RECORD:
                    raise self._damaged(f'the record at byte {offset} has {length:,} bytes')
                self._read_record(opcode, file.read(length))
            elif opcode == DATA_END:
                is_data = False
            elif opcode == FOOTER:
                file.seek(offset + length)
                break
        if opcode != FOOTER or file.read(len(MAGIC) + 1) != MAGIC:
            raise self._damaged('it is truncated: its end is missing')

    def _add_loose(self, file: BinaryIO, offset: int, length: int) -> None:
        """Count a message outside of chunks, and remember where it is."""
        self._check_size(f'the message at byte {offset}', length)
        channel, time_ns, _ = _message_header(file, length)
        self._loose_times.append(time_ns)
        self._loose_offsets.append(offset)
        self._add_count(channel, 1)
        self._add_times(time_ns, time_ns)

    def _add_chunk(self, file: BinaryIO, offset: int, length: int) -> None:
        start_ns, end_ns, uncompressed, crc, name_length = struct.unpack('<QQQII', file.read(32))
        if name_length > LONGEST_NAME:
            raise self._damaged(f'the chunk at byte {offset} names its compression in {name_length:,} bytes')
        compression = file.read(name_length).decode()
        (compressed,) = struct.unpack('<Q', file.read(8))
        if compression not in DECOMPRESS:
            raise self._damaged(f'the chunk at byte {offset} is compressed by {shorten(compression)}, not zstd or lz4')
        if 40 + name_length + compressed > length:
            raise self._damaged(f'the chunk at byte {offset} is longer than its record')
        self._check_size(f'the chunk at byte {offset}', max(uncompressed, compressed))
        self._chunks.append(_Chunk(offset, file.tell(), start_ns, end_ns, compression, compressed, uncompressed, crc))

    def _check_size(self, name: str, size: int) -> None:
        if size > self._limit:
            raise RecordingError(
                f'{self._shown} cannot be read as a bag ({name} has {size:,} bytes when decompressed, and '
                f'{self._limit:,} are allowed); raise --max-message-mb if it is meant to'
            )

    def _read_record(self, opcode: int, data: bytes) -> None:
        """Read a record that is neither a message nor a chunk."""
        record = BytesIO(data)
        if opcode == SCHEMA:
            (number,) = struct.unpack('<H', record.read(2))
            self._schemas[number] = _text(record), _text(record), _blob(record)
        elif opcode == CHANNEL:
            self._add_channel(record)
        elif opcode == MESSAGE_INDEX and self._chunks:
            (channel,) = struct.unpack('<H', record.read(2))
            self._chunks[-1].counts[channel] += len(_blob(record)) // 16
        elif opcode == METADATA:
            if _text(record) == 'rosbag2':
                self.recorder_metadata = _pairs(record).get('serialized_metadata', '')
            else:
                self.extras['metadata records'] += 1
        elif opcode == STATISTICS:
            record.seek(42)
            counts = struct.iter_unpack('<HQ', _blob(record))
            self._statistics = dict(counts)

    def _add_channel(self, record: BytesIO) -> None:
        number, schema = struct.unpack('<HH', record.read(4))
        if schema and schema not in self._schemas:  # The summary repeats channels alone: both are in the chunks.
            return
        topic, encoding, pairs = _text(record), _text(record), _pairs(record)
        type_name, format_name, definition = self._schemas[schema] if schema else ('', '', b'')
        note = ''
        if (profiles := parse_profiles(pairs.get('offered_qos_profiles'))) is None:
            note = f'the QoS of {one_line(topic)} is malformed and not copied'
        known = known_definition(format_name, definition)
        if known == NO_DEFINITION and definition and encoding == CDR:
            note = f'the definition of {one_line(type_name)} is in {shorten(format_name)}, not ROS 2, and not copied'
        channel = Channel(
            topic, type_name, encoding, known, known_digest(pairs.get('topic_type_hash')), profiles or (), note
        )
        if self.channels.setdefault(number, channel) != channel:
            raise self._damaged(
                f'channel {number} is both {one_line(topic)} and {one_line(self.channels[number].topic)}'
            )

    def _look_into_chunks(self, file: BinaryIO) -> None:
        """Count the messages of chunks, and find channels that the summary does not repeat."""
        indexed = sum((chunk.counts for chunk in self._chunks), Counter(self.counts))
        is_confirmed = self._statistics is not None and +indexed == +Counter(self._statistics)
        for chunk in self._chunks:
            if not is_confirmed or not chunk.counts or not chunk.counts.keys() <= self.channels.keys():
                self._count_messages(file, chunk)
            for channel, count in chunk.counts.items():
                self._add_count(channel, count)
            if chunk.counts:
                self._add_times(chunk.start_ns, chunk.end_ns)

    def _count_messages(self, file: BinaryIO, chunk: _Chunk) -> None:
        """Count the messages in a chunk itself, and read its channels."""
        content, counts = self._decompressed(file, chunk), Counter[int]()
        for opcode, _, length in _records(content, 0, chunk.uncompressed):
            if opcode in (SCHEMA, CHANNEL):
                self._read_record(opcode, content.read(length))
            elif opcode == MESSAGE:
                counts[_message_header(content, length)[0]] += 1
        for channel in chunk.counts - counts:
            raise self._counted(channel, chunk.counts[channel], counts[channel])
        chunk.counts = counts

    def _add_count(self, channel: int, count: int) -> None:
        self.counts[channel] += count

    def _add_times(self, start_ns: int, end_ns: int) -> None:
        if not start_ns <= end_ns <= LATEST_NS:
            raise self._damaged(f'messages are of the times {start_ns} to {end_ns} ns, but the year 2262 is the last')
        self.start_ns, self.end_ns = min(self.start_ns, start_ns), max(self.end_ns, end_ns)

    def _check_counts(self) -> None:
        unknown = self.counts.keys() - self.channels.keys()
        if unknown:
            raise self._damaged(f'it has messages of channel {min(unknown)}, which it does not describe')
        for channel, count in (self._statistics or {}).items():
            if count != self.counts[channel]:
                raise self._counted(channel, count, self.counts[channel])

    def _read_loose(self, file: BinaryIO, order: np.ndarray, wanted: frozenset[int]) -> Iterator[Record]:
        for index in order:
            file.seek(self._loose_offsets[index] - 8)
            (length,) = struct.unpack('<Q', file.read(8))
            channel, time_ns, publish_ns = _message_header(file, length)
            if channel in wanted:
                self.publish_times += publish_ns != time_ns
                yield Record(time_ns, channel, file.read(length - MESSAGE_HEADER.size))

    def _read_chunk(self, file: BinaryIO, chunk: _Chunk, wanted: frozenset[int]) -> Iterator[Record]:
        self._open_bytes += chunk.uncompressed
        if self._open_bytes > max(OVERLAPPING * self._limit, chunk.uncompressed):
            raise RecordingError(
                f'{self._shown} has so many chunks whose times overlap that reading it in order takes more than '
                f'{self._open_bytes:,} bytes of memory; `mcap sort` rewrites it'
            )
        content = self._decompressed(file, chunk)
        records = []
        for opcode, _, length in _records(content, 0, chunk.uncompressed):
            if opcode == MESSAGE:
                channel, time_ns, publish_ns = _message_header(content, length)
                if channel in wanted:
                    self.publish_times += publish_ns != time_ns
                    records.append(Record(time_ns, channel, content.read(length - MESSAGE_HEADER.size)))
        del content
        records.sort(key=lambda record: record.time_ns)
        yield from records
        self._open_bytes -= chunk.uncompressed

    def _decompressed(self, file: BinaryIO, chunk: _Chunk) -> BytesIO:
        file.seek(chunk.offset)
        try:
            data = DECOMPRESS[chunk.compression](file.read(chunk.compressed), chunk.uncompressed)
        except RecordingError as error:
            raise self._damaged(f'the chunk at byte {chunk.position}: {error}') from error
        if len(data) != chunk.uncompressed:
            raise self._damaged(
                f'the chunk at byte {chunk.position} has {len(data):,} bytes, not {chunk.uncompressed:,} as it says'
            )
        if chunk.crc and crc32(data) != chunk.crc:
            raise self._damaged(f'the checksum of the chunk at byte {chunk.position} is wrong')
        return BytesIO(data)

    def _counted(self, channel: int, listed: int, held: int) -> RecordingError:
        topic = self.channels[channel].topic if channel in self.channels else f'channel {channel}'
        return self._damaged(f'it lists {listed:,} messages of {one_line(topic)} and holds {held:,}')

    def _damaged(self, reason: str) -> RecordingError:
        return RecordingError(f'{self._shown} cannot be read as a bag ({reason}); {MEND}')


@contextlib.contextmanager
def _explained(path: Path) -> Generator[None, None, None]:
    """Raise RecordingError for what damaged data lead to."""
    try:
        yield
    except (struct.error, ValueError, EOFError, OverflowError) as error:
        raise RecordingError(f'{path} cannot be read as a bag (truncated or damaged: {error}); {MEND}') from error


def _records(file: BinaryIO, start: int, end: int) -> Iterator[tuple[int, int, int]]:
    """Yield (opcode, offset of the content, its length) of each record; `file` stands at the content."""
    position = start
    while position < end:
        file.seek(position)
        opcode, length = struct.unpack('<BQ', file.read(9))
        if length > end - position - 9:
            raise EOFError(f'the record at byte {position} is truncated: {length:,} bytes were expected')
        yield opcode, position + 9, length
        position += 9 + length


def _message_header(file: BinaryIO, length: int) -> tuple[int, int, int]:
    """Return (channel, log time, publish time) of the message record of `length` bytes at which `file` stands."""
    if length < MESSAGE_HEADER.size:
        raise EOFError(f'a message has {length} bytes')
    channel, _, time_ns, publish_ns = MESSAGE_HEADER.unpack(file.read(MESSAGE_HEADER.size))
    return channel, time_ns, publish_ns


def _blob(record: BytesIO) -> bytes:
    (length,) = struct.unpack('<I', record.read(4))
    data = record.read(length)
    if len(data) != length:
        raise EOFError('a text is truncated')
    return data


def _text(record: BytesIO) -> str:
    return _blob(record).decode()


def _pairs(record: BytesIO) -> dict[str, str]:
    """Return a map of texts; it is empty if there is none."""
    pairs = BytesIO(_blob(record))
    found = {}
    while pairs.tell() < len(pairs.getbuffer()):
        key = _text(pairs)
        found[key] = _text(pairs)
    return found

"""A ROS 2 bag on disk, read as the bytes that were recorded.

Why not rosbags' reader: it takes a topic whose QoS differ between metadata.yaml and file for two, ignores the
write-ahead log of SQLite, and refuses a bag as a whole for a channel that is not ROS 2's.
"""

import sys
from collections import Counter
from collections.abc import Container, Iterator
from functools import partial
from pathlib import Path

from rosbags.interfaces import Connection, ConnectionExtRosbag2
from rosbags.rosbag2 import CompressionMode, StoragePlugin

from instructsam.core.text import one_line
from instructsam_ros.bag.storage.channel import CDR, NO_DEFINITION, Channel
from instructsam_ros.bag.storage.compression import ZSTD_MAGIC, decompress_zstd
from instructsam_ros.bag.storage.errors import RecordingError, explained_reading
from instructsam_ros.bag.storage.files import OpenFile, list_files
from instructsam_ros.bag.storage.limits import Limits
from instructsam_ros.bag.storage.mcap_file import McapFile
from instructsam_ros.bag.storage.merging import Source, merge_by_time
from instructsam_ros.bag.storage.metadata import BagMetadata, TopicMetadata, read_recorder_metadata


class BagFile:
    """A bag, opened for reading only.

    Messages that are not ROS 2's (CDR), such as JSON in an MCAP file, are left out and listed in `left_out`.

    Args:
        path: The bag's folder, or its .mcap or .db3 file, which may be compressed as a whole (.mcap.zstd, .db3.zstd).
        limits: Largest sizes of decompressed data.
        allow_lost: Whether to note, rather than to refuse, that messages are missing which metadata.yaml lists.

    Attributes:
        types: {topic: 'package/msg/Name'}; of a topic recorded with several types, all of them joined by ' and '.
        counts: {topic: number of messages}.
        start_ns: Bag time of the first message.
        duration_s: Time from the first to the last message.
        files: The files that hold the messages.
        left_out: {description of a topic: number of its messages, which are not ROS 2 messages}.
        extras: {description: number} of what the bag has beside messages.
        notes: What was odd about the bag and how it was read.
        connections, custom, plugin, compression: Everything else that a copy of the bag needs, see BagWriter.

    Raises:
        RecordingError: There is no bag at `path`, it is damaged, or it exceeds the limits.
        StorageError: There is too little space for temporary files.
    """

    def __init__(self, path: str | Path, limits: Limits | None = None, *, allow_lost: bool = False) -> None:
        self.path = Path(path)
        self._allow_lost = allow_lost
        self._limits = limits or Limits()
        with explained_reading(self.path):
            paths, metadata = list_files(self.path)
            self._files = [OpenFile(file, self._limits) for file in paths]
            storages = [file.storage for file in self._files]
            self.files = sorted(path for file in self._files for path in file.paths)
            self.notes = list(metadata.notes)
            self.left_out: Counter[str] = Counter()
            self.extras: Counter[str] = sum((storage.extras for storage in storages), Counter())
            self.custom: dict[str, str] = dict(metadata.custom)
            self._read_recorder_metadata(metadata)
            self._numbers: list[dict[int, int]] = []  # for each file: {id of a channel: index of its connection}
            self.connections: list[Connection] = []
            self._merge_channels(metadata)
            self.compression = self._compression()
        self.plugin = StoragePlugin.MCAP if isinstance(storages[0], McapFile) else StoragePlugin.SQLITE3
        self.counts: Counter[str] = Counter()
        for connection in self.connections:
            self.counts[connection.topic] += connection.msgcount
        self.types = {
            topic: ' and '.join(each.msgtype for each in self.connections if each.topic == topic)
            for topic in self.counts
        }
        filled = [storage for storage in storages if storage.start_ns <= storage.end_ns]
        self.start_ns = min((storage.start_ns for storage in filled), default=0)
        self.duration_s = (max((storage.end_ns for storage in filled), default=0) - self.start_ns) * 1e-9

    def messages(self, topics: Container[str] | None = None) -> Iterator[tuple[Connection, int, bytes]]:
        """Yield (connection, bag time in ns, serialized message) in order of time.

        Args:
            topics: Only the messages on these topics; None for all.

        Raises:
            RecordingError: The bag is damaged, or, after the last message, it holds others than it lists.
        """
        wanted = {index for index, each in enumerate(self.connections) if topics is None or each.topic in topics}
        read: Counter[int] = Counter()
        with explained_reading(self.path):
            for file, record in merge_by_time(list(self._sources(wanted))):
                index = self._numbers[file][record.channel]
                read[index] += 1
                yield self.connections[index], record.time_ns, self._decompressed(record.data, self.connections[index])
        for index in wanted:
            connection = self.connections[index]
            if read[index] != connection.msgcount:
                raise RecordingError(
                    f'{self.path} lists {connection.msgcount} messages of {connection.topic} and holds {read[index]}: '
                    'it is damaged; copy it again from where it was recorded, or use `mcap recover`'
                )

    @property
    def publish_times(self) -> int:
        """Number of messages that the latest messages() read and that were published at another time than recorded."""
        return sum(file.storage.publish_times for file in self._files)

    def _sources(self, wanted: set[int]) -> Iterator[Source]:
        for file, numbers in zip(self._files, self._numbers, strict=True):
            storage = file.storage
            channels = {channel for channel, index in numbers.items() if index in wanted and storage.counts[channel]}
            yield Source(storage.start_ns, partial(storage.messages, channels), str(file.paths[0]))

    def _decompressed(self, data: bytes, connection: Connection) -> bytes:
        """Return a message; one that begins like Zstandard data was compressed by rosbag2, for CDR begins with 0."""
        if not data.startswith(ZSTD_MAGIC):
            return data
        try:
            return decompress_zstd(data, self._limits.message_bytes)
        except RecordingError as error:
            raise RecordingError(
                f'{self.path} has a message on {connection.topic} that cannot be read: {error}; --max-message-mb sets '
                'the limit'
            ) from error

    def _merge_channels(self, metadata: BagMetadata) -> None:
        """Make one connection of all channels of a topic and type, whatever their QoS and file."""
        merged: dict[tuple[str, str], list[tuple[Channel, int]]] = {}
        held: Counter[str] = Counter()
        for file in self._files:
            for number, channel in file.storage.channels.items():
                count = file.storage.counts[number]
                held[channel.topic] += count
                if channel.note:
                    self.notes.append(channel.note)
                if channel.encoding == CDR and channel.type:
                    merged.setdefault((channel.topic, channel.type), []).append((channel, count))
                else:
                    self.left_out[
                        f'{channel.topic} ({channel.encoding if channel.encoding != CDR else "cdr without a type"})'
                    ] += count
        if self.left_out and not merged:
            raise RecordingError(
                f'{self.path} has no ROS 2 messages: {", ".join(self.left_out)}; if it was made of a ROS 1 bag, '
                'convert that with `rosbags-convert --src X.bag --dst FOLDER --dst-typestore ros2_jazzy`'
            )
        self._check_counts(metadata, held)
        indices = {key: index for index, key in enumerate(merged)}
        for (topic, type_name), channels in merged.items():
            self.connections.append(
                self._connection(indices[topic, type_name], channels, metadata.topics.get((topic, type_name)))
            )
        for file in self._files:
            keys = {number: (channel.topic, channel.type) for number, channel in file.storage.channels.items()}
            self._numbers.append({number: indices[key] for number, key in keys.items() if key in indices})
        self._check_definitions(merged)

    def _connection(self, index: int, channels: list[tuple[Channel, int]], listed: TopicMetadata | None) -> Connection:
        first = channels[0][0]
        listed = listed or TopicMetadata()
        profiles = list(dict.fromkeys(qos for channel, _ in channels for qos in channel.profiles))
        if profiles and listed.profiles and set(profiles) != set(listed.profiles):
            self.notes.append(f'metadata.yaml and the file differ in the QoS of {first.topic}; the file is right')
        return Connection(
            id=index + 1,
            topic=first.topic,
            msgtype=first.type,
            msgdef=next((each.definition for each, _ in channels if each.definition != NO_DEFINITION), NO_DEFINITION),
            digest=next((each.digest for each, _ in channels if each.digest), listed.digest),
            msgcount=sum(count for _, count in channels),
            ext=ConnectionExtRosbag2(CDR, profiles or list(listed.profiles)),
            owner=self,
        )

    def _check_counts(self, metadata: BagMetadata, held: Counter[str]) -> None:
        """Raise RecordingError if metadata.yaml lists messages that are missing; note other differences."""
        listed: Counter[str] = Counter()
        for (topic, type_name), entry in metadata.topics.items():
            types = {
                each.type for file in self._files for each in file.storage.channels.values() if each.topic == topic
            }
            if types and type_name not in types:
                self.notes.append(f'metadata.yaml says that {topic} is of type {type_name}; it is {", ".join(types)}')
            listed[topic] += entry.count or 0
        for topic, count in listed.items():
            if count > held[topic] and self._allow_lost:
                self.notes.append(f'metadata.yaml lists {count} messages of {topic}, and there are {held[topic]}')
            elif count > held[topic]:
                raise RecordingError(
                    f'{self.path} lists {count} messages of {topic} and holds {held[topic]}: files or messages are '
                    'missing; copy it again from where it was recorded, or accept the loss with `ros2 bag reindex`'
                )
        fewer = [topic for topic in listed if listed[topic] < held[topic]]
        if metadata.topics:
            fewer += [topic for topic in held if topic not in listed]
        if fewer:
            self.notes.append(f'metadata.yaml lists too few messages of {", ".join(fewer)}; all were read')

    def _check_definitions(self, merged: dict[tuple[str, str], list[tuple[Channel, int]]]) -> None:
        definitions: dict[str, set[str]] = {}
        for (_, type_name), channels in merged.items():
            texts = {channel.definition.data for channel, _ in channels if channel.definition != NO_DEFINITION}
            definitions.setdefault(type_name, set()).update(texts)
        for type_name, texts in definitions.items():
            if len(texts) > 1:
                self.notes.append(f'{type_name} is defined in {len(texts)} ways; a copy has the first for all messages')

    def _read_recorder_metadata(self, metadata: BagMetadata) -> None:
        """Take custom data from the first file if there is no metadata.yaml; check the compression of messages."""
        mode, format_name, custom = read_recorder_metadata(self._files[0].storage.recorder_metadata)
        if not metadata.files:
            self.custom = custom
        mode, format_name = metadata.compression_mode or mode, metadata.compression_format or format_name
        if mode == 'message' and format_name != 'zstd':
            raise RecordingError(
                f'{self.path} has messages compressed by {format_name!r}, and only zstd can be read; `ros2 bag '
                'convert` decompresses it where it was recorded'
            )

    def _compression(self) -> CompressionMode:
        """Return rosbag2's mode of compression, as the files have it."""
        if any(file.is_compressed for file in self._files):
            return CompressionMode.FILE
        for file, numbers in zip(self._files, self._numbers, strict=True):
            first = next(file.storage.messages(set(numbers)), None)
            if first is not None:
                if first.data.startswith(ZSTD_MAGIC):
                    return CompressionMode.MESSAGE
                break
        is_storage = any(file.storage.compresses_chunks for file in self._files)
        return CompressionMode.STORAGE if is_storage else CompressionMode.NONE


def print_notes(bag: BagFile) -> None:
    """Print what was odd about a bag and how it was read to stderr."""
    for note in bag.notes:
        print(one_line(f'{bag.path}: {note}'), file=sys.stderr)

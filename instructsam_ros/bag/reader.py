"""A ROS 2 bag on disk, read as the bytes that were recorded."""

from collections import Counter
from collections.abc import Container, Iterator
from pathlib import Path

from rosbags.interfaces import Connection
from rosbags.rosbag2 import CompressionMode, Reader, StoragePlugin

from instructsam_ros.bag.recordings import BAG_SUFFIXES, RecordingError, readable


class BagFile:
    """A bag, opened for reading only.

    Args:
        path: The bag's folder, .mcap or .db3 file.

    Attributes:
        types: {topic: 'package/msg/Name'}.
        counts: {topic: number of messages}.
        start_ns: Bag time of the first message.
        duration_s: Time from the first to the last message.
        files: The files that hold the messages.
        connections, custom, plugin, compression: Everything else that a copy of the bag needs, see BagWriter.

    Raises:
        RecordingError: There is no bag at `path`, or it is damaged.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        if not self.path.exists():
            raise RecordingError(f'{path} does not exist; give a bag: a folder with metadata.yaml, .mcap or .db3')
        if self.path.suffix not in BAG_SUFFIXES and not (self.path / 'metadata.yaml').is_file():
            raise RecordingError(
                f'{path} is not a bag: a folder with metadata.yaml, or a file ({", ".join(BAG_SUFFIXES)}); `ros2 bag '
                'reindex` repairs a folder that lost its metadata.yaml, or give its file instead'
            )
        with readable(self.path), Reader(self.path) as reader:
            storages = getattr(reader.storage, 'storages', [reader.storage])
            self.connections: list[Connection] = list(reader.connections)
            self.start_ns = reader.start_time
            self.duration_s = reader.duration * 1e-9
            self.custom: dict[str, str] = reader.storage.metadata.custom or {}
            self.plugin = StoragePlugin.MCAP if hasattr(storages[0], 'chunks') else StoragePlugin.SQLITE3
            self.compression = CompressionMode.NONE
            if reader.compression_mode:  # rosbag2's own compression: 'file' or 'message'
                self.compression = CompressionMode[reader.compression_mode.upper()]
            elif any(chunk.compression for storage in storages for chunk in getattr(storage, 'chunks', ())):
                self.compression = CompressionMode.STORAGE
        inside = [self.path] if self.path.is_file() else self.path.iterdir()
        self.files = sorted(file for file in inside if set(file.suffixes) & set(BAG_SUFFIXES))
        self.types = {connection.topic: connection.msgtype for connection in self.connections}
        self.counts: Counter[str] = Counter()
        for connection in self.connections:
            self.counts[connection.topic] += connection.msgcount

    def messages(self, topics: Container[str] | None = None) -> Iterator[tuple[Connection, int, bytes]]:
        """Yield (connection, bag time in ns, serialized message) for every message on `topics`, or on all topics.

        Raises:
            RecordingError: The bag is damaged, or, after the last message, it lists more messages than it holds.
        """
        read: Counter[int] = Counter()
        with readable(self.path), Reader(self.path) as reader:
            wanted = [each for each in reader.connections if topics is None or each.topic in topics]
            for connection, time_ns, data in reader.messages(wanted) if wanted else ():
                read[connection.id] += 1
                yield connection, time_ns, data
        for connection in self.connections:
            is_wanted = topics is None or connection.topic in topics
            if is_wanted and read[connection.id] != connection.msgcount:
                raise RecordingError(
                    f'{self.path} lists {connection.msgcount} messages of {connection.topic} and holds '
                    f'{read[connection.id]}; repair it with `ros2 bag reindex` or `mcap recover`'
                )

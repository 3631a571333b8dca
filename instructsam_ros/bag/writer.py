"""A copy of a ROS 2 bag with further topics."""

import json
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import cast

from rosbags.interfaces import (
    Connection,
    ConnectionExtRosbag2,
    MessageDefinitionFormat,
    Qos,
    QosDurability,
    QosHistory,
    QosLiveliness,
    QosReliability,
    QosTime,
)
from rosbags.rosbag2 import CompressionFormat, Reader, Writer

from instructsam.core.errors import InstructSAMError
from instructsam.core.text import one_line
from instructsam_ros.bag.reader import BagFile
from instructsam_ros.bag.storage.definitions import type_hash, typestore

COPY = 'instructsam_copy'
"""Key of the custom data in which a copy names its original; see BagWriter."""
IDL_HEADER = '=' * 80 + '\nIDL: '  # by which the writer tells IDL from .msg definitions
METADATA_VERSION = 8  # Humble's; later releases read it too, and it has a field for everything that is copied
NO_HASH = f'RIHS01_{0:064}'  # hash of a type that the bag neither hashes nor defines; the writer requires one

INFINITE = QosTime(9223372036, 854775807)
RELIABLE = Qos(
    history=QosHistory.KEEP_LAST,
    depth=10,
    reliability=QosReliability.RELIABLE,
    durability=QosDurability.VOLATILE,
    deadline=INFINITE,
    lifespan=INFINITE,
    liveliness=QosLiveliness.AUTOMATIC,
    liveliness_lease_duration=INFINITE,
    avoid_ros_namespace_conventions=False,
)


class BagWriter:
    """A new bag with all topics of another one, and further topics.

    The source's messages, types, definitions, type hashes and offered QoS are copied unchanged, also of types that are
    not installed. The custom data name the source and the added topics, for `instructsam bag verify`. A context
    manager; if an error leaves the context, the bag is incomplete.

    Args:
        folder: The bag to write, which must not exist.
        source: The bag to copy.
        added: {topic: 'package/msg/Name'} of the further topics; the types are ROS's own or this package's.
    """

    def __init__(self, folder: Path, source: BagFile, added: Mapping[str, str]) -> None:
        self._writer = Writer(folder, version=METADATA_VERSION, storage_plugin=source.plugin)
        self._writer.set_compression(source.compression, CompressionFormat.ZSTD)
        self._source, self._added = source, added
        self._copied: dict[int, Connection] = {}  # id of the source's connection -> connection of the copy
        self._new: dict[str, Connection] = {}  # added topic -> connection

    def __enter__(self) -> 'BagWriter':
        for key, value in self._source.custom.items():
            self._writer.set_custom_data(key, value)
        copy = {'source': str(self._source.path.absolute()), 'added': list(self._added)}
        self._writer.set_custom_data(COPY, json.dumps(copy))
        self._writer.__enter__()
        self._copied = {each.id: self._copy_connection(each) for each in self._source.connections}
        store = typestore()
        self._new = {
            topic: self._writer.add_connection(topic, type_name, typestore=store, offered_qos_profiles=[RELIABLE])
            for topic, type_name in self._added.items()
        }
        return self

    def _copy_connection(self, connection: Connection) -> Connection:
        ext, definition = cast(ConnectionExtRosbag2, connection.ext), connection.msgdef.data
        if connection.msgdef.format == MessageDefinitionFormat.IDL and not definition.startswith(IDL_HEADER):
            definition = f'{IDL_HEADER}{connection.msgtype}\n{definition}'
        return self._writer.add_connection(
            connection.topic,
            connection.msgtype,
            msgdef=definition,
            rihs01=connection.digest or type_hash(connection) or NO_HASH,
            serialization_format=ext.serialization_format,
            offered_qos_profiles=ext.offered_qos_profiles,
        )

    def __exit__(
        self, error_type: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._writer.__exit__(error_type, error, traceback)

    def copy(self, connection: Connection, time_ns: int, data: bytes) -> None:
        """Write a message of the source at bag time `time_ns`."""
        self._writer.write(self._copied[connection.id], time_ns, data)

    def add(self, topic: str, time_ns: int, data: bytes) -> None:
        """Write a serialized message on an added topic at bag time `time_ns`."""
        self._writer.write(self._new[topic], time_ns, data)


def check_readable(folder: Path, counts: Mapping[str, int]) -> None:
    """Open a bag that was written, by a reader that this package does not write.

    Args:
        folder: The bag.
        counts: {topic: number of messages} of topics that it must have.

    Raises:
        InstructSAMError: The reader cannot open it, or the bag lacks messages.
    """
    try:
        with Reader(folder) as reader:
            written: Counter[str] = Counter()
            for connection in reader.connections:
                written[connection.topic] += connection.msgcount
    except Exception as error:  # Readers fail in many ways.
        raise InstructSAMError(
            f'{folder} was written but cannot be read: {one_line(error)}; please report this'
        ) from error
    lacking = [topic for topic, count in counts.items() if written[topic] != count]
    if lacking:
        raise InstructSAMError(f'{folder} was written but lacks messages of {", ".join(lacking)}; please report this')

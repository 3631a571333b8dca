"""A ROS 2 bag on disk: its messages as the bytes that were recorded, and a copy of it with topics added."""

from collections import Counter
from pathlib import Path

from rosbags.interfaces import (
    MessageDefinitionFormat,
    Qos,
    QosDurability,
    QosHistory,
    QosLiveliness,
    QosReliability,
    QosTime,
)
from rosbags.rosbag2 import CompressionFormat, CompressionMode, Reader, StoragePlugin, Writer
from rosbags.typesys import Stores, get_types_from_idl, get_types_from_msg, get_typestore

from instructsam_ros import msg
from instructsam_ros.bag.recordings import BAGS, RecordingError, readable

# Humble's layout of the metadata; those after it read it as well, and it holds all that there is
VERSION = 8
NO_HASH = f'RIHS01_{0:064}'  # of a type that the bag neither hashes nor defines; the writer insists on one
FOREVER = QosTime(9223372036, 854775807)
RELIABLE = Qos(
    QosHistory.KEEP_LAST, 10, QosReliability.RELIABLE, QosDurability.VOLATILE, FOREVER, FOREVER,
    QosLiveliness.AUTOMATIC, FOREVER, False,
)  # fmt: skip
MESSAGES = ('Rle', 'Geometry', 'Instance', 'InstanceArray')  # of this package, those first that others are made of
IDL_NAMES = {'boolean': 'bool', 'float': 'float32', 'double': 'float64'}  # where a .msg file says otherwise


class BagFile:
    """A bag that is only read. `types` is {topic: 'package/msg/Name'}, `counts` {topic: messages}."""

    def __init__(self, path):
        """`path`: a bag's folder, .mcap or .db3 file. Raises RecordingError."""
        self.path = Path(path)
        if not self.path.exists():
            raise RecordingError(f'{path} does not exist; give a bag: a folder with metadata.yaml, .mcap or .db3')
        if self.path.suffix not in BAGS and not (self.path / 'metadata.yaml').is_file():
            raise RecordingError(
                f'{path} is no bag: a folder with metadata.yaml, or a file ({", ".join(BAGS)}); a folder that lost '
                'its metadata.yaml is mended with `ros2 bag reindex`, or its file given instead'
            )
        with readable(path), Reader(self.path) as reader:
            storages = getattr(reader.storage, 'storages', [reader.storage])
            self.connections = list(reader.connections)
            self.start_ns = reader.start_time
            self.duration_s = reader.duration * 1e-9
            self.custom = reader.storage.metadata.custom or {}
            self.plugin = StoragePlugin.MCAP if hasattr(storages[0], 'chunks') else StoragePlugin.SQLITE3
            self.compression = CompressionMode.NONE
            if reader.compression_mode:  # of rosbag2's own, 'file' or 'message'
                self.compression = CompressionMode[reader.compression_mode.upper()]
            elif any(chunk.compression for storage in storages for chunk in getattr(storage, 'chunks', ())):
                self.compression = CompressionMode.STORAGE
        inside = [self.path] if self.path.is_file() else self.path.iterdir()
        self.files = sorted(file for file in inside if set(file.suffixes) & set(BAGS))
        self.types = {connection.topic: connection.msgtype for connection in self.connections}
        self.counts = Counter()
        for connection in self.connections:
            self.counts[connection.topic] += connection.msgcount

    def messages(self, topics=None):
        """Yields (connection, ns of bag time, serialized message), of `topics` or of all. Raises RecordingError, also
        at the end where messages are missing that the bag lists.
        """
        read = Counter()
        with readable(self.path), Reader(self.path) as reader:
            wanted = [each for each in reader.connections if topics is None or each.topic in topics]
            for connection, time_ns, data in reader.messages(wanted) if wanted else ():
                read[connection.id] += 1
                yield connection, time_ns, data
        for connection in self.connections:
            if (topics is None or connection.topic in topics) and read[connection.id] != connection.msgcount:
                raise RecordingError(
                    f'{self.path} lists {connection.msgcount} messages of {connection.topic} and holds '
                    f'{read[connection.id]}; mend it with `ros2 bag reindex` or `mcap recover`'
                )


class Copy:
    """A new bag that gets what another one has, and more. A context: left by an error, the bag is not complete.

    Raw messages, types, definitions, type hashes and offered QoS go over as they are, also of unknown types.
    """

    def __init__(self, folder, source, added):
        """`added`: {topic: 'package/msg/Name'} of further topics, of this package or of ROS's own types."""
        self._writer = Writer(folder, version=VERSION, storage_plugin=source.plugin)
        self._writer.set_compression(source.compression, CompressionFormat.ZSTD)
        self._source, self._added = source, added

    def __enter__(self):
        for key, value in self._source.custom.items():
            self._writer.set_custom_data(key, value)
        self._writer.__enter__()
        self._connections = {each.id: self._add(each) for each in self._source.connections}
        store = typestore()
        self._new = {
            topic: self._writer.add_connection(topic, kind, typestore=store, offered_qos_profiles=[RELIABLE])
            for topic, kind in self._added.items()
        }
        return self

    def _add(self, connection):
        topic, kind, offer = connection.topic, connection.msgtype, connection.ext
        for other in self._writer.connections:  # channels of an MCAP file may be alike
            if (other.topic, other.msgtype, other.ext) == (topic, kind, offer):
                return other
        return self._writer.add_connection(
            topic,
            kind,
            msgdef=connection.msgdef.data,
            rihs01=connection.digest or _hash(connection),
            serialization_format=offer.serialization_format,
            offered_qos_profiles=offer.offered_qos_profiles,
        )

    def __exit__(self, *error):
        return self._writer.__exit__(*error)

    def write(self, connection, time_ns, data):
        """A message of the source."""
        self._writer.write(self._connections[connection.id], time_ns, data)

    def add(self, topic, time_ns, data):
        """A serialized message of an added topic."""
        self._writer.write(self._new[topic], time_ns, data)


def typestore():
    """The types of ROS 2 and of this package, the latter as the installed classes tell them, without constants."""
    store = get_typestore(Stores.ROS2_JAZZY)
    for name in MESSAGES:
        fields = getattr(msg, name).get_fields_and_field_types()
        text = '\n'.join(f'{_type_name(kind)} {field}' for field, kind in fields.items())
        store.register(get_types_from_msg(text, f'instructsam_ros/msg/{name}'))
    return store


def _type_name(kind):
    if kind.startswith('sequence<'):
        return f'{_type_name(kind[9:-1])}[]'
    return IDL_NAMES.get(kind, kind)


def _hash(connection):
    """The hash of a type, from its definition; recordings older than ROS 2 Iron have none."""
    store = get_typestore(Stores.EMPTY)
    text, is_idl = connection.msgdef.data, connection.msgdef.format == MessageDefinitionFormat.IDL
    try:
        store.register(get_types_from_idl(text) if is_idl else get_types_from_msg(text, connection.msgtype))
        return store.hash_rihs01(connection.msgtype)
    except Exception:  # a definition that is missing or odd: the messages are what counts
        return NO_HASH

"""MCAP files record by record, for layouts and faults that rosbags' writer does not make (https://mcap.dev/spec)."""

import struct
from binascii import crc32

from backports import zstd
from lz4 import frame as lz4

MAGIC = b'\x89MCAP0\r\n'
COMPRESS = {'': bytes, 'zstd': zstd.compress, 'lz4': lz4.compress}


def text(value):
    data = value if isinstance(value, bytes) else value.encode()
    return struct.pack('<I', len(data)) + data


def pairs(values):
    return text(b''.join(text(key) + text(value) for key, value in values.items()))


def record(opcode, body):
    return struct.pack('<BQ', opcode, len(body)) + body


def schema(number, name, encoding='ros2msg', definition='uint8 data'):
    return record(3, struct.pack('<H', number) + text(name) + text(encoding) + text(definition))


def channel(number, schema_number, topic, encoding='cdr', **metadata):
    return record(4, struct.pack('<HH', number, schema_number) + text(topic) + text(encoding) + pairs(metadata))


def message(channel_number, time_ns, data=b'\0\1\0\0\7', publish_ns=None):
    times = time_ns, time_ns if publish_ns is None else publish_ns
    return record(5, struct.pack('<HIQQ', channel_number, 0, *times) + data)


def chunk(records, times, compression='zstd', size=None, crc=None):
    """A chunk of records, with the times of its first and last message; `size` and `crc` may be lies."""
    content = b''.join(records)
    compressed = COMPRESS.get(compression, bytes)(content)
    size = len(content) if size is None else size
    head = struct.pack('<QQQI', *times, size, crc32(content) if crc is None else crc)
    return record(6, head + text(compression) + struct.pack('<Q', len(compressed)) + compressed)


def index(channel_number, count):
    return record(7, struct.pack('<HI', channel_number, 16 * count) + bytes(16 * count))


def statistics(counts):
    values = b''.join(struct.pack('<HQ', *each) for each in counts.items())
    return record(11, struct.pack('<QHIIIIQQ', sum(counts.values()), 0, 0, 0, 0, 0, 0, 0) + text(values))


def attachment(name):
    body = (
        struct.pack('<QQ', 0, 0) + text(name) + text('text/plain') + struct.pack('<Q', 2) + b'hi' + struct.pack('<I', 0)
    )
    return record(9, body)


def metadata(name, **values):
    return record(12, text(name) + pairs(values))


def write(path, *records, profile='ros2', summary=()):
    """Write a file with these records in its data section and in its summary."""
    data = MAGIC + record(1, text(profile) + text('by hand')) + b''.join(records) + record(15, bytes(4))
    start = len(data) if summary else 0
    path.write_bytes(data + b''.join(summary) + record(2, struct.pack('<QQI', start, 0, 0)) + MAGIC)
    return path

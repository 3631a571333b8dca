"""MCAP and SQLite recordings as trees: records and rows with their fields, so that lengths and checksums fit again.

MCAP: https://mcap.dev/spec. Chunks without compression are opened up, so that the messages in them are reached; a
compressed chunk is one block of bytes. The index of a changed file points to the old places, as it does in files that
a tool or a disk has damaged.
"""

from __future__ import annotations

import sqlite3
import struct
import tempfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

MAGIC = b'\x89MCAP0\r\n'
CHUNK = 6
FIELDS: dict[int, tuple[tuple[str, str], ...]] = {  # opcode -> names and types of the fields; what follows is `rest`
    1: (('profile', 'text'), ('library', 'text')),
    2: (('summary_start', 'u64'), ('summary_offset_start', 'u64'), ('crc', 'u32')),
    3: (('id', 'u16'), ('name', 'text'), ('encoding', 'text'), ('data', 'bytes')),
    4: (('id', 'u16'), ('schema_id', 'u16'), ('topic', 'text'), ('message_encoding', 'text'), ('metadata', 'map')),
    5: (('channel_id', 'u16'), ('sequence', 'u32'), ('log_time', 'u64'), ('publish_time', 'u64')),
    CHUNK: (
        ('start', 'u64'),
        ('end', 'u64'),
        ('size', 'u64'),
        ('crc', 'u32'),
        ('compression', 'text'),
        ('records', 'long'),
    ),
    7: (('channel_id', 'u16'),),
    8: (('start', 'u64'), ('end', 'u64'), ('offset', 'u64'), ('length', 'u64')),
    11: (('messages', 'u64'), ('schemas', 'u16'), ('channels', 'u32'), ('attachments', 'u32'), ('metadata', 'u32')),
    12: (('name', 'text'), ('metadata', 'map')),
    15: (('crc', 'u32'),),
}
_NUMBERS = {'u16': '<H', 'u32': '<I', 'u64': '<Q'}


def parse_mcap(data: bytes) -> Any:
    """Return the records of an MCAP file."""
    return {'records': _parse_records(data[len(MAGIC) : -len(MAGIC)])}


def _parse_records(data: bytes) -> list[Any]:
    records, at = [], 0
    while at + 9 <= len(data):
        opcode, length = struct.unpack_from('<BQ', data, at)
        records.append(_parse_record(opcode, data[at + 9 : at + 9 + length]))
        at += 9 + length
    return records


def _parse_record(opcode: int, content: bytes) -> dict[str, Any]:
    record: dict[str, Any] = {'opcode': opcode}
    at = 0
    for name, kind in FIELDS.get(opcode, ()):
        if kind in _NUMBERS:
            (record[name],) = struct.unpack_from(_NUMBERS[kind], content, at)
            at += struct.calcsize(_NUMBERS[kind])
            continue
        width = 8 if kind == 'long' else 4
        length = int.from_bytes(content[at : at + width], 'little')
        field = content[at + width : at + width + length]
        at += width + length
        record[name] = (
            _parse_map(field) if kind == 'map' else field.decode('utf-8', 'replace') if kind == 'text' else field
        )
    if opcode == CHUNK and not record['compression']:
        record['records'] = _parse_records(record['records'])
    record['rest'] = content[at:]
    return record


def _parse_map(data: bytes) -> dict[str, str]:
    texts, at = [], 0
    while at + 4 <= len(data):
        length = int.from_bytes(data[at : at + 4], 'little')
        texts.append(data[at + 4 : at + 4 + length].decode('utf-8', 'replace'))
        at += 4 + length
    return dict(zip(texts[::2], texts[1::2], strict=False))


def dump_mcap(tree: Any) -> bytes:
    """Return the file of a tree of `parse_mcap`; a value that does not fit its field is cut to fit."""
    return MAGIC + _dump_records(tree['records']) + MAGIC


def _dump_records(records: Any) -> bytes:
    if isinstance(records, bytes):
        return records
    return b''.join(_dump_record(each) for each in records if isinstance(each, dict) and 'opcode' in each)


def _dump_record(record: dict[str, Any]) -> bytes:
    opcode = int(record['opcode']) & 0xFF
    content = b''
    inner = b''
    if opcode == CHUNK:
        inner = _dump_records(record.get('records', b''))
        if isinstance(record.get('records'), list):
            record = {**record, 'size': record['size'], 'crc': zlib.crc32(inner)}
    for name, kind in FIELDS.get(opcode, ()):
        value = record.get(name)
        if kind in _NUMBERS:
            bits = 8 * struct.calcsize(_NUMBERS[kind])
            content += (int(value or 0) & (2**bits - 1)).to_bytes(bits // 8, 'little')
            continue
        field = inner if kind == 'long' else _field(kind, value)
        content += len(field).to_bytes(8 if kind == 'long' else 4, 'little') + field
    content += record['rest'] if isinstance(record.get('rest'), bytes) else b''
    return struct.pack('<BQ', opcode, len(content)) + content


def _field(kind: str, value: Any) -> bytes:
    if kind == 'map':
        pairs = value.items() if isinstance(value, dict) else ()
        texts = [str(each).encode('utf-8', 'surrogatepass') for pair in pairs for each in pair]
        return b''.join(len(each).to_bytes(4, 'little') + each for each in texts)
    return value if isinstance(value, bytes) else str(value).encode('utf-8', 'surrogatepass')


# SQLite


def parse_db3(data: bytes) -> Any:
    """Return the tables of an SQLite file: {table: {'sql': definition, 'rows': [[...]]}}."""

    def read(connection: sqlite3.Connection) -> Any:
        tables = connection.execute("SELECT name, sql FROM sqlite_master WHERE type = 'table'").fetchall()
        return {
            name: {'sql': sql, 'rows': [list(row) for row in connection.execute(f'SELECT * FROM {name}')]}
            for name, sql in tables
        }

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / 'file.db3'
        path.write_bytes(data)
        return _with_connection(path, read)


def dump_db3(tree: Any) -> bytes:
    """Return an SQLite file of the tables; a row that SQLite refuses is left out."""

    def write(connection: sqlite3.Connection) -> None:
        for name, table in tree.items():
            try:
                connection.execute(table['sql'])
            except (sqlite3.Error, sqlite3.Warning, TypeError, ValueError):
                continue
            for row in table.get('rows', ()):
                values = [each if isinstance(each, (int, float, str, bytes, type(None))) else str(each) for each in row]
                try:
                    marks = ', '.join('?' * len(values))
                    connection.execute(f'INSERT INTO {name} VALUES ({marks})', values)
                except (sqlite3.Error, OverflowError, ValueError):
                    continue
        connection.commit()

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / 'file.db3'
        _with_connection(path, write)
        return path.read_bytes()


def _with_connection(path: Path, use: Callable[[sqlite3.Connection], Any]) -> Any:
    connection = sqlite3.connect(path)
    try:
        return use(connection)
    finally:
        connection.close()

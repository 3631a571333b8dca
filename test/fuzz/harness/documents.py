"""File formats as trees of dicts, lists and scalars: `parse(name, data)` and `dump`, chosen by the name's ending.

A tree may say what its format cannot: then `dump` raises one of DUMP_ERRORS, and the file stays as it was.
"""

from __future__ import annotations

import json
import pickle
import sqlite3
import struct
import zlib
from collections.abc import Callable
from typing import Any, NamedTuple

import yaml
from harness.bag_formats import dump_db3, dump_mcap, parse_db3, parse_mcap

DUMP_ERRORS = (
    TypeError, ValueError, LookupError, AttributeError, ArithmeticError, RecursionError, EOFError, struct.error,
    sqlite3.Error, yaml.YAMLError, pickle.PickleError,
)  # fmt: skip
PNG_SIGNATURE = b'\x89PNG\r\n\x1a\n'


class Format(NamedTuple):
    """A format as two functions."""

    parse: Callable[[bytes], Any]
    dump: Callable[[Any], bytes]


def format_of(name: str) -> Format | None:
    """Return the format of a file name; None: bytes only."""
    for ending, known in FORMATS.items():
        if name.endswith(ending):
            return known
    return None


def _parse_json(data: bytes) -> Any:
    return json.loads(data)


def _dump_json(tree: Any) -> bytes:
    return json.dumps(tree).encode()


def _parse_lines(data: bytes) -> Any:
    return [json.loads(line) for line in data.splitlines() if line.strip()]


def _dump_lines(tree: Any) -> bytes:
    return b'\n'.join(json.dumps(each).encode() for each in tree) + b'\n'


def _parse_yaml(data: bytes) -> Any:
    return yaml.safe_load(data)


def _dump_yaml(tree: Any) -> bytes:
    return yaml.safe_dump(tree, sort_keys=False, allow_unicode=True).encode('utf-8', 'surrogatepass')


def _parse_text(data: bytes) -> Any:
    return data.decode().splitlines(keepends=True)


def _dump_text(tree: Any) -> bytes:
    return ''.join(each if isinstance(each, str) else str(each) for each in tree).encode('utf-8', 'surrogatepass')


# safetensors: eight bytes of length, a JSON header, and the numbers


def _parse_safetensors(data: bytes) -> Any:
    (length,) = struct.unpack('<Q', data[:8])
    return {'header': json.loads(data[8 : 8 + length]), 'numbers': data[8 + length :]}


def _dump_safetensors(tree: Any) -> bytes:
    header = json.dumps(tree['header']).encode()
    return struct.pack('<Q', len(header)) + header + (tree['numbers'] if isinstance(tree['numbers'], bytes) else b'')


# PNG: chunks, whose checksums are made right again, so that what follows them is reached


def _parse_png(data: bytes) -> Any:
    chunks, at = [], 8
    while at + 12 <= len(data):
        (length,) = struct.unpack('>I', data[at : at + 4])
        name, content = data[at + 4 : at + 8].decode('latin-1'), data[at + 8 : at + 8 + length]
        if name == 'IHDR':
            fields = struct.unpack('>IIBBBBB', content)
            keys = ('width', 'height', 'depth', 'color', 'compression', 'filter', 'interlace')
            chunks.append({'name': name, 'header': dict(zip(keys, fields, strict=True))})
        else:
            chunks.append({'name': name, 'content': content})
        at += 12 + length
    return chunks


def _dump_png(tree: Any) -> bytes:
    data = PNG_SIGNATURE
    for chunk in tree:
        content = struct.pack('>IIBBBBB', *chunk['header'].values()) if 'header' in chunk else chunk['content']
        body = chunk['name'].encode('latin-1')[:4].ljust(4) + content
        data += struct.pack('>I', len(content)) + body + struct.pack('>I', zlib.crc32(body))
    return data


# JPEG: segments up to the image data, with the fields of the frame header


def _parse_jpeg(data: bytes) -> Any:
    segments: list[Any] = []
    at = 2
    while at + 4 <= len(data) and data[at] == 0xFF:
        marker = data[at + 1]
        if marker == 0xDA:
            break
        (length,) = struct.unpack('>H', data[at + 2 : at + 4])
        content = data[at + 4 : at + 2 + length]
        if 0xC0 <= marker <= 0xC2:
            precision, height, width = struct.unpack('>BHH', content[:5])
            segments.append(
                {'marker': marker, 'precision': precision, 'height': height, 'width': width, 'rest': content[5:]}
            )
        else:
            segments.append({'marker': marker, 'content': content})
        at += 2 + length
    return {'segments': segments, 'scan': data[at:]}


def _dump_jpeg(tree: Any) -> bytes:
    data = b'\xff\xd8'
    for segment in tree['segments']:
        if 'height' in segment:
            size = struct.pack('>BHH', segment['precision'], segment['height'], segment['width'])
            content = size + segment['rest']
        else:
            content = segment['content']
        data += struct.pack('>BBH', 0xFF, segment['marker'], len(content) + 2) + content
    return data + tree['scan']


# NumPy: magic, version, and a header that is a Python literal


def _parse_npy(data: bytes) -> Any:
    (length,) = struct.unpack('<H', data[8:10])
    return {'header': data[10 : 10 + length].decode('latin-1'), 'numbers': data[10 + length :]}


def _dump_npy(tree: Any) -> bytes:
    header = str(tree['header']).encode('latin-1', 'replace')
    return b'\x93NUMPY\x01\x00' + struct.pack('<H', len(header)) + header + tree['numbers']


def _parse_pickle(data: bytes) -> Any:
    return pickle.loads(data)  # of a seed that the target made


def _dump_pickle(tree: Any) -> bytes:
    return pickle.dumps(tree, protocol=2)


FORMATS = {
    '.jsonl': Format(_parse_lines, _dump_lines),
    '.json': Format(_parse_json, _dump_json),
    '.yaml': Format(_parse_yaml, _dump_yaml),
    '.jinja': Format(_parse_text, _dump_text),
    '.txt': Format(_parse_text, _dump_text),
    '.safetensors': Format(_parse_safetensors, _dump_safetensors),
    '.png': Format(_parse_png, _dump_png),
    '.jpg': Format(_parse_jpeg, _dump_jpeg),
    '.mcap': Format(parse_mcap, dump_mcap),
    '.db3': Format(parse_db3, dump_db3),
    '.p': Format(_parse_pickle, _dump_pickle),
    '.npy': Format(_parse_npy, _dump_npy),
}

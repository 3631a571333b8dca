"""Random access to the records of a JSON array or of JSON lines, without parsing the file as a whole.

The file is scanned once for the byte range of each record; a record is parsed when it is read. This replaces a
streaming parser such as ijson for two reasons: a streaming parser stops at the first syntax error, whereas one
malformed record must not make the records after it unreadable, and it does not report byte offsets, which shuffled
access needs.
"""

import json
import mmap
import re
from array import array
from pathlib import Path
from typing import Any

import numpy as np

from instructsam.core.errors import DataError
from instructsam.core.files.regular_file import open_regular_file
from instructsam.train.data.record_fields import RecordError

_EMPTY_ARRAY = re.compile(rb'(?:\xef\xbb\xbf)?\s*\[\s*\]\s*')
_OPENING = re.compile(rb'(?:\xef\xbb\xbf)?\s*(\[\s*)?')
_SEPARATOR = re.compile(rb'\s*([,\]])\s*')
_SPACE = re.compile(rb'\s*')
_SCALAR = re.compile(rb'[^\s"\[\]{},:]+')
_STRING_OR_BRACKET = re.compile(
    rb'[^"\[\]{}]*(?:(?P<string>"[^"\\]*(?:\\.[^"\\]*)*")|(?P<open>[\[{])|(?P<close>[\]}])|(?P<unterminated>"))',
    re.DOTALL,
)


class RecordFile:
    """The records of a JSON array or of JSON lines, each parsed when it is accessed.

    A copy sent to another process maps the file again.
    """

    def __init__(self, path: str | Path):
        """Scan the file.

        Raises:
            DataError: If the file is missing, truncated, or neither a JSON array nor JSON lines.
        """
        self.path = Path(path)
        self._bytes: mmap.mmap | None = None
        # Byte range [start, end) of each record.
        self.bounds = np.array(_scan(self.path, self._mapped()), dtype=np.int64).reshape(-1, 2)

    def __len__(self) -> int:
        return len(self.bounds)

    def __getitem__(self, number: int) -> Any:
        start, end = self.bounds[number]
        try:
            return json.loads(self._mapped()[start:end])
        except (ValueError, RecursionError) as error:
            raise RecordError(f'not valid JSON: {error}') from error

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), '_bytes': None}

    def _mapped(self) -> mmap.mmap:
        if self._bytes is None:
            try:
                with open_regular_file(self.path) as file:
                    self._bytes = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
            except OSError as error:
                raise DataError(f'{self.path} cannot be read: {error.strerror or error}') from error
        return self._bytes


def _scan(path: Path, data: mmap.mmap) -> array:
    """Return start, end, start, end, ... of the records in the bytes `data`."""
    bounds = array('q')
    if _EMPTY_ARRAY.fullmatch(data):
        return bounds
    opening = _OPENING.match(data)
    assert opening is not None  # every part of the pattern is optional
    position, is_array = opening.end(), opening[1] is not None
    if not is_array and data[position : position + 1] != b'{':
        start = data[position : position + 20]
        raise DataError(f'{path} is neither a JSON array of records nor JSON lines: it starts with {start!r}')
    has_more = True
    while has_more:
        end = _value_end(data, position)
        separator = (_SEPARATOR if is_array else _SPACE).match(data, end) if end is not None else None
        if end is None or separator is None:
            number = len(bounds) // 2
            raise DataError(f'{path} is truncated or not valid JSON: see record {number}, from byte {position:,} on')
        bounds.extend((position, end))
        position = separator.end()
        has_more = separator[1] == b',' if is_array else position < len(data)
    if position < len(data):
        raise DataError(f'{path} continues after its array: {data[position : position + 20]!r}')
    if not is_array and len(bounds) == 2 and path.suffix != '.jsonl':
        raise DataError(f'{path} holds one JSON object, not an array of records')
    return bounds


def _value_end(data: mmap.mmap, start: int) -> int | None:
    """Return the end of the JSON value that starts at `start`, or None if no value ends there."""
    scalar = _SCALAR.match(data, start)
    if scalar:
        return scalar.end()
    if data[start : start + 1] not in (b'"', b'[', b'{'):
        return None
    depth = 0
    for token in _STRING_OR_BRACKET.finditer(data, start):
        if token['unterminated']:
            return None
        if token['open']:
            depth += 1
        elif token['close']:
            depth -= 1
        if depth == 0:
            return token.end()
    return None

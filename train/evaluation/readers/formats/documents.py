"""JSON and JSON Lines files, read completely or refused."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from instructsam.core.errors import DataError
from instructsam.core.files.regular_file import read_regular_file

Record = dict[str, Any]

MAX_BYTES = 1 << 30
"""Largest file: parsed, it takes several times its size. The largest one of the benchmarks has about 500 MB."""


def read_json(path: Path) -> Any:
    """Return the content of a JSON file.

    Raises:
        DataError: The file cannot be read, or is not JSON.
    """
    return _parse(_read(path), str(path))


def read_records(path: Path) -> list[Record]:
    """Return the objects in the list of a JSON file, or on the lines of a JSONL file.

    An entry that is not an object becomes {}: the reader then reports all of its keys as missing.

    Raises:
        DataError: The file cannot be read, or has no records.
    """
    if path.suffix == '.jsonl':
        lines = enumerate(_read(path).splitlines(), start=1)
        records = [_parse(line, f'{path}, line {number},') for number, line in lines if line.strip()]
    else:
        records = read_json(path)
    if not isinstance(records, list):
        raise DataError(f'{path} holds a {type(records).__name__}, expected a list of records')
    if not records:
        raise DataError(f'{path} is empty: it has no record')
    return [record if isinstance(record, dict) else {} for record in records]


def any_has(records: Iterable[Record], *keys: str) -> bool:
    """Return whether any record has all `keys`: one broken record must not hide a file's layout."""
    return any(all(key in record for key in keys) for record in records)


def _read(path: Path) -> bytes:
    try:
        return read_regular_file(path, MAX_BYTES)
    except OSError as error:
        raise DataError(f'cannot read {path}: {error.strerror or error}') from error


def _parse(content: bytes, where: str) -> Any:
    try:
        return json.loads(content)
    except (ValueError, RecursionError) as error:
        raise DataError(
            f'{where} is not valid JSON: {error}. If it is truncated, download or convert it again'
        ) from error

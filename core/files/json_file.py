"""JSON files: reading untrusted ones, of bounded size and with finite numbers of 64 bits, and writing our own."""

import json
import math
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from instructsam.core.atomic_write import check_path, write_text
from instructsam.core.files.regular_file import read_regular_file

MAX_BYTES = 16 << 20
MAX_INTEGER = 2**63 - 1


def read_json_object(path: str | Path, max_bytes: int = MAX_BYTES) -> dict[str, Any]:
    """Return the object in a JSON file.

    Raises:
        OSError: The file cannot be read, is not a regular file, is empty or has more than `max_bytes`.
        ValueError: It does not hold a JSON object, or a number in it is not finite or has more than 64 bits.
    """
    content = read_regular_file(path, max_bytes)
    try:
        value = json.loads(content, parse_constant=_number, parse_float=_number, parse_int=_integer)
    except RecursionError as error:
        raise ValueError('it is nested too deeply') from error
    if not isinstance(value, dict):
        raise ValueError(f'it holds a JSON {type(value).__name__}, expected a JSON object')
    return value


def write_json(path: str | Path, document: Any) -> None:
    """Write a JSON file completely or not at all, or to stdout if `path` is '-'. Raises StorageError."""
    text = json.dumps(document, indent=1) + '\n'
    if path == '-':
        sys.stdout.write(text)
    else:
        write_text(path, text)


def check_json_path(path: str | Path | None, taken: Iterable[Path | str] = ()) -> None:
    """Raise InstructSAMError if `write_json` could not write `path`, see check_path; stdout and None need no check."""
    if path not in (None, '-'):
        check_path(path, taken)


def _number(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f'{text} is not a finite number')
    return value


def _integer(text: str) -> int:
    value = int(text)
    if abs(value) > MAX_INTEGER:
        raise ValueError(f'{text[:40]} has more than 64 bits')
    return value

"""JSON and JSON Lines files, whole or refused."""

import json

from instructsam.core.errors import DataError


def read_json(path):
    """What a JSON file holds. Raises DataError."""
    return _loads(_read(path), path)


def read_records(path):
    """The objects in the list of a JSON file, or on the lines of a JSONL file. Raises DataError, also for none.

    What is no object is {}: the reader then finds everything missing, and says so.
    """
    if path.suffix == '.jsonl':
        lines = enumerate(_read(path).splitlines(), start=1)
        records = [_loads(line, f'{path}, line {number},') for number, line in lines if line.strip()]
    else:
        records = read_json(path)
    if not isinstance(records, list):
        raise DataError(f'{path} holds a {type(records).__name__}, expected a list of records')
    if not records:
        raise DataError(f'{path} is empty: it has no record')
    return [record if isinstance(record, dict) else {} for record in records]


def have(records, *keys):
    """Whether any of the records has all `keys`: one broken record does not hide a file's layout."""
    return any(all(key in record for key in keys) for record in records)


def _read(path):
    try:
        return path.read_bytes()
    except OSError as error:
        raise DataError(f'cannot read {path}: {error.strerror or error}') from error


def _loads(content, where):
    try:
        return json.loads(content)
    except (ValueError, RecursionError) as error:
        raise DataError(f'{where} is no JSON: {error}. Is it cut short? Download or make it again') from error

"""Reads pickled data without executing code: everything except plain values is refused."""

import io
import pickle
from pathlib import Path
from typing import Any, NoReturn

from instructsam.core.errors import DataError
from instructsam.core.files.regular_file import read_regular_file
from instructsam.train.evaluation.readers.formats.documents import MAX_BYTES


class _PlainUnpickler(pickle._Unpickler):  # pyright: ignore[reportAttributeAccessIssue]  # the one in Python
    """Builds lists, dicts, tuples, texts, bytes and numbers, which need no class or function by name.

    The unpickler in C takes memory for the largest number of a memo in the file, up to 64 GB for five bytes; the one in
    Python has a dict in its place.
    """

    def find_class(self, module: str, name: str) -> NoReturn:
        raise pickle.UnpicklingError(f'it asks for {module}.{name}')

    def persistent_load(self, pid: object) -> NoReturn:
        raise pickle.UnpicklingError(f'it asks for the external object {str(pid)[:60]!r}')


def read_pickle(path: Path) -> Any:
    """Return the content of a pickle of any protocol, including the texts of Python 2.

    Raises:
        DataError: The file is missing, broken, or holds something other than plain values.
    """
    try:
        try:
            return _load(path, 'utf-8')
        except UnicodeDecodeError:
            return _load(path, 'latin1')
    except Exception as error:  # a broken pickle raises almost any exception
        raise DataError(
            f'cannot read {path}: {error or type(error).__name__}. Expected a complete pickle of plain lists, dicts, '
            'texts and numbers; nothing else is loaded from one. Download it again'
        ) from error


def _load(path: Path, encoding: str) -> Any:
    return _PlainUnpickler(io.BytesIO(read_regular_file(path, MAX_BYTES)), encoding=encoding).load()

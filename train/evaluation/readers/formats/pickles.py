"""Reads pickled data without executing code: everything except plain values is refused."""

import io
import pickle
from pathlib import Path
from typing import Any, ClassVar, NoReturn, cast

from instructsam.core.errors import DataError
from instructsam.core.files.regular_file import read_regular_file
from instructsam.core.text import shorten
from instructsam.train.evaluation.readers.formats.documents import MAX_BYTES

MAX_DEPTH = 32
"""Deepest nesting of containers; those of RefCOCO have 5 levels."""

KEYS = (str, bytes, float, type(None))
LARGEST_KEY = 1 << 64
REFUSED = b''.join(
    (
        *(pickle.EMPTY_SET, pickle.FROZENSET, pickle.ADDITEMS, pickle.BYTEARRAY8),
        *(pickle.REDUCE, pickle.BUILD, pickle.OBJ, pickle.NEWOBJ, pickle.NEWOBJ_EX),
        *(pickle.EXT1, pickle.EXT2, pickle.EXT4),
    )
)
"""Operations that make sets or objects."""


_Unpickler: Any = cast(Any, pickle)._Unpickler  # the one in Python, of which typeshed knows nothing


class _PlainUnpickler(_Unpickler):
    """Builds lists, dicts, tuples, texts, bytes and numbers, which need no class or function by name.

    The unpickler in C takes memory for the largest number of a memo in the file, up to 64 GB for five bytes; the one in
    Python has a dict in its place.

    A key of a dict is a text, bytes or a number. To hash a tuple visits all that is in it, which overflows the C stack
    if it is nested deeply and takes for ever if a few bytes make it hold itself twice, 40 times over.
    """

    dispatch: ClassVar[dict[int, Any]] = dict(_Unpickler.dispatch)

    def find_class(self, module: str, name: str) -> NoReturn:
        raise pickle.UnpicklingError(f'it asks for {module}.{name}')

    def persistent_load(self, pid: object) -> NoReturn:
        shown = shorten(pid, 60) if isinstance(pid, str) else f'of type {type(pid).__name__}'
        raise pickle.UnpicklingError(f'it asks for the external object {shown}')

    def load_setitem(self) -> None:
        _check_keys(self.stack[-2:-1])
        super().load_setitem()

    dispatch[pickle.SETITEM[0]] = load_setitem

    def load_setitems(self) -> None:
        _check_keys(self.stack[::2])
        super().load_setitems()

    dispatch[pickle.SETITEMS[0]] = load_setitems

    def load_dict(self) -> None:
        _check_keys(self.stack[::2])
        super().load_dict()

    dispatch[pickle.DICT[0]] = load_dict

    def load_object(self) -> NoReturn:
        raise pickle.UnpicklingError('it holds a set, a bytearray or an object')

    dispatch.update(dict.fromkeys(REFUSED, load_object))


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
    content = read_regular_file(path, MAX_BYTES)
    value = _PlainUnpickler(io.BytesIO(content), encoding=encoding).load()
    _check_size(value, len(content))
    return value


def _check_keys(keys: list[Any]) -> None:
    for key in keys:
        if not isinstance(key, KEYS) and not (isinstance(key, int) and abs(key) < LARGEST_KEY):
            raise pickle.UnpicklingError(f'a key of a dict is a {type(key).__name__}, not a text or a number')


def _check_size(value: Any, limit: int) -> None:
    """Refuse what would not end, or not fit the stack, when it is visited: a value counts each time it is referred to.

    Args:
        value: The content of the pickle.
        limit: Largest number of values: the bytes of the file, of which each value takes at least one.
    """
    count, levels = 0, [iter((value,))]
    while levels:
        for each in levels[-1]:
            if isinstance(each, list | tuple | dict):
                count += len(each)
                if count > limit or len(levels) > MAX_DEPTH:
                    raise pickle.UnpicklingError(
                        f'its values are nested more than {MAX_DEPTH} deep, or repeated to more than {limit:,}'
                    )
                levels.append(iter(each.values() if isinstance(each, dict) else each))
                break
        else:
            levels.pop()

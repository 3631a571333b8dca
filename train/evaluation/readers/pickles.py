"""Pickled data without running what a pickle asks for: anything but plain values is refused."""

import pickle

from instructsam.core.errors import DataError


class _PlainUnpickler(pickle.Unpickler):
    """Builds lists, dicts, tuples, texts, bytes and numbers, which need nothing by name."""

    def find_class(self, module, name):
        raise pickle.UnpicklingError(f'it asks for {module}.{name}')

    def persistent_load(self, pid):
        raise pickle.UnpicklingError(f'it asks for the outside object {str(pid)[:60]!r}')


def read_pickle(path):
    """What a pickle of any protocol holds, Python 2's texts included. Raises DataError."""
    try:
        try:
            return _load(path, 'utf-8')
        except UnicodeDecodeError:
            return _load(path, 'latin1')
    except Exception as error:  # a broken pickle raises nearly anything
        raise DataError(
            f'cannot read {path}: {error or type(error).__name__}. Expected is a whole pickle of plain lists, dicts, '
            'texts and numbers, and nothing else is loaded from one. Download it again'
        ) from error


def _load(path, encoding):
    with open(path, 'rb') as file:
        return _PlainUnpickler(file, encoding=encoding).load()

"""A dict that keeps only its newest entries."""

from collections import OrderedDict
from typing import TypeVar

Key = TypeVar('Key')
Value = TypeVar('Value')


class NewestDict(OrderedDict[Key, Value]):
    """Dict in order of assignment that drops its oldest entry when it holds more than `size`."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self._size = size

    def __setitem__(self, key: Key, value: Value) -> None:
        super().__setitem__(key, value)
        self.move_to_end(key)
        if len(self) > self._size:
            self.popitem(last=False)

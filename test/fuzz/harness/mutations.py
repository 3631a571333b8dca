"""Mutations of valid inputs, by structure and by bytes: plain JSON values that can be stored and applied again.

A `Change` names no path of one particular input. Its position `at`, 0 to 1, selects among the places that the input has
when the change is applied, so that the same strategy serves every seed, and changes follow one another.

Hypothesis draws changes; `apply` is ordinary code, so that a stored example is reproduced without Hypothesis.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from hypothesis import strategies as st

INTEGERS = (
    0, 1, -1, 2, 3, 7, 10, 100, 127, 128, 255, 256, 1000, 32767, 65535, 65536, 10**6, 2**31 - 1, 2**31, 2**32 - 1,
    2**32, 10**10, 2**63 - 1, 2**63, 2**64, 10**20, 10**400, -2, -(2**31), -(2**63), -(10**20),
)  # fmt: skip
FLOATS = (
    math.nan, math.inf, -math.inf, 0.0, -0.0, 0.5, -0.5, 1e-3, 1e-9, 5e-324, 1e9, 1e10, 3e38, 1e39, 1.7e308,
    -1e300, 1e-45,
)  # fmt: skip
TEXTS = (
    '', ' ', '\0', '\n', '\r\n', '\t', '\x1b[2J\x1b[31m', '\x7f', 'nan', 'inf', '-1', '1e400', '0x10', 'null',
    'true', '~', '/', '.', '..', '../..', '../../etc/passwd', '/dev/zero', '/proc/self/mem', 'CON', 'C:\\x\\y.png',
    'a' * 300, '\ud800', '\u202e abc', '\ufeff', '\U0001f600\U0001f9d1\u200d\U0001f680', 'e\u0301' * 50,
    '\u0645\u0631\u062d\u0628\u0627', '\ufffe', '%s%n', '{0}', '{', '{{ 7 * 7 }}',
    '{% for a in range(99999) %}{% for b in range(99999) %}x{% endfor %}{% endfor %}', '$(id)', '`id`',
    "__import__('os')", '!!python/object:os.system', '&a [*a]', '<image>', '[SEG]', '<|image_pad|>',
    '<|object_ref_start|>', '<script>', 'mono8', '32FC1', 'rgb8', 'float64', 'bfloat16', 'cuda', 'meta',
)  # fmt: skip
OTHERS: tuple[Any, ...] = (
    None, True, False, [], {}, [[]], [None], {'': None}, {'a': {'a': {}}}, [0] * 100, ['x'] * 10, [math.nan],
    {'$long': ['a', 200_000]}, {'$long': ['\u20ac', 50_000]}, {'$list': [0, 50_000]}, {'$nested': ['list', 40]},
    {'$nested': ['dict', 100]},
)  # fmt: skip

TREE_OPERATIONS = ('set', 'retype', 'scale', 'delete', 'repeat', 'rename', 'swap', 'wrap', 'add')
BYTE_OPERATIONS = ('flip', 'cut', 'insert', 'truncate', 'overwrite', 'duplicate', 'zero', 'brackets')
FILE_OPERATIONS = (
    'remove',
    'empty',
    'exchange',
    'folder',
    'fifo',
    'loop',
    'device',
    'unreadable',
    'absent_link',
    'long',
)


@dataclass(frozen=True)
class Change:
    """One mutation.

    Attributes:
        operation: One of the operations above.
        file: Position, 0 to 1, among the files of the input.
        at: Position, 0 to 1, among the places in the file.
        value: Argument of the operation.
    """

    operation: str
    file: float
    at: float
    value: Any = None

    def to_json(self) -> dict[str, Any]:
        """Return the change as a JSON object."""
        return asdict(self)

    @classmethod
    def from_json(cls, raw: dict[str, Any]) -> Change:
        """Return the change of `to_json`."""
        return cls(**raw)


# Strategies


def values() -> st.SearchStrategy[Any]:
    """Return a strategy for a value of JSON: boundary values above all."""
    scalars = st.one_of(
        st.sampled_from(INTEGERS),
        st.sampled_from(FLOATS),
        st.sampled_from(TEXTS),
        st.sampled_from(OTHERS),
        st.integers(-1000, 1000),
        st.floats(allow_nan=True),
        st.text(max_size=12),
    )
    return scalars | st.lists(scalars, max_size=4) | st.dictionaries(st.text(max_size=5), scalars, max_size=3)


_positions = st.floats(0, 1, exclude_max=True, allow_subnormal=False, width=32)


def tree_changes() -> st.SearchStrategy[Change]:
    """Return a strategy for a change of structure."""
    return st.builds(Change, st.sampled_from(TREE_OPERATIONS), _positions, _positions, values())


def byte_changes() -> st.SearchStrategy[Change]:
    """Return a strategy for a change of bytes; its value is (number, hexadecimal bytes)."""
    number = st.integers(1, 64) | st.sampled_from((256, 4096, 100_000))
    inserted = st.binary(min_size=1, max_size=8) | st.sampled_from(
        [size.to_bytes(width, 'little') for width in (1, 2, 4, 8) for size in (0, 1, 2 ** (8 * width) - 1)]
        + [b'\xff\xff\xff\x7f', b'\x7f\xff\xff\xff', b'\0' * 64, b'"', b'}', b'\n', b'\xff\xfe', b'\xef\xbb\xbf']
    )
    return st.builds(
        Change, st.sampled_from(BYTE_OPERATIONS), _positions, _positions, st.tuples(number, inserted.map(bytes.hex))
    )


def file_changes() -> st.SearchStrategy[Change]:
    """Return a strategy for a change of a file as a whole."""
    return st.builds(Change, st.sampled_from(FILE_OPERATIONS), _positions, _positions)


def changes(
    *, files: bool = True, most: int = 3, structure: int = 6, of_bytes: int = 3
) -> st.SearchStrategy[list[Change]]:
    """Return a strategy for the changes of one example; one example in about ten has none, and is valid.

    Args:
        files: Also change files as a whole.
        most: Largest number of changes.
        structure: Weight of changes of structure.
        of_bytes: Weight of changes of bytes; a change of a file has 1.
    """
    kinds = [tree_changes()] * structure + [byte_changes()] * of_bytes + [file_changes()] * files
    change = st.sampled_from(kinds).flatmap(lambda kind: kind)
    several = st.lists(change, min_size=1, max_size=most)
    return st.integers(0, 4).flatmap(lambda number: st.just([]) if number == 0 else several)


# Trees


def expand(value: Any) -> Any:
    """Return a drawn value with its abbreviations written out."""
    if isinstance(value, dict) and len(value) == 1:
        if '$long' in value:
            text, count = value['$long']
            return text * count
        if '$list' in value:
            item, count = value['$list']
            return [item] * count
        if '$nested' in value:
            kind, depth = value['$nested']
            nested: Any = 0
            for _ in range(depth):
                nested = [nested] if kind == 'list' else {'a': nested}
            return nested
    if isinstance(value, list):
        return [expand(each) for each in value]
    return {name: expand(each) for name, each in value.items()} if isinstance(value, dict) else value


Place = tuple[Any, Any]  # container, key


def places(tree: Any) -> list[Place]:
    """Return every place of a tree of dicts and lists, outermost first; long lists by their first and last items."""
    found: list[Place] = []
    todo = [tree]
    while todo:
        node = todo.pop(0)
        if isinstance(node, dict):
            keys: list[Any] = list(node)
        elif isinstance(node, list):
            keys = list(range(len(node))) if len(node) <= 40 else [*range(20), *range(len(node) - 20, len(node))]
        else:
            continue
        for key in keys:
            found.append((node, key))
            todo.append(node[key])
    return found


def change_tree(tree: Any, change: Change) -> Any:
    """Return a copy of `tree` with the change applied."""
    root = [copy.deepcopy(tree)]
    found = [(root, 0), *places(root[0])]
    # The root is one place like any other, but rarely the interesting one: position 0 alone selects it.
    container, key = found[0] if change.at == 0 or len(found) == 1 else found[1 + int(change.at * (len(found) - 1))]
    _TREE[change.operation](container, key, expand(change.value), found)
    return root[0] if root else None


def _set(container: Any, key: Any, value: Any, _: list[Place]) -> None:
    container[key] = value


def _retype(container: Any, key: Any, value: Any, _: list[Place]) -> None:
    """Give the value another type of about the same meaning."""
    old = container[key]
    choices: list[Any] = [str(old)[:10_000], [old], {'value': old}, None, bool(old)]
    if isinstance(old, (int, float)) and not isinstance(old, bool):
        is_small = abs(old) < 1e300  # an integer above the range of floats has neither a float nor a half more
        choices += [float(old), int(old), old + 0.5] if is_small else [math.inf, 0]
    if isinstance(old, str):
        choices += [0, list(old[:100]), old.encode('utf-8', 'replace').hex()]
    if isinstance(old, dict):
        choices += [list(old.values()), list(old), [[name, each] for name, each in old.items()]]
    if isinstance(old, list) and old:
        choices += [old[0], {str(number): each for number, each in enumerate(old[:50])}]
    container[key] = choices[hash_of(value) % len(choices)]


def _scale(container: Any, key: Any, value: Any, found: list[Place]) -> None:
    """Change a number by a little or by orders of magnitude; without a number there, the next one in the tree."""
    for where, name in [(container, key), *found]:
        old = where[name]
        if isinstance(old, (int, float)) and not isinstance(old, bool):
            edits: list[Callable[[Any], Any]] = [
                lambda n: n + 1, lambda n: n - 1, lambda n: -n, lambda n: n * 2, lambda n: n * 10, lambda n: n * 1000,
                lambda n: n * 10**9, lambda n: n / 3, lambda n: n * 1.0001, lambda n: n // 2 if n == n else n,
            ]  # fmt: skip
            try:
                where[name] = edits[hash_of(value) % len(edits)](old)
            except (OverflowError, ValueError):
                where[name] = math.inf
            return


def _delete(container: Any, key: Any, *_: Any) -> None:
    del container[key]


def _repeat(container: Any, key: Any, value: Any, _: list[Place]) -> None:
    """Repeat an element beside itself, or the contents of a list or text."""
    old = container[key]
    count = (2, 3, 50)[hash_of(value) % 3]
    if isinstance(container, list) and len(container) < 5000:
        container[key + 1 : key + 1] = [copy.deepcopy(old) for _ in range(count - 1)]
    elif isinstance(old, (str, list)) and len(old) < 5000:
        container[key] = old * count
    elif isinstance(container, dict):
        container[f'{key}_'] = copy.deepcopy(old)


def _rename(container: Any, key: Any, value: Any, _: list[Place]) -> None:
    if isinstance(container, dict):
        names = [f'{key} ', str(key).upper(), f'{key}\0', str(key)[:-1], 'x' * 300, '', '\u202e', f'_{key}']
        container[value if isinstance(value, str) else names[hash_of(value) % len(names)]] = container.pop(key)


def _swap(container: Any, key: Any, value: Any, found: list[Place]) -> None:
    """Put a copy of another part of the tree there."""
    other, name = found[hash_of(value) % len(found)]
    container[key] = copy.deepcopy(other[name])


def _wrap(container: Any, key: Any, value: Any, _: list[Place]) -> None:
    for _ in range((1, 2, 50)[hash_of(value) % 3]):
        container[key] = [container[key]]


def _add(container: Any, key: Any, value: Any, _: list[Place]) -> None:
    old = container[key]
    if isinstance(old, dict):
        old['added'] = value
    elif isinstance(old, list):
        old.append(value)
    elif isinstance(old, str):
        container[key] = old + (value if isinstance(value, str) else str(value)[:1000])
    elif isinstance(container, dict):
        container['added'] = value


_TREE: dict[str, Callable[[Any, Any, Any, list[Place]], None]] = {
    'set': _set, 'retype': _retype, 'scale': _scale, 'delete': _delete, 'repeat': _repeat, 'rename': _rename,
    'swap': _swap, 'wrap': _wrap, 'add': _add,
}  # fmt: skip


def hash_of(value: Any) -> int:
    """Return a number that depends on the value alone, the same in every process."""
    return sum((number + 1) * ord(letter) for number, letter in enumerate(repr(value)[:200]))


# Bytes


def change_bytes(data: bytes, change: Change) -> bytes:
    """Return `data` with a change of bytes applied."""
    number, text = change.value
    inserted = bytes.fromhex(text)
    at = int(change.at * (len(data) + 1))
    if change.operation == 'flip':
        return data if at >= len(data) else data[:at] + bytes([data[at] ^ (1 << (number % 8))]) + data[at + 1 :]
    if change.operation == 'cut':
        return data[:at] + data[at + number :]
    if change.operation == 'insert':
        return data[:at] + inserted + data[at:]
    if change.operation == 'truncate':
        return data[:at]
    if change.operation == 'overwrite':
        return data[:at] + inserted + data[at + len(inserted) :]
    if change.operation == 'duplicate':
        return data[: at + number] + data[at:]
    if change.operation == 'brackets':  # nesting deeper than any stack
        return data[:at] + b'[' * number + data[at:]
    return data[:at] + b'\0' * min(number, len(data) - at) + data[at + number :]  # zero

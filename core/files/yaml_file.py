"""YAML from outside: regular files of limited size, and one type of error for everything that PyYAML raises.

A document is composed and counted before its values are made, because a short one can ask for unlimited work: aliases
and merge keys that stand for billions of values, and numbers to the base of 60, for which PyYAML takes quadratic time.
YAML 1.2 has no such numbers: `1:30` is text here.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from instructsam.core.errors import InstructSAMError
from instructsam.core.files.regular_file import read_regular_file
from instructsam.core.text import shorten

MAX_BYTES = 4 << 20

MAX_VALUES = 100_000
"""Largest number of values of a document, counted with its aliases written out.

A page of aliases can stand for billions of values, which whoever copies or prints the document would write out.
"""


LONGEST_NUMBER = 1000
"""Characters of a number; Python refuses to print much longer ones."""

INT, FLOAT, STR = (f'tag:yaml.org,2002:{kind}' for kind in ('int', 'float', 'str'))


class YamlError(InstructSAMError, ValueError):
    """The document cannot be read or is not YAML; the message begins with its name."""


def read_yaml(path: str | Path, max_bytes: int = MAX_BYTES, max_values: int = MAX_VALUES) -> Any:
    """Return the content of a YAML file in UTF-8.

    Raises YamlError if it cannot be read, is not a regular file or has more than `max_bytes`, and as `parse_yaml` does.
    """
    try:
        content = read_regular_file(path, max_bytes)
    except OSError as error:
        raise YamlError(f'{path} cannot be read: {error.strerror or error}') from error
    try:
        text = content.decode('utf-8-sig')
    except UnicodeDecodeError as error:
        raise YamlError(f'{path} is not a text file in UTF-8: {error}') from error
    return parse_yaml(text, str(path), max_values)


def parse_yaml(text: str, name: str, max_values: int = MAX_VALUES) -> Any:
    """Return the value of a YAML document of plain types.

    Raises YamlError, which begins with `name`, if it is not YAML, contains itself or has more than `max_values`.
    """
    try:
        loader = _Loader(text)
        try:
            node = loader.get_single_node()
            _check(node, name, max_values)
            return None if node is None else loader.construct_document(node)
        finally:
            loader.dispose()
    except YamlError:
        raise
    except Exception as error:  # PyYAML raises ValueError, KeyError, IndexError... for values that do not fit their tag
        raise YamlError(f'{name} is not valid YAML: {shorten(error)}') from error


class _Loader(getattr(yaml, 'CSafeLoader', yaml.SafeLoader)):  # type: ignore[misc]
    def resolve(self, kind: type[yaml.Node], value: str, implicit: Any) -> str:
        tag = super().resolve(kind, value, implicit)
        return STR if tag in (INT, FLOAT) and ':' in value else tag


def _check(root: yaml.Node | None, name: str, max_values: int) -> None:
    """Raise YamlError if a composed document asks for unlimited work."""
    waiting, count = [] if root is None else [root], 1
    while waiting:
        node = waiting.pop()
        if isinstance(node, yaml.ScalarNode):
            if node.tag in (INT, FLOAT) and (':' in node.value or len(node.value) > LONGEST_NUMBER):
                raise YamlError(f'{name} is not valid YAML: {shorten(node.value)} is not a number')
            continue
        children = node.value
        if isinstance(node, yaml.MappingNode):
            children = [each for pair in node.value for each in pair]
        count += len(node.value)  # a key and its value are one
        if count > max_values:
            raise YamlError(f'{name} has more than {max_values:,} values, counted with its aliases; write fewer')
        waiting += children

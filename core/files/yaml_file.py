"""YAML from outside: regular files of limited size, and one type of error for everything that PyYAML raises."""

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


class YamlError(InstructSAMError, ValueError):
    """The document cannot be read or is not YAML; the message begins with its name."""


def read_yaml(path: str | Path) -> Any:
    """Return the content of a YAML file in UTF-8.

    Raises YamlError if it cannot be read, is no regular file or has more than MAX_BYTES, and as `parse_yaml` does.
    """
    try:
        content = read_regular_file(path, MAX_BYTES)
    except OSError as error:
        raise YamlError(f'{path} cannot be read: {error.strerror or error}') from error
    try:
        text = content.decode('utf-8-sig')
    except UnicodeDecodeError as error:
        raise YamlError(f'{path} is not a text file in UTF-8: {error}') from error
    return parse_yaml(text, str(path))


def parse_yaml(text: str, name: str) -> Any:
    """Return the value of a YAML document of plain types.

    Raises YamlError, which begins with `name`, if it is not YAML, contains itself or has more than MAX_VALUES.
    """
    try:
        value = yaml.safe_load(text)
    except Exception as error:  # PyYAML raises ValueError, KeyError, IndexError... for values that do not fit their tag
        raise YamlError(f'{name} is not valid YAML: {shorten(error)}') from error
    waiting, count = [value], 0
    while waiting:
        each = waiting.pop()
        count += 1
        if count > MAX_VALUES:
            raise YamlError(f'{name} has more than {MAX_VALUES:,} values, counted with its aliases; write fewer')
        if isinstance(each, dict):
            waiting += each.values()
        elif isinstance(each, (list, tuple, set)):
            waiting += each
    return value

"""An example of a target: a valid seed input, the changes to it, and options; stored as JSON."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from harness.documents import DUMP_ERRORS, format_of
from harness.mutations import BYTE_OPERATIONS, FILE_OPERATIONS, Change, change_bytes, change_tree

Files = Mapping[str, bytes]

LONG_BYTES = 3 << 30


@dataclass(frozen=True)
class Example:
    """One input of a target.

    Attributes:
        seed: Name of the valid input.
        changes: Mutations of it, applied in order; none leaves it valid.
        options: Further choices of the target, such as the command and its arguments.
    """

    seed: str
    changes: tuple[Change, ...] = ()
    options: dict[str, Any] = field(default_factory=dict)

    def to_json(self) -> str:
        """Return the example as a JSON document."""
        raw = {
            'seed': self.seed,
            'changes': [change.to_json() for change in self.changes],
            'options': self.options,
        }
        return json.dumps(raw, indent=1)

    @classmethod
    def from_json(cls, text: str) -> Example:
        """Return the example of `to_json`."""
        raw = json.loads(text)
        return cls(raw['seed'], tuple(map(Change.from_json, raw['changes'])), raw['options'])

    def without(self, number: int) -> Example:
        """Return the example without one of its changes."""
        return replace(self, changes=self.changes[:number] + self.changes[number + 1 :])


def change_document(name: str, data: bytes, change: Change) -> bytes:
    """Return a file's contents with the change applied, unless its format cannot hold the result."""
    if change.operation in BYTE_OPERATIONS:
        return change_bytes(data, change)
    known = format_of(name)
    if known is None:
        return data
    try:
        return known.dump(change_tree(known.parse(data), change))
    except DUMP_ERRORS:
        return data


def write_files(files: Files, changes: tuple[Change, ...], folder: Path) -> None:
    """Write the files of a seed, changed, to `folder`, which is emptied first."""
    shutil.rmtree(folder, ignore_errors=True)
    contents = dict(files)
    of_files = []
    for change in changes:
        name = sorted(contents)[int(change.file * len(contents))]
        if change.operation in FILE_OPERATIONS:
            of_files.append((name, change))
        else:
            contents[name] = change_document(name, contents[name], change)
    for name, data in contents.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    for name, change in of_files:
        _change_file(folder / name, folder / sorted(contents)[int(change.at * len(contents))], change.operation)


def _change_file(path: Path, other: Path, operation: str) -> None:
    """Replace a file by something else of its name."""
    if not path.is_file() or path.is_symlink():
        return
    if operation == 'exchange':
        if other.is_file() and path != other:
            path.unlink()
            os.link(other, path)  # not copied, because it may be one of LONG_BYTES
        return
    if operation == 'unreadable':
        path.chmod(0)
        return
    path.unlink()
    if operation == 'empty':
        path.touch()
    elif operation == 'folder':
        path.mkdir()
    elif operation == 'fifo':
        os.mkfifo(path)
    elif operation == 'loop':
        path.symlink_to(path.name)
    elif operation == 'absent_link':
        path.symlink_to('absent')
    elif operation == 'device':
        path.symlink_to('/dev/zero')
    elif operation == 'long':
        with path.open('wb') as file:
            file.truncate(LONG_BYTES)  # sparse: takes no space, and nobody may read it whole

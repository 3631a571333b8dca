"""The bags in a folder."""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path

from instructsam.core.errors import InstructSAMError
from instructsam.core.text import one_line, shorten
from instructsam_ros.bag.storage import metadata
from instructsam_ros.bag.storage.errors import RecordingError, explained_reading
from instructsam_ros.bag.storage.files import bag_name, is_bag, is_bag_file, list_files

RESERVED = ('.journal', '.json')
"""Endings of what lies beside the output NAME: the journal while it is written, and then its record."""


def list_bags(path: Path | str) -> dict[str, Path] | None:
    """Return the bags in a folder by their names, in their order; None if `path` is a bag itself or has no bags.

    A folder with the parts of one recording, without metadata.yaml, is a bag, unless bags in folders lie beside them.

    Raises:
        InstructSAMError: Two bags have the same name.
    """
    path = Path(path)
    if not path.is_dir() or (path / metadata.NAME).is_file():
        return None
    with explained_reading(path):
        entries = sorted(each for each in path.iterdir() if not each.name.startswith('.'))
        bags = [each for each in entries if is_bag(each)]
    if all(each.is_file() for each in bags) and (not bags or _is_one_recording(path)):
        return None
    others = [each.name for each in entries if each not in bags]
    if others:
        print(one_line(f'{path}: left out, as they are not bags: {shorten(", ".join(others))}'), file=sys.stderr)
    names = [_name(each) for each in bags]
    taken = Counter([*names, *(name + ending for name in names for ending in RESERVED)])
    twice = [name for name, count in taken.items() if count > 1]
    if twice:
        raise InstructSAMError(
            f'the outputs of two bags in {path} would both be called {shorten(twice[0])}: rename one of them'
        )
    return dict(zip(names, bags, strict=True))


def _name(path: Path) -> str:
    """Return the name of a bag: that of its folder, or of its file without the ending."""
    if path.is_dir() or not is_bag_file(path):
        return path.name
    return bag_name(path)


def _is_one_recording(folder: Path) -> bool:
    try:
        list_files(folder)
    except RecordingError:
        return False
    return True

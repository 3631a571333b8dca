"""Mixing lists: the annotation files of a run, the folders of their images, and how often an epoch repeats each."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from instructsam.core.errors import DataError
from instructsam.core.text import shorten

KEYS = ('annotations', 'images', 'repeat')
MAX_REPEAT = 1_000_000


@dataclass(frozen=True)
class Source:
    """An annotation file, the folder that its image paths are relative to, and how often an epoch reads it."""

    annotations: Path
    images: Path
    repeat: int = 1


def mixing_list(entries: Any, folder: str | Path) -> list[Source]:
    """Return the sources of a mixing list as YAML gives it.

    Args:
        entries: Mappings with the keys annotations, images and repeat.
        folder: Folder that relative paths start at.

    Raises:
        DataError: If an entry is malformed, or a file or folder is missing.
    """
    if not isinstance(entries, Sequence) or isinstance(entries, str) or not entries:
        raise DataError(f'a mixing list has entries of annotations, images and repeat, got {shorten(repr(entries))}')
    return [_source(entry, Path(folder), f'entry {number} of the mixing list') for number, entry in enumerate(entries)]


def _source(entry: Any, folder: Path, where: str) -> Source:
    if not isinstance(entry, dict):
        raise DataError(f'{where} has the keys annotations, images and repeat, got {shorten(repr(entry))}')
    unknown = [str(key) for key in entry if key not in KEYS]
    if unknown:
        raise DataError(f'{where} has unknown keys: {shorten(", ".join(unknown))}. Known: {", ".join(KEYS)}')
    for key in ('annotations', 'images'):
        if not isinstance(entry.get(key), (str, Path)):
            raise DataError(f'{where} needs a path under {key}, got {shorten(repr(entry.get(key)))}')
    repeat = entry.get('repeat', 1)
    if type(repeat) is not int or not 1 <= repeat <= MAX_REPEAT:
        raise DataError(f'{where}: repeat must be a whole number from 1 to {MAX_REPEAT:,}, got {shorten(repr(repeat))}')
    source = Source(folder / entry['annotations'], folder / entry['images'], repeat)
    if not os.path.isfile(source.annotations):  # Path.is_file raises if a name is too long
        raise DataError(f'{where}: there is no file {source.annotations}')
    if not os.path.isdir(source.images):
        raise DataError(f'{where}: there is no folder {source.images}')
    return source

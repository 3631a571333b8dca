"""Lines of *_scenes.jsonl files, which `instructsam tabletop generate` writes, as checked facts about an image."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from instructsam.core.errors import DataError
from instructsam.core.files.regular_file import open_regular_file
from instructsam.core.rle import Rle
from instructsam.train.data.record_fields import RecordError, read_mask
from instructsam.train.data.records import read_header

MAX_LINE_BYTES = 64 << 20
"""Longest line of a scene file, so that a file without line breaks cannot fill the memory."""

T = TypeVar('T')


@dataclass(frozen=True)
class SceneObject:
    """One object of a scene."""

    category: str
    color: str
    mask: Rle  # same size as the image


@dataclass(frozen=True)
class SceneFacts:
    """One image and the objects in it."""

    image: str  # path relative to the folder of the images
    height: int  # px
    width: int  # px
    objects: tuple[SceneObject, ...]


@dataclass(frozen=True)
class SceneLine:
    """One line of a scene file, parsed on demand: parsed, a large file would take many times its size."""

    file: Path
    number: int  # from 1
    text: str

    def read(self) -> SceneFacts:
        """Return the facts; raise DataError, which names file and line, if they cannot be used."""
        return self._parse(read_facts)

    def read_image_name(self) -> str:
        """Return the image's path alone, without looking at the objects; raise DataError as `read` does."""
        return self._parse(lambda raw: read_header(raw)[0])

    def _parse(self, read: Callable[[Any], T]) -> T:
        try:
            return read(json.loads(self.text))
        except (ValueError, RecursionError) as error:  # of JSON, or a RecordError
            raise DataError(f'{self.file}, line {self.number}: {error}') from error


def scene_lines(path: str | Path) -> Iterator[SceneLine]:
    """Yield the lines of a scene file that are not blank; raise DataError if the file cannot be read."""
    path = Path(path)
    try:
        with open_regular_file(path) as file:
            lines = iter(lambda: file.readline(MAX_LINE_BYTES + 1), b'')
            for number, line in enumerate(lines, 1):
                if len(line) > MAX_LINE_BYTES:
                    raise DataError(f'{path}, line {number}: it has more than {MAX_LINE_BYTES} bytes')
                text = line.decode('utf-8-sig' if number == 1 else 'utf-8')
                if text.strip():
                    yield SceneLine(path, number, text)
    except OSError as error:
        raise DataError(f'{path} cannot be read: {error.strerror or error}') from error
    except UnicodeDecodeError as error:
        raise DataError(f'{path} is not a text file in UTF-8: {error}') from error


def read_facts(raw: Any) -> SceneFacts:
    """Return the facts of a parsed line; raise RecordError if one is missing or cannot be right."""
    image, height, width = read_header(raw)
    objects = raw.get('objects')
    if not isinstance(objects, list):
        raise RecordError(f'a scene needs a list of objects, got {str(objects)[:60]}')
    return SceneFacts(image, height, width, tuple(_object(each, height, width) for each in objects))


def _object(raw: Any, height: int, width: int) -> SceneObject:
    if not isinstance(raw, dict) or not all(isinstance(raw.get(key), str) for key in ('category', 'color')):
        raise RecordError(f'an object needs the names of its category and color, got {str(raw)[:80]}')
    return SceneObject(raw['category'], raw['color'], read_mask(raw.get('mask'), height, width))

"""Sources of images: folders, COCO annotation files and videos, listed in the same order on every machine."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2

from instructsam.core.errors import DataError
from instructsam.core.files.json_file import read_json_object
from instructsam.core.files.regular_file import check_regular_file
from instructsam.core.modes import IMAGE_ENDINGS, VIDEO_ENDINGS
from instructsam.core.text import shorten

MAX_COCO_BYTES = 1 << 30


@dataclass(frozen=True)
class Source:
    """Images of one origin and licence. Give `images`, with or without `coco`, or `videos`."""

    name: str  # short name, part of every row
    images: str = ''  # folder of images, with its subfolders
    coco: str = ''  # COCO annotation file: only its images, whose file names are relative to `images`
    videos: str = ''  # folder of videos, with its subfolders
    every_s: float = 2.0  # time between two frames of a video that are looked at
    licence: str = ''  # licence tag; empty: that of the COCO file, if it has one

    def __post_init__(self) -> None:
        if not self.name.strip() or not self.name.isprintable() or '/' in self.name:
            raise ValueError(f'name of a source must be a printable text without /, got {shorten(repr(self.name))}')
        if bool(self.images) == bool(self.videos) or (self.coco and self.videos):
            raise ValueError(f'source {self.name!r} needs either images (and perhaps coco) or videos')
        if not 0.01 <= self.every_s <= 86400:
            raise ValueError(f'every_s must be from 0.01 to 86400, got {self.every_s}')

    @property
    def folder(self) -> Path:
        """The folder that paths of the source are relative to."""
        return Path(self.images or self.videos)


@dataclass(frozen=True)
class Candidate:
    """An image that may become a row.

    Attributes:
        order: Position among all candidates of the recipe.
        source: Its source.
        file: The image or video.
        name: The file relative to its source.
        frame: Number of the frame of a video, from 0; None for an image file.
        licence: Licence tag.
    """

    order: int
    source: Source
    file: Path
    name: str
    frame: int | None
    licence: str

    @property
    def origin(self) -> str:
        """The name, of a video with the frame."""
        return self.name if self.frame is None else f'{self.name}#{self.frame}'


def list_candidates(sources: Iterable[Source]) -> list[Candidate]:
    """Return the images of all sources.

    Raises:
        DataError: A source has no image, cannot be listed, or has a name that rows cannot hold.
    """
    candidates: list[Candidate] = []
    for source in sources:
        before = len(candidates)
        for name, frame, licence in _entries(source):
            if not _is_text(name):
                raise DataError(
                    f'{source.folder} has a file whose name is not valid UTF-8: rename {shorten(ascii(name))}'
                )
            candidates.append(Candidate(len(candidates), source, source.folder / name, name, frame, licence))
        if len(candidates) == before:
            kind = 'video' if source.videos else 'image'
            raise DataError(f'source {source.name!r} has no {kind} in {source.folder}: correct the folder')
    return candidates


def _entries(source: Source) -> Iterator[tuple[str, int | None, str]]:
    """Yield name, frame and licence of each image."""
    if source.coco:
        for name, licence in _coco_images(Path(source.coco)):
            yield name, None, source.licence or licence
    elif source.images:
        for name in _files(source.folder, IMAGE_ENDINGS):
            yield name, None, source.licence
    else:
        for name in _files(source.folder, VIDEO_ENDINGS):
            for frame in _frames(source.folder / name, source.every_s):
                yield name, frame, source.licence


def _files(folder: Path, suffixes: tuple[str, ...]) -> list[str]:
    """Return the files with one of the suffixes, relative to the folder, sorted."""
    if not folder.is_dir():
        raise DataError(f'there is no folder {folder}: correct the source in the recipe')

    def refuse(error: OSError) -> None:
        raise DataError(f'{error.filename} cannot be listed: {error.strerror or error}') from error

    return sorted(
        Path(root, name).relative_to(folder).as_posix()
        for root, _, names in os.walk(folder, onerror=refuse)
        for name in names
        if name.lower().endswith(suffixes)
    )


def _coco_images(path: Path) -> list[tuple[str, str]]:
    """Return (file name, name of the licence) of the images of a COCO file, sorted."""
    try:
        document = read_json_object(path, MAX_COCO_BYTES)
    except (OSError, ValueError) as error:
        raise DataError(f'{path} cannot be read: {getattr(error, "strerror", None) or error}') from error
    licences = {_get(each, 'id'): str(_get(each, 'name') or '') for each in _list(document, 'licenses')}
    names = [(_get(each, 'file_name'), licences.get(_get(each, 'license'), '')) for each in _list(document, 'images')]
    wrong = [name for name, _ in names if not isinstance(name, str) or not name or not _is_inside(name)]
    if wrong:
        raise DataError(
            f'{path} has an image whose file_name is not a path below its folder: {shorten(repr(wrong[0]))}'
        )
    return sorted(set(names))


def _is_text(name: str) -> bool:
    """Return whether a name is valid UTF-8: Python represents other bytes by lone surrogates."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def _list(document: dict[str, Any], key: str) -> list[Any]:
    value = document.get(key)
    return value if isinstance(value, list) else []


def _get(entry: Any, key: str) -> Any:
    value = entry.get(key) if isinstance(entry, dict) else None
    return value if isinstance(value, (str, int)) else None


def _is_inside(name: str) -> bool:
    return not os.path.isabs(name) and '..' not in Path(name).parts and '\0' not in name


def _frames(video: Path, every_s: float) -> list[int]:
    """Return the numbers of the frames to look at; [0] if the video does not tell its length.

    A video that cannot be opened has this one frame as well, which is then rejected by name.
    """
    rate, count = 0.0, 0
    try:
        check_regular_file(video)
        capture = cv2.VideoCapture(str(video))
        try:
            rate, count = capture.get(cv2.CAP_PROP_FPS), int(capture.get(cv2.CAP_PROP_FRAME_COUNT))
        finally:
            capture.release()
    except (OSError, cv2.error):
        pass
    if not 0 < rate < 1e6 or not 0 < count < 1e9:
        return [0]
    step = max(1, round(rate * every_s))
    return list(range(0, count, step))

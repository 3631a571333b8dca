"""Images of a list of inputs: files, folders, patterns, videos and webcams, each with a name that is its own."""

from __future__ import annotations

import glob
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from instructsam.core.errors import ImageError, InstructSAMError
from instructsam.core.files.image_file import read_image
from instructsam.core.files.regular_file import check_regular_file
from instructsam.core.modes import IMAGE_ENDINGS, VIDEO_ENDINGS
from instructsam.core.text import shorten


@dataclass(frozen=True)
class SourceImage:
    """An image that is read when it is its turn."""

    name: str  # path of the file as given; of a video or webcam with #FRAME
    identity: str  # size and time of change of the file, by which a later run recognizes it; empty for a webcam
    read: Callable[[], np.ndarray]  # returns [H, W, 3] uint8 RGB, or raises ImageError


@dataclass(frozen=True)
class Source:
    """A file or a webcam.

    Attributes:
        path: The file; for a webcam its index.
        is_live: It is a webcam.
    """

    path: str
    is_live: bool = False

    @property
    def is_video(self) -> bool:
        """Return whether it has several images."""
        return self.is_live or self.path.lower().endswith(VIDEO_ENDINGS)

    def count(self, every: int) -> int | None:
        """Return the number of images; None if it is not known before."""
        if not self.is_video:
            return 1
        if self.is_live:
            return None
        video = cv2.VideoCapture(self.path)
        frames = int(video.get(cv2.CAP_PROP_FRAME_COUNT))
        video.release()
        return (frames + every - 1) // every if frames > 0 else None

    def images(self, max_megapixels: float, every: int) -> Iterator[SourceImage]:
        """Yield its images; of a video or webcam every `every`-th frame. Raises ImageError if it cannot be opened."""
        if not self.is_video:
            yield SourceImage(self.path, _identity(self.path), lambda: read_image(self.path, max_megapixels))
            return
        if not self.is_live:
            try:
                check_regular_file(self.path)
            except OSError as error:
                raise ImageError(f'cannot read {shorten(self.path)}: {error.strerror or error}') from error
        video = cv2.VideoCapture(int(self.path) if self.is_live else self.path)
        identity = '' if self.is_live else _identity(self.path)
        kind = 'webcam' if self.is_live else 'video'
        try:
            if not video.isOpened():
                raise ImageError(f'cannot open the {kind} {shorten(self.path)}: give another one')
            width, height = (int(video.get(key)) for key in (cv2.CAP_PROP_FRAME_WIDTH, cv2.CAP_PROP_FRAME_HEIGHT))
            if width * height > max_megapixels * 1e6:
                raise ImageError(
                    f'{shorten(self.path)} has {width} x {height} px: more than {max_megapixels:g} megapixels'
                )
            frame = 0
            while video.grab():
                if frame % every == 0:
                    # It is read before the next frame is grabbed.
                    yield SourceImage(f'{self.path}#{frame}', identity, lambda: _retrieve(video, self.path))
                frame += 1
            if frame == 0:
                raise ImageError(f'the {kind} {shorten(self.path)} has no frames that can be read')
        finally:
            video.release()


def find_sources(inputs: Sequence[str]) -> list[Source]:
    """Return the sources that the inputs name, in their order, those of a folder or pattern by name.

    An input is a file, a folder (with its subfolders), a pattern such as `photos/*.jpg`, or the index of a webcam.

    Raises InstructSAMError for an input that names nothing.
    """
    found = [source for name in inputs for source in _sources_of(name)]
    return list(dict.fromkeys(found))


def _sources_of(name: str) -> list[Source]:
    if os.path.isdir(name):
        files = sorted(str(path) for path in Path(name).rglob('*') if path.is_file())
        known = [
            Source(path)
            for path in files
            if path.lower().endswith(IMAGE_ENDINGS + VIDEO_ENDINGS) and _is_shown(path, name)
        ]
        if not known:
            raise InstructSAMError(
                f'{shorten(name)} holds no images or videos ({", ".join(IMAGE_ENDINGS + VIDEO_ENDINGS)})'
            )
        return known
    if os.path.lexists(name):
        return [Source(name)]
    if name.isdecimal():
        return [Source(name, is_live=True)]
    if glob.has_magic(name):
        matches = sorted(path for path in glob.glob(name, recursive=True) if os.path.isfile(path))
        if not matches:
            raise InstructSAMError(f'no file matches {shorten(name)}')
        return [Source(path) for path in matches]
    raise InstructSAMError(
        f'cannot read {shorten(name)}: no such file. Give images, folders, patterns, videos or the index of a webcam'
    )


def _is_shown(path: str, folder: str) -> bool:
    return not any(part.startswith('.') for part in Path(path).relative_to(folder).parts)


def _identity(path: str) -> str:
    try:
        status = os.stat(path)
    except OSError:
        return ''
    return f'{status.st_size} {status.st_mtime_ns}'


def _retrieve(video: cv2.VideoCapture, path: str) -> np.ndarray:
    is_read, frame = video.retrieve()
    if not is_read or frame is None:
        raise ImageError(f'cannot decode a frame of {shorten(path)}')
    return np.ascontiguousarray(frame[:, :, ::-1])

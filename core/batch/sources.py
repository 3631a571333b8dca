"""Images of a list of inputs: files, folders, patterns, videos and webcams, each with a unique name."""

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

MAX_INDEX_DIGITS = 9  # digits of a webcam's index, which OpenCV reads as a 32-bit number


@dataclass(frozen=True)
class SourceImage:
    """An image that is read on demand."""

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
        if self.is_live or self._fault():
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
        if not self.is_live and (fault := self._fault()):
            raise ImageError(f'cannot read {shorten(self.path)}: {fault}')
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

    def _fault(self) -> str:
        """Return the reason why OpenCV cannot be given the file, such as a FIFO, at which it would wait; or ''."""
        try:
            check_regular_file(self.path)
        except OSError as error:
            return error.strerror or str(error)
        return ''


def find_sources(inputs: Sequence[str], outputs: Sequence[str | Path] = ()) -> list[Source]:
    """Return the sources that the inputs name, in their order, those of a folder or pattern by name.

    Args:
        inputs: Each is a file, a folder (with its subfolders), a pattern such as `photos/*.jpg`, or the index of a
            webcam.
        outputs: Files and folders that the command writes. A folder or pattern does not find them or what they hold,
            so that a resumed run has the sources of an undisturbed one.

    Raises:
        InstructSAMError: An input names nothing.
    """
    folders = [Path(os.path.realpath(output)) for output in outputs]
    found = [source for name in inputs for source in _sources_of(name, folders)]
    return list(dict.fromkeys(found))


def _sources_of(name: str, outputs: Sequence[Path]) -> list[Source]:
    if os.path.isdir(name):
        files = sorted(str(path) for path in Path(name).rglob('*') if path.is_file())
        known = [
            path for path in files if path.lower().endswith(IMAGE_ENDINGS + VIDEO_ENDINGS) and _is_shown(path, name)
        ]
        expected = f'{shorten(name)} holds no images or videos ({", ".join(IMAGE_ENDINGS + VIDEO_ENDINGS)})'
        return _apart_from(outputs, known, expected)
    if os.path.lexists(name):
        return [Source(name)]
    if name.isdecimal():
        if len(name) > MAX_INDEX_DIGITS:
            raise InstructSAMError(
                f'there is no webcam {shorten(name)}: expected an index of at most {MAX_INDEX_DIGITS} digits'
            )
        return [Source(name, is_live=True)]
    if glob.has_magic(name):
        matches = sorted(path for path in glob.glob(name, recursive=True) if os.path.isfile(path))
        return _apart_from(outputs, matches, f'no file matches {shorten(name)}')
    raise InstructSAMError(
        f'cannot read {shorten(name)}: no such file. Give images, folders, patterns, videos or the index of a webcam'
    )


def _apart_from(outputs: Sequence[Path], files: Sequence[str], error: str) -> list[Source]:
    """Return the sources of the files that are no outputs. Raises InstructSAMError with the text if there are none."""
    kept = [file for file in files if not outputs or not _is_in(outputs, file)]
    if files and not kept:
        raise InstructSAMError(f'{error} apart from the outputs of this command: give the outputs another folder')
    if not kept:
        raise InstructSAMError(error)
    return [Source(file) for file in kept]


def _is_in(outputs: Sequence[Path], file: str) -> bool:
    path = Path(os.path.realpath(file))
    return any(path.is_relative_to(output) for output in outputs)


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

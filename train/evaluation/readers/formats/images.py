"""The folder of a data set's images, found by the names of a few of them; and an image's size from its header."""

import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from instructsam.core.files.image_file import ORIENTATION_TAG
from instructsam.core.files.image_header import open_header
from instructsam.core.files.regular_file import open_regular_file
from instructsam.train.data.record_fields import RecordError

SUBFOLDERS = ('', 'images', 'train2014', 'images/train2014', 'images/mscoco/images/train2014')
"""Subfolders of a data set that may hold its images; the last one is that of the REFER toolkit."""

NUM_PROBED = 16
"""Approximate number of images to look for: a data set may have more than 100,000."""

SIDEWAYS = 5, 6, 7, 8
"""EXIF orientations of an image whose width and height are swapped."""


class ImageFolder:
    """The folder where a data set's image paths start, and the number of leading folders to drop from them."""

    def __init__(self, names: Iterable[str], folders: Sequence[Path]):
        """Find the folder.

        Args:
            names: All image paths, as in the annotations.
            folders: Folders to search; the first one is taken if none of the images is found.
        """
        names = list(dict.fromkeys(name for name in names if name))
        probed = names[:: max(1, len(names) // NUM_PROBED)]
        existing = (
            (folder, num_dropped)
            for name in probed
            for folder, num_dropped in _candidates(name, folders)
            if os.path.isfile(_join(folder, num_dropped, name))
        )
        self._folder, self._num_dropped = next(existing, (folders[0], 0))

    def path(self, name: str) -> Path:
        """Return the file of an image path, which need not exist."""
        return _join(self._folder, self._num_dropped, name)


def _candidates(name: str, folders: Sequence[Path]) -> Iterator[tuple[Path, int]]:
    """Yield (folder, number of leading folders of `name` to drop)."""
    absolute = [Path('/')] if name.startswith('/') else []
    for num_dropped in range(len(_parts(name))):
        for folder in (*absolute, *folders):
            yield folder, num_dropped


def _join(folder: Path, num_dropped: int, name: str) -> Path:
    parts = _parts(name)
    return folder.joinpath(*parts[min(num_dropped, len(parts) - 1) :])


def _parts(name: str) -> list[str]:
    """Split a path that may be a Windows path, and may start above the data, into folders and file."""
    return [part for part in name.replace('\\', '/').split('/') if part not in ('', '.', '..')] or ['.']


def image_size(path: Path) -> tuple[int, int]:
    """Return (height, width) in px of an image after its EXIF rotation, from the file's header.

    Raises:
        RecordError: The image cannot be read.
    """
    try:
        with open_regular_file(path) as file, open_header(file) as image:
            width, height = image.size
            # Without the first condition, a PNG would be read completely in search of the tag.
            is_sideways = 'exif' in image.info and image.getexif().get(ORIENTATION_TAG) in SIDEWAYS
    except Exception as error:  # on broken files Pillow raises SyntaxError, ValueError, struct.error, ...
        raise RecordError(f'the image cannot be read: {path}: {getattr(error, "strerror", None) or error}') from error
    return (width, height) if is_sideways else (height, width)

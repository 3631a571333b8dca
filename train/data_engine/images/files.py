"""Pictures of rows: found in the folder of their source or of the run, and read upright."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np

from instructsam.core.errors import DataError
from instructsam.core.files.image_file import read_image
from instructsam.train.data_engine.images.sources import Source
from instructsam.train.data_engine.rows import EngineImage


class ImageFiles:
    """The pictures of a run.

    Args:
        run: Folder of the run.
        sources: Sources of the recipe.
        max_megapixels: Largest picture that is read.
    """

    def __init__(self, run: Path, sources: Iterable[Source], max_megapixels: float) -> None:
        self._run = run
        self._folders = {source.name: source.folder for source in sources}
        self._max_megapixels = max_megapixels

    def path(self, image: EngineImage) -> Path:
        """Return the file of an image.

        Raises:
            DataError: Its source is not in the recipe.
        """
        if image.in_run:
            return self._run / image.path
        if image.source not in self._folders:
            raise DataError(f'the recipe has no source {image.source!r}, from which {image.origin} is: add it again')
        return self._folders[image.source] / image.path

    def read(self, image: EngineImage) -> np.ndarray:
        """Return the picture, [H, W, 3] uint8 RGB, upright.

        Raises:
            ImageError: It cannot be read.
            DataError: It has another size than stage images found, so the file was replaced.
        """
        pixels = read_image(self.path(image), self._max_megapixels)
        if pixels.shape[:2] != (image.height, image.width):
            raise DataError(
                f'{image.origin} of source {image.source!r} is {pixels.shape[1]} x {pixels.shape[0]} px, and was '
                f'{image.width} x {image.height} px: restore it, or recompute the rows'
            )
        return pixels

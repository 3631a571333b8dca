"""Sources of a benchmark's images and queries: `Source`, and the one that holds a data set in memory."""

import filecmp
import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any, Protocol

from instructsam.core.run_settings import OtherSettingsError
from instructsam.train.evaluation.query import ImageQueries, Outcome

COMPARED_IMAGES = 512
"""Largest number of answered images, evenly spaced, that are compared with those of a source."""


class Source(Protocol):
    """The images of a split with their queries, by index."""

    def __len__(self) -> int:
        """Return the number of images."""
        ...

    def identity(self) -> dict[str, Any]:
        """Return entries for the run's header that differ between any two sources."""
        ...

    def open(self, indices: Iterable[int]) -> Iterator[tuple[int, ImageQueries]]:
        """Yield (index, image with its queries) for each of `indices`."""
        ...


class FileSource:
    """The images of a data set, with their queries in memory; pixels are read when they are needed."""

    def __init__(self, images: Sequence[ImageQueries], limit: int | None = None):
        """Take the first `limit` queries, image by image; None takes all."""
        self.images = images if limit is None else list(limit_queries(images, limit))

    def __len__(self) -> int:
        return len(self.images)

    def identity(self) -> dict[str, Any]:
        """Return the number of queries and a hash of their texts and masks."""
        digest = hashlib.sha256()
        for image in self.images:
            for query in image.queries:
                annotated = [*query.ground_truth, *([query.ignore] if query.ignore is not None else [])]
                masks = [mask.to_coco() for mask in annotated]
                digest.update(json.dumps([query.id, query.text, bool(query.error), masks]).encode())
        return {'queries': sum(len(image.queries) for image in self.images), 'data': digest.hexdigest()[:16]}

    def open(self, indices: Iterable[int]) -> Iterator[tuple[int, ImageQueries]]:
        """Yield (index, image with its queries) for each of `indices`."""
        return ((index, self.images[index]) for index in indices)

    def check_images(self, outcomes: Sequence[Outcome]) -> None:
        """Raise OtherSettingsError if outcomes are of other images; those that have moved are the same.

        outcomes: Those of a run whose header has this source's `identity`, which does not depend on the images.
        """
        answered = {outcome.order.image: outcome.image for outcome in outcomes if not outcome.error}
        for index in list(answered)[:: len(answered) // COMPARED_IMAGES + 1]:
            before, now = answered[index], self.images[index].image
            if before == now or not os.path.isfile(before) or not os.path.isfile(now):
                continue
            if not filecmp.cmp(before, now, shallow=False):
                raise OtherSettingsError(
                    f'the results are of other images: {before} differs from {now}. Repeat the command with the '
                    'earlier images, or choose another folder with --results'
                )


def limit_queries(images: Iterable[ImageQueries], limit: int) -> Iterator[ImageQueries]:
    """Yield images until they have `limit` queries in all; the last one may keep only some of its queries."""
    for image in images:
        if limit <= 0:
            return
        yield replace(image, queries=image.queries[:limit])
        limit -= len(image.queries)

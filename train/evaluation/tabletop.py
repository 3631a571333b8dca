"""The tabletop benchmark: rendered scenes for a seed, each with instructions and exact masks.

source = TabletopSource('test', seed=7, num_scenes=100)
outcomes = answer_images(engine, (image for _, image in source.open(range(100))), PromptOptions())
"""

from collections.abc import Collection, Iterable, Iterator
from contextlib import closing
from dataclasses import replace
from functools import partial
from typing import Any

import cv2

from instructsam.core.rle import Rle
from instructsam.train.evaluation.query import ImageQueries, Query
from instructsam.train.evaluation.running.sources import limit_queries
from instructsam.train.tabletop.language.instructions import sample_instructions
from instructsam.train.tabletop.scenes.scene import render_scene
from instructsam.train.tabletop.workers import in_order


def draw_queries(index: int, split: str, seed: int, kinds: Collection[str] | None = None) -> ImageQueries:
    """Draw one scene and return its image with the instructions about it as queries.

    Args:
        index: Number of the scene under the seed.
        split: Split of the tabletop world.
        seed: Seed of the scenes.
        kinds: Types of instructions to keep; None keeps all.
    """
    cv2.setNumThreads(1)  # one thread leaves the other cores to the model
    drawn = render_scene(split, index, seed)
    masks = {item.id: Rle.encode(drawn.ids == item.id) for item in drawn.objects}
    queries = [
        Query(
            id=f'{index}-{number}',
            text=instruction.text,
            phrases=instruction.concise,
            ground_truth=tuple(masks[target] for targets in instruction.targets for target in targets),
            groups={'kind': instruction.kind, 'novelty': list(instruction.novel)},
        )
        for number, instruction in enumerate(sample_instructions(drawn))
        if not kinds or instruction.kind in kinds
    ]
    return ImageQueries(drawn.name, tuple(queries), drawn.rgb)


class TabletopSource:
    """Scenes that worker processes draw slightly ahead of the model."""

    def __init__(
        self,
        split: str,
        seed: int,
        num_scenes: int,
        kinds: list[str] | None = None,
        workers: int = 1,
        limit: int | None = None,
    ):
        """Set up the scenes; with a limit, draw them once to count their queries.

        Args:
            split: Split of the tabletop world.
            seed: Seed of the scenes.
            num_scenes: Number of scenes.
            kinds: Types of instructions to ask; None asks all.
            workers: Number of processes that draw.
            limit: Number of queries to ask, scene by scene; None asks all.
        """
        self.split, self.seed, self.num_scenes, self.kinds, self.workers = split, seed, num_scenes, kinds, workers
        self.limit = limit
        self._last_count: int | None = None  # number of queries about the last scene, which the limit may cut
        if limit is not None:
            limited = limit_queries((image for _, image in self.open(range(num_scenes))), limit)
            counts = [len(image.queries) for image in limited]
            self.num_scenes, self._last_count = len(counts), counts[-1]

    def __len__(self) -> int:
        return self.num_scenes

    def identity(self) -> dict[str, Any]:
        """Return the settings that decide the scenes and their instructions."""
        return {'seed': self.seed, 'scenes': self.num_scenes, 'kinds': self.kinds, 'limit': self.limit}

    def open(self, indices: Iterable[int]) -> Iterator[tuple[int, ImageQueries]]:
        """Yield (index, image with its queries) for each of `indices`."""
        indices = list(indices)
        draw = partial(draw_queries, split=self.split, seed=self.seed, kinds=self.kinds)
        with closing(in_order(draw, indices, self.workers)) as drawn:
            for index, image in zip(indices, drawn, strict=True):
                is_cut = self._last_count is not None and index == self.num_scenes - 1
                yield index, replace(image, queries=image.queries[: self._last_count]) if is_cut else image

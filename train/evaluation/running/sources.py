"""Where the scenes of a benchmark come from: files that were read, or the tabletop world, which draws them anew."""

import hashlib
import json
from contextlib import closing
from dataclasses import replace
from functools import partial

from instructsam.core.errors import DataError


class FileSource:
    """Scenes of a data set in memory; images are read when they are asked."""

    def __init__(self, scenes, limit=None):
        """scenes: a list of query.Scene; limit: the first so many queries, scene by scene."""
        self.scenes = list(_limited(scenes, limit)) if limit else scenes

    def __len__(self):
        return len(self.scenes)

    def identity(self):
        """What tells this source from others, for the run's header."""
        digest = hashlib.sha256()
        for scene in self.scenes:
            for query in scene.queries:
                masks = [mask.to_coco() for mask in (*query.truth, *filter(None, [query.ignore]))]
                digest.update(json.dumps([query.id, query.text, bool(query.error), masks]).encode())
        return {'queries': sum(len(scene.queries) for scene in self.scenes), 'data': digest.hexdigest()[:16]}

    def open(self, positions):
        """Yields (position, Scene) for each of `positions`."""
        return ((position, self.scenes[position]) for position in positions)


def _limited(scenes, limit):
    for scene in scenes:
        if limit <= 0:
            return
        yield replace(scene, queries=scene.queries[:limit])
        limit -= len(scene.queries)


class TabletopSource:
    """Scenes that other processes draw a little ahead."""

    def __init__(self, split, seed, scenes, kinds=None, workers=1, limit=None):
        """kinds: of instructions, all by default; workers: processes that draw; limit: the first so many queries."""
        self.split, self.seed, self.scenes, self.kinds, self.workers = split, seed, scenes, kinds, workers
        self.limit, self._last = limit, None  # queries in all, and of the last scene
        if limit is not None:
            drawn = _limited((scene for _, scene in self.open(range(scenes))), limit)
            counts = [len(scene.queries) for scene in drawn]
            self.scenes, self._last = len(counts), counts[-1]

    def __len__(self):
        return self.scenes

    def identity(self):
        return {'seed': self.seed, 'scenes': self.scenes, 'kinds': self.kinds, 'limit': self.limit}

    def open(self, positions):
        from instructsam.train.evaluation.tabletop import draw
        from instructsam.train.tabletop.workers import in_order

        positions = list(positions)
        drawing = partial(draw, split=self.split, seed=self.seed, kinds=self.kinds)
        with closing(in_order(drawing, positions, self.workers)) as drawn:
            for position, scene in zip(positions, drawn):
                is_cut = self._last is not None and position == self.scenes - 1
                yield position, replace(scene, queries=scene.queries[: self._last]) if is_cut else scene


def open_source(benchmark, args):
    """The source that command line arguments ask for. Raises DataError, or InstructSAMError: nothing can be drawn."""
    if benchmark == 'tabletop':
        from instructsam.train.tabletop.command import check_drawing

        check_drawing()
        return TabletopSource(args.split, args.seed, args.scenes, args.kinds, args.workers, args.limit)
    from instructsam.train.evaluation.readers import read

    if args.data is None:
        raise DataError(f'{benchmark} is read from files: give their folder with --data')
    return FileSource(read(benchmark, args.data, args.split, args.images, args.split_by), args.limit)

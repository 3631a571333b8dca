"""A scene in motion: the camera sways about what it looks at, things slide along the table, smoothly and by seed."""

from dataclasses import replace

import numpy as np
from scipy.spatial.transform import Rotation

from instructsam.train.tabletop.scenes.layout import apart

SWAY = np.radians(8)  # of the camera, to either side
ROUND_S = 4.0  # from a place back to it
SLIDE_M = (0.04, 0.10)  # of a thing, to either side
SLIDE_ROUND_S = (5.0, 9.0)
MOVERS = 3  # things that move at most
GAP_M = 0.01  # between what moves and what stands
INSTANTS = 24  # of a round, at which that is looked at


def swayed(camera, time_s):
    """The camera at `time_s`, turned about the vertical through what it looks at."""
    pivot = camera.on_table(((camera.width - 1) / 2, (camera.height - 1) / 2))
    turn = Rotation.from_euler('z', SWAY * np.sin(2 * np.pi * time_s / ROUND_S)).as_matrix()
    return replace(camera, position=pivot + turn @ (camera.position - pivot), rotation=turn @ camera.rotation)


class Motion:
    """What moves in a scene, chosen by `seed`; at time 0 all is where it was staged.

    things, room, camera: as `scene.staged` gives them. objects: whether things move, too: those that stand on the table
    and have room for it, with all that they carry.
    """

    def __init__(self, seed, things, room, camera, objects=True, sway=True):
        self._things, self._camera, self._sway = things, camera, sway
        self._slides = self._choose(np.random.default_rng((seed, 77)), room.table) if objects else {}

    def at(self, time_s):
        """(things, camera) at `time_s`."""
        offsets = {index: self._offset(slide, time_s) for index, slide in self._slides.items()}
        things = [
            replace(thing, position=thing.position + offsets[root]) if (root := self._root(index)) in offsets else thing
            for index, thing in enumerate(self._things)
        ]
        return things, swayed(self._camera, time_s) if self._sway else self._camera

    def _root(self, index):
        """The thing on the table that carries this one, or itself."""
        while self._things[index].parent >= 0:
            index = self._things[index].parent
        return index

    @staticmethod
    def _offset(slide, time_s):
        direction, reach_m, round_s = slide
        return direction * reach_m * np.sin(2 * np.pi * time_s / round_s)

    def _choose(self, rng, table):
        """{index: (direction [3], reach m, round s)}."""
        slides = {}
        standing = [index for index, thing in enumerate(self._things) if thing.parent < 0]
        hulls = {root: [t.footprint for i, t in enumerate(self._things) if self._root(i) == root] for root in standing}
        for index in rng.permutation(standing).tolist():
            angle = rng.uniform(0, 2 * np.pi)
            slide = np.array([np.cos(angle), np.sin(angle), 0]), rng.uniform(*SLIDE_M), rng.uniform(*SLIDE_ROUND_S)
            if len(slides) < MOVERS and self._is_free(index, slide, slides, hulls, table):
                slides[index] = slide
        return slides

    def _is_free(self, index, slide, slides, hulls, table):
        """Whether it touches nothing on its way, wherever the other movers are on theirs."""
        ways = {other: self._way(slides[other], hulls[other]) for other in slides}
        standing = [hull for other in hulls if other != index and other not in slides for hull in hulls[other]]
        moving = [hull for way in ways.values() for hulls_then in way for hull in hulls_then]
        for hulls_then in self._way(slide, hulls[index]):
            for hull in hulls_then:
                if not table.contains(hull) or not all(apart(hull, other, GAP_M) for other in standing + moving):
                    return False
        return True

    def _way(self, slide, hulls):
        times_s = np.arange(INSTANTS) / INSTANTS * slide[2]
        return [[hull + self._offset(slide, time_s)[:2] for hull in hulls] for time_s in times_s]

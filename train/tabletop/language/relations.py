"""How objects lie to each other as a person looking at the picture would say it: yes, no, or hard to tell.

Left and right are the picture's; in front means towards the camera along the table. A relation is only true with a
clear gap and only false on the clearly other side, so that any sensible reading agrees; in between it is None.
"""

from functools import lru_cache

import numpy as np

from instructsam.train.tabletop.scenes.layout import separation

CONE = 1.5  # aside against along: beyond some 56 degrees off the axis, "left of" is a matter of taste
EDGE = 0.02  # of the picture's width: the least gap for left and right
NEAR_M, FAR_M = 0.05, 0.11  # next to: closer than the first; not next to: beyond the second
PAIRWISE = ('left', 'right', 'front', 'behind', 'near')
CARRIED = ('in', 'on')


class Relations:
    """The relations among the objects of one scene. Three-valued methods answer True, False or None (unsure)."""

    def __init__(self, scene):
        self.width = scene.camera.width
        self.objects = {item.id: item for item in scene.objects}
        ahead = scene.camera.rotation[:2, 2] / np.linalg.norm(scene.camera.rotation[:2, 2])
        axes = np.stack([(ahead[1], -ahead[0]), ahead])  # to the right, and away from the camera, along the table
        self._ground = {item.id: item.footprint @ axes.T for item in scene.objects}  # [N, 2] (right, away) m
        self._centers = {i: (flat.min(axis=0) + flat.max(axis=0)) / 2 for i, flat in self._ground.items()}
        self.holds = lru_cache(maxsize=None)(self._holds)  # asked over and over while instructions are tried

    def _holds(self, name, target, anchor):
        """Three-valued: does `target` lie `name` (PAIRWISE or CARRIED) of `anchor`? Both are ids."""
        first, second = self.objects[target], self.objects[anchor]
        carried = first.parent == anchor or second.parent == target
        if name in CARRIED:
            return first.parent == anchor and first.relation == name
        if target == anchor or carried:
            return False
        if name in ('right', 'behind'):
            return self._beside(anchor, target) if name == 'right' else self._before(anchor, target)
        if name == 'left':
            return self._beside(target, anchor)
        if name == 'front':
            return self._before(target, anchor)
        if name == 'near':
            gap = self.gap(target, anchor)
            return True if gap < NEAR_M else False if gap > FAR_M else None
        raise ValueError(f'{name!r} is not a relation: {", ".join((*PAIRWISE, *CARRIED))}')

    def _beside(self, left, right):
        """Three-valued: is the object `left` to the left of the object `right`?"""
        a, b = self.objects[left].box, self.objects[right].box
        middle_a, middle_b = (a[0] + a[2]) / 2, (b[0] + b[2]) / 2
        if middle_a >= middle_b:
            return False
        across, away = np.abs(self._centers[left] - self._centers[right])
        clear = middle_a < b[0] - EDGE * self.width and a[2] < middle_b and middle_b > a[2] + EDGE * self.width
        return True if clear and away < CONE * across else None

    def _before(self, front, back):
        """Three-valued: is the object `front` nearer to the camera than the object `back`, and lower in the picture?"""
        a, b = self._ground[front], self._ground[back]
        middle_a, middle_b = self._centers[front], self._centers[back]
        if middle_a[1] >= middle_b[1]:
            return False
        across, away = np.abs(middle_a - middle_b)
        clear = middle_a[1] < b[:, 1].min() - 0.01 and middle_b[1] > a[:, 1].max() + 0.01
        seen = self.objects[front].box[3] > self.objects[back].box[3] + EDGE * self.width
        return True if clear and seen and across < CONE * away else None

    def between(self, target, first, second):
        """Three-valued: does `target` lie between two others, on the table and in the picture?"""
        if any(
            self.objects[target].parent == other or self.objects[other].parent == target for other in (first, second)
        ):
            return False
        boxes = {i: np.array(self.objects[i].box, float) for i in (target, first, second)}
        pixels = {i: (box[:2] + box[2:]) / 2 for i, box in boxes.items()}
        found = []
        for place in (self._centers, pixels):
            line = place[second] - place[first]
            length = max(np.linalg.norm(line), 1e-9)
            offset = place[target] - place[first]
            along = offset @ line / length**2
            aside = abs(offset[0] * line[1] - offset[1] * line[0]) / length**2
            if not 0 < along < 1 or aside > 0.5:
                found.append(False)
            else:
                found.append(True if 0.25 < along < 0.75 and aside < 0.2 else None)
        return found[0] if found[0] == found[1] else None

    def gap(self, first, second):
        """How far the outlines of two objects on the table are apart, m, 0 where they overlap."""
        return max(separation(self._ground[first], self._ground[second]), 0.0)

    def distance(self, first, second):
        """How far the middles of two objects are apart along the table, m."""
        return float(np.linalg.norm(self._centers[first] - self._centers[second]))

    def across(self, item):
        """Where the object's middle is across the picture, px."""
        box = self.objects[item].box
        return (box[0] + box[2]) / 2

    def away(self, item):
        """How far the object's middle is from the camera along the table, m (from an arbitrary line)."""
        return float(self._centers[item][1])

    def bulk(self, item):
        """Edge of the cube that holds as much as the object's own box, m."""
        return float(np.prod(self.objects[item].extent_m) ** (1 / 3))

"""Spatial relations between objects as a person would judge them in the image: true, false, or unsure (None).

Left and right refer to the image; in front means towards the camera along the table. A relation is true only with a
clear gap and false only if it clearly holds the other way round, so that any sensible reading agrees; otherwise it is
None.
"""

from functools import lru_cache

import numpy as np

from instructsam.train.tabletop.scenes.layout import separation
from instructsam.train.tabletop.scenes.scene import Scene

CONE = 1.5  # largest ratio of the offsets across and along a direction: about 56 degrees off its axis
EDGE = 0.02  # least gap for left, right, in front and behind, as a share of the image's width
NEAR_M = 0.05  # largest gap of objects that are next to each other
FAR_M = 0.11  # least gap of objects that are not next to each other
PAIRWISE = ('left', 'right', 'front', 'behind', 'near')
CARRIED = ('in', 'on')


class Relations:
    """The relations between the objects of one scene; objects are given by their ids.

    Three-valued methods return True, False or None (unsure).
    """

    def __init__(self, scene: Scene) -> None:
        self.width = scene.camera.width
        self.objects = {obj.id: obj for obj in scene.objects}
        away = scene.camera.rotation[:2, 2] / np.linalg.norm(scene.camera.rotation[:2, 2])
        axes = np.stack([(away[1], -away[0]), away])  # directions along the table: to the right, and away
        self._footprints = {obj.id: obj.footprint @ axes.T for obj in scene.objects}  # [N, 2] (right, away) m
        self._centers = {i: (points.min(axis=0) + points.max(axis=0)) / 2 for i, points in self._footprints.items()}
        self.holds = lru_cache(maxsize=None)(self._holds)  # sampling instructions asks the same questions repeatedly

    def _holds(self, relation: str, target: int, anchor: int) -> bool | None:
        """Three-valued: is `target` in the relation (PAIRWISE or CARRIED) to `anchor`?"""
        first, second = self.objects[target], self.objects[anchor]
        if relation in CARRIED:
            return first.parent == anchor and first.relation == relation
        if target == anchor or first.parent == anchor or second.parent == target:
            return False
        if relation == 'left':
            return self._is_left(target, anchor)
        if relation == 'right':
            return self._is_left(anchor, target)
        if relation == 'front':
            return self._is_in_front(target, anchor)
        if relation == 'behind':
            return self._is_in_front(anchor, target)
        if relation == 'near':
            gap_m = self.gap(target, anchor)
            return True if gap_m < NEAR_M else False if gap_m > FAR_M else None
        raise ValueError(f'{relation!r} is not a relation: {", ".join((*PAIRWISE, *CARRIED))}')

    def _is_left(self, left: int, right: int) -> bool | None:
        """Three-valued: is the object `left` to the left of the object `right`?"""
        a, b = self.objects[left].box, self.objects[right].box
        middle_a, middle_b = (a[0] + a[2]) / 2, (b[0] + b[2]) / 2
        if middle_a >= middle_b:
            return False
        across, along = np.abs(self._centers[left] - self._centers[right])
        is_clear = middle_a < b[0] - EDGE * self.width and a[2] < middle_b and middle_b > a[2] + EDGE * self.width
        return True if is_clear and along < CONE * across else None

    def _is_in_front(self, front: int, back: int) -> bool | None:
        """Three-valued: is the object `front` nearer to the camera than `back`, and lower in the image?"""
        a, b = self._footprints[front], self._footprints[back]
        middle_a, middle_b = self._centers[front], self._centers[back]
        if middle_a[1] >= middle_b[1]:
            return False
        across, along = np.abs(middle_a - middle_b)
        is_clear = middle_a[1] < b[:, 1].min() - 0.01 and middle_b[1] > a[:, 1].max() + 0.01
        is_lower = self.objects[front].box[3] > self.objects[back].box[3] + EDGE * self.width
        return True if is_clear and is_lower and across < CONE * along else None

    def between(self, target: int, first: int, second: int) -> bool | None:
        """Three-valued: does `target` lie between two others, both on the table and in the image?"""
        if any(
            self.objects[target].parent == other or self.objects[other].parent == target for other in (first, second)
        ):
            return False
        boxes = {i: np.array(self.objects[i].box, float) for i in (target, first, second)}
        pixels = {i: (box[:2] + box[2:]) / 2 for i, box in boxes.items()}
        on_table, in_image = (
            _is_between(positions[target], positions[first], positions[second]) for positions in (self._centers, pixels)
        )
        return on_table if on_table == in_image else None

    def gap(self, first: int, second: int) -> float:
        """Return the distance between the outlines of two objects on the table, m; 0 if they overlap."""
        return max(separation(self._footprints[first], self._footprints[second]), 0.0)

    def distance(self, first: int, second: int) -> float:
        """Return the distance between the centres of two objects along the table, m."""
        return float(np.linalg.norm(self._centers[first] - self._centers[second]))

    def across(self, object_id: int) -> float:
        """Return the x coordinate of the object's centre in the image, px."""
        box = self.objects[object_id].box
        return (box[0] + box[2]) / 2

    def away(self, object_id: int) -> float:
        """Return the coordinate of the object's centre along the table away from the camera, m."""
        return float(self._centers[object_id][1])

    def bulk(self, object_id: int) -> float:
        """Return the edge of the cube that has the same volume as the object's bounding box, m."""
        return float(np.prod(self.objects[object_id].extent_m) ** (1 / 3))


def _is_between(target: np.ndarray, first: np.ndarray, second: np.ndarray) -> bool | None:
    """Three-valued: is the point `target` [2] between two others, well within their line and near it?"""
    line = second - first
    length = max(np.linalg.norm(line), 1e-9)
    offset = target - first
    along = offset @ line / length**2
    aside = abs(offset[0] * line[1] - offset[1] * line[0]) / length**2
    if not 0 < along < 1 or aside > 0.5:
        return False
    return True if 0.25 < along < 0.75 and aside < 0.2 else None

"""Ids that stay with objects from image to image: masks carried along by the motion, then assigned by overlap.

The earlier masks are warped by dense optical flow, which follows a moving camera and moving objects alike, and matched
to the new ones by linear assignment (Hungarian method). An object that is not seen for a while is carried along by the
motion of the whole picture and found again near there, by place, size and colour.
"""

from dataclasses import dataclass, replace

import cv2
import numpy as np
from scipy.optimize import linear_sum_assignment

GRID_PX = 160  # the longer side of the picture that tracking works on, about
PATIENCE = 20  # results without an object after which its id is given up
LEAST_IOU = 0.1  # of a carried mask with a new one
NEAR = 1.0  # of an object's size, between centers, where masks do not overlap (fast motion, or seen again)
SAME_SIZE = 0.4  # of two areas, the smaller by the larger
ALIKE = 60.0  # distance of mean colours in YCrCb up to which it may be the same
NEAR_WEIGHT, ALIKE_WEIGHT = 0.3, 0.3  # against an IoU of 1


@dataclass
class _Track:
    id: int
    mask: np.ndarray  # [h, w] uint8 on the grid, 0 or 1
    color: np.ndarray  # [3] YCrCb
    missed: int = 0  # results without it


class Tracker:
    """Keeps ids over the results of one instruction on one camera. Not thread-safe."""

    def __init__(self):
        self._next_id = 0
        self.reset()

    def reset(self):
        """Forgets all objects; ids go on counting."""
        self._tracks = []
        self._grey = None
        self._grid = None

    def update(self, result, image):
        """`result` with the track_id of each instance. image: [H, W, 3] uint8 RGB, what the result is about.

        A picture of another size begins anew, with new ids.
        """
        if self._grid is None or self._grid.size != image.shape[:2]:
            self.reset()
            self._grid = _Grid(*image.shape[:2])
        colors = cv2.cvtColor(self._grid.shrink(image), cv2.COLOR_RGB2YCrCb)
        seen = [self._observe(instance.mask, colors) for instance in result.instances]
        grey = np.ascontiguousarray(colors[..., 0])
        if self._tracks:
            self._carry(grey)
        self._grey = grey
        ids = self._assign(seen)
        return replace(
            result,
            instances=tuple(
                replace(instance, track_id=track) for instance, track in zip(result.instances, ids, strict=True)
            ),
        )

    def _observe(self, rle, colors):
        """What is seen now, as a track without an id."""
        mask = self._grid.sample(rle)
        return _Track(-1, mask, np.array(cv2.mean(colors, mask)[:3]))

    def _carry(self, grey):
        """The tracks' masks to where they are now: of what was seen last time by its own motion, of the rest by that of
        the whole picture.
        """
        pan, _ = cv2.phaseCorrelate(np.float32(grey), np.float32(self._grey))  # where repeated objects mislead the flow
        start = np.full((*grey.shape, 2), pan, np.float32)
        flow = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_FAST).calc(grey, self._grey, start)  # now to before
        x, y = self._grid.places

        def there(across, down):
            return cv2.convertMaps(x + across, y + down, cv2.CV_16SC2, nninterpolation=True)

        own, whole = there(*cv2.split(flow)), None
        if any(track.missed for track in self._tracks):
            whole = there(*np.median(flow[::2, ::2].reshape(-1, 2), axis=0))
        for track in self._tracks:
            track.mask = cv2.remap(track.mask, *(whole if track.missed else own), cv2.INTER_NEAREST)

    def _assign(self, seen):
        """The id of each of `seen`; the tracks are brought up to date."""
        if self._tracks and seen:
            affinity = _affinity(self._tracks, seen, self._grid.places)
            for row, column in zip(*linear_sum_assignment(affinity, maximize=True), strict=True):
                if affinity[row, column] > 0:
                    seen[column].id = self._tracks[row].id
        for each in seen:
            if each.id < 0:
                each.id, self._next_id = self._next_id, self._next_id + 1
        found = {each.id for each in seen}
        lost = [track for track in self._tracks if track.id not in found]
        for track in lost:
            track.missed += 1
        self._tracks = seen + [track for track in lost if track.missed <= PATIENCE]
        return [each.id for each in seen]


class _Grid:
    """Every n-th pixel of a picture of one size."""

    def __init__(self, height, width):
        self.size = height, width
        step = max(1, round(max(height, width) / GRID_PX))
        rows, columns = np.arange(step // 2, height, step), np.arange(step // 2, width, step)
        self._shape = len(rows), len(columns)
        self._pixels = (columns[:, None] * height + rows).ravel()  # as run lengths count them
        self.places = np.float32(np.meshgrid(np.arange(len(columns)), np.arange(len(rows))))  # x and y, [2, h, w]
        self._every = max(1, step // 2)  # rows of the picture that are looked at

    def shrink(self, image):
        return cv2.resize(image[:: self._every], self._shape[::-1], interpolation=cv2.INTER_AREA)

    def sample(self, rle):
        """[h, w] uint8 0 or 1; of a mask that lies between the grid's pixels, the one next to it."""
        ends = np.searchsorted(self._pixels, np.cumsum(rle.counts, dtype=np.int64))
        inside = np.repeat(np.uint8(np.arange(len(ends)) & 1), np.diff(ends, prepend=0))
        if len(ends) > 1 and not inside.any():
            inside[min(ends[0], len(inside) - 1)] = 1
        return np.ascontiguousarray(inside.reshape(self._shape[::-1]).T)


def _affinity(tracks, seen, places):
    """How well carried tracks and what is seen now go together, [tracks, seen]; 0: not at all."""
    before, now = (np.float32([each.mask.ravel() for each in group]) for group in (tracks, seen))
    areas, new_areas = before.sum(axis=1)[:, None], now.sum(axis=1)[None]
    common = before @ now.T
    iou = common / np.maximum(areas + new_areas - common, 1e-6)
    larger, smaller = np.maximum(areas, new_areas), np.minimum(areas, new_areas)
    places = places.reshape(2, -1).T
    with np.errstate(invalid='ignore'):  # a mask that has left the picture has no middle: NaN is near nothing
        apart = (before @ places / areas)[:, None] - (now @ places / new_areas.T)[None]
    far = np.linalg.norm(apart, axis=2) / np.sqrt(np.maximum(larger, 1))
    colors, new_colors = (np.stack([each.color for each in group]) for group in (tracks, seen))
    color = np.linalg.norm(colors[:, None] - new_colors[None], axis=2) / ALIKE
    possible = (iou > LEAST_IOU) | ((far < NEAR) & (smaller > SAME_SIZE * larger))
    affinity = iou + NEAR_WEIGHT / (1 + np.nan_to_num(far, nan=1e6)) + ALIKE_WEIGHT * (1 - color)
    return np.where(possible & (color < 1), affinity, 0)

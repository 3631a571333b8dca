"""Multi-object tracking: warps masks by optical flow and matches them with the Hungarian algorithm.

Masks of earlier results are warped by dense optical flow, which follows a moving camera and moving objects alike, and
assigned to the new ones by overlap, distance and color. An object that is not seen for a while is warped by the median
motion of the image, and recognised near there by its size and color.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np
from scipy.optimize import linear_sum_assignment

from instructsam.core.result import Result
from instructsam.core.rle import Rle

MIN_FLOW_SIDE = 12  # shortest side on the grid; masks of narrower images are not warped
SAFE_FLOW_SIDE = 32  # below it OpenCV's DIS flow chooses its scales by the width alone, and wide images crash it


@dataclass(frozen=True)
class TrackingParams:
    """Parameters of the matching."""

    grid_px: int = 160  # approximate longer side of the downsampled image that tracking works on
    patience: int = 20  # results without an object after which its id is dropped
    min_iou: float = 0.1  # a warped mask and a new one with a higher IoU may be the same object
    max_distance: float = 1.0  # disjoint masks may match (fast motion) if their centroids are nearer, in object sizes
    min_area_ratio: float = 0.4  # smallest ratio of the areas of two disjoint masks that may match
    max_color_distance: float = 60.0  # objects whose mean YCrCb colors differ by more are never the same
    distance_weight: float = 0.3  # weight of the centroids' proximity, relative to the IoU
    color_weight: float = 0.3  # weight of the colors' similarity, relative to the IoU


@dataclass
class _Track:
    id: int
    mask: np.ndarray  # [h, w] uint8 on the grid, 0 or 1
    color: np.ndarray  # [3] YCrCb
    missed: int = 0  # consecutive results without it


class Tracker:
    """Assigns stable ids to the objects in the results of one instruction on one camera. Not thread-safe."""

    def __init__(self, params: TrackingParams = TrackingParams()) -> None:
        self._params = params
        self._next_id = 0
        self.reset()

    def reset(self) -> None:
        """Forget all objects; their ids are not used again."""
        self._tracks: list[_Track] = []
        self._colors: np.ndarray | None = None  # the newest image, [h, w, 3] uint8 YCrCb on the grid
        self._grid: _Grid | None = None

    def update(self, result: Result, image: np.ndarray) -> Result:
        """Return the result with the track_id of each instance: `follow`, then `identify`.

        Args:
            result: Result for `image`.
            image: [H, W, 3] uint8 RGB.
        """
        self.follow(image)
        return self.identify(result)

    def follow(self, image: np.ndarray) -> None:
        """Warp the masks of the known objects to the newest image, before there is a result for it.

        An image of another size than the last one resets the tracker.

        Args:
            image: [H, W, 3] uint8 RGB.
        """
        height, width = image.shape[:2]
        if self._grid is None or self._grid.size != (height, width):
            self.reset()
            self._grid = _Grid(height, width, self._params.grid_px)
        colors = cv2.cvtColor(self._grid.shrink(image), cv2.COLOR_RGB2YCrCb)
        if self._tracks and self._colors is not None and min(colors.shape[:2]) >= MIN_FLOW_SIDE:
            before, now = (np.ascontiguousarray(each[..., 0]) for each in (self._colors, colors))
            _warp(self._tracks, before, now, self._grid.coordinates)
        self._colors = colors

    def identify(self, result: Result) -> Result:
        """Return the result for the newest image with the track_id of each instance."""
        assert self._grid is not None, 'follow() comes first'
        assert self._colors is not None
        masks = self._grid.sample([instance.mask for instance in result.instances]) if result.instances else ()
        ids = self._assign([_detection(mask, self._colors) for mask in masks], self._grid.coordinates)
        instances = [replace(instance, track_id=id_) for instance, id_ in zip(result.instances, ids, strict=True)]
        return replace(result, instances=tuple(instances))

    def _assign(self, detections: list[_Track], coordinates: np.ndarray) -> list[int]:
        """Give every detection an id, update the tracks and return the ids."""
        if self._tracks and detections:
            affinity = _affinity(self._tracks, detections, coordinates, self._params)
            for row, column in zip(*linear_sum_assignment(affinity, maximize=True), strict=True):
                if affinity[row, column] > 0:
                    detections[column].id = self._tracks[row].id
        for detection in detections:
            if detection.id < 0:
                detection.id, self._next_id = self._next_id, self._next_id + 1
        found = {detection.id for detection in detections}
        lost = [track for track in self._tracks if track.id not in found]
        for track in lost:
            track.missed += 1
        self._tracks = detections + [track for track in lost if track.missed <= self._params.patience]
        return [detection.id for detection in detections]


class _Grid:
    """The pixels of an image of one size that tracking works on: every n-th row and column."""

    def __init__(self, height: int, width: int, longer_side_px: int) -> None:
        self.size = height, width
        self._step = step = max(1, round(max(height, width) / longer_side_px))
        rows, columns = (np.arange(min(step // 2, side // 2), side, step) for side in (height, width))
        self._shape = len(rows), len(columns)
        self._pixels = (columns[:, None] * height + rows).ravel()  # in the order of run lengths
        self.coordinates = np.stack(np.meshgrid(np.arange(len(columns)), np.arange(len(rows)))).astype(np.float32)
        """x and y of every pixel, [2, h, w] float32."""
        self._row_step = max(1, step // 2)  # averaging over half of the rows is enough

    def shrink(self, image: np.ndarray) -> np.ndarray:
        """Return image [H, W, 3] on the grid, [h, w, 3]."""
        return cv2.resize(image[:: self._row_step], self._shape[::-1], interpolation=cv2.INTER_AREA)

    def sample(self, masks: Sequence[Rle]) -> np.ndarray:
        """Return masks on the grid, [N, h, w] uint8, 0 or 1. A mask between the grid's pixels sets one near it."""
        height, width = self.size
        numbers = np.array([len(mask.counts) for mask in masks])  # runs per mask
        firsts = np.cumsum(numbers) - numbers  # index of each mask's first run among those of all
        of_mask = np.repeat(np.arange(len(masks)), numbers)
        run_ends = np.cumsum(np.concatenate([mask.counts for mask in masks]), dtype=np.int64)
        run_ends -= of_mask * (height * width)
        ends = np.searchsorted(self._pixels, run_ends) + of_mask * len(self._pixels)
        lengths = ends.copy()
        lengths[1:] -= ends[:-1]
        inside = np.repeat(np.uint8((np.arange(len(ends)) - firsts[of_mask]) & 1), lengths)
        inside = np.ascontiguousarray(inside.reshape(len(masks), *self._shape[::-1]).transpose(0, 2, 1))
        for index in np.flatnonzero((numbers > 1) & ~inside.any(axis=(1, 2))):
            column, row = divmod(int(run_ends[firsts[index]]), height)  # the first pixel of the mask
            inside[index, min(row // self._step, self._shape[0] - 1), min(column // self._step, self._shape[1] - 1)] = 1
        return inside


def _detection(mask: np.ndarray, colors: np.ndarray) -> _Track:
    """Return a track without an id, of a mask [h, w] in an image [h, w, 3] YCrCb."""
    return _Track(-1, mask, np.array(cv2.mean(colors, mask)[:3]))


def dense_flow(
    optical_flow: cv2.DISOpticalFlow, image: np.ndarray, other: np.ndarray, start: np.ndarray | None = None
) -> np.ndarray:
    """Return the flow from `image` to `other`, [h, w, 2] float32 px.

    Args:
        optical_flow: A DIS flow with the presets' finest scale of 2.
        image: [h, w] uint8.
        other: The same.
        start: The flow that the search starts from, if there is one.
    """
    height, width = image.shape
    below, right = max(0, SAFE_FLOW_SIDE - height), max(0, SAFE_FLOW_SIDE - width)
    if below or right:
        image, other = (cv2.copyMakeBorder(each, 0, below, 0, right, cv2.BORDER_REPLICATE) for each in (image, other))
        start = None if start is None else cv2.copyMakeBorder(start, 0, below, 0, right, cv2.BORDER_REPLICATE)
    return optical_flow.calc(image, other, start)[:height, :width]  # pyright: ignore[reportArgumentType, reportCallIssue]


def _warp(tracks: Sequence[_Track], before: np.ndarray, now: np.ndarray, coordinates: np.ndarray) -> None:
    """Warp the masks of the tracks from the last image to the current one, in place.

    A mask of the last result moves by the dense flow, an older one by the median flow, the camera's motion.

    Args:
        tracks: The tracks whose masks are warped.
        before: The last image, [h, w] uint8.
        now: The current image, [h, w] uint8.
        coordinates: x and y of every pixel, [2, h, w].
    """
    # The flow starts from the global shift, because repeated objects would mislead it.
    shift, _ = cv2.phaseCorrelate(now.astype(np.float32), before.astype(np.float32))
    start = np.full((*now.shape, 2), shift, np.float32)
    optical_flow = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_FAST)
    flow = dense_flow(optical_flow, now, before, start)  # from the current image to the last one
    x, y = coordinates
    dense = cv2.convertMaps(x + flow[..., 0], y + flow[..., 1], cv2.CV_16SC2, nninterpolation=True)
    median = dense
    if any(track.missed for track in tracks):
        across, down = np.median(flow[::2, ::2].reshape(-1, 2), axis=0)
        median = cv2.convertMaps(x + across, y + down, cv2.CV_16SC2, nninterpolation=True)
    for track in tracks:
        map1, map2 = median if track.missed else dense
        track.mask = cv2.remap(track.mask, map1, map2, cv2.INTER_NEAREST)


def _affinity(
    tracks: Sequence[_Track],
    detections: Sequence[_Track],
    coordinates: np.ndarray,
    params: TrackingParams,
) -> np.ndarray:
    """Return the affinity [tracks, detections] of each track and detection; 0: they cannot be the same object."""
    before, now = _flat_masks(tracks), _flat_masks(detections)
    areas, new_areas = before.sum(axis=1)[:, None], now.sum(axis=1)[None]
    intersection = before @ now.T
    iou = intersection / np.maximum(areas + new_areas - intersection, 1e-6)
    larger, smaller = np.maximum(areas, new_areas), np.minimum(areas, new_areas)
    coordinates = coordinates.reshape(2, -1).T
    with np.errstate(invalid='ignore'):  # a mask that has left the image has no centroid: NaN, which is near nothing
        offset = (before @ coordinates / areas)[:, None] - (now @ coordinates / new_areas.T)[None]
    distance = np.linalg.norm(offset, axis=2) / np.sqrt(np.maximum(larger, 1))
    colors, new_colors = (np.stack([each.color for each in group]) for group in (tracks, detections))
    color = np.linalg.norm(colors[:, None] - new_colors[None], axis=2) / params.max_color_distance
    is_near = (distance < params.max_distance) & (smaller > params.min_area_ratio * larger)
    proximity = params.distance_weight / (1 + np.nan_to_num(distance, nan=1e6))
    affinity = iou + proximity + params.color_weight * (1 - color)
    return np.where(((iou > params.min_iou) | is_near) & (color < 1), affinity, 0)


def _flat_masks(tracks: Sequence[_Track]) -> np.ndarray:
    """Return the masks as [tracks, h * w] float32."""
    return np.stack([track.mask.ravel() for track in tracks]).astype(np.float32)

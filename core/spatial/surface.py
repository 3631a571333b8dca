"""The visible surface of a segmented object: the mask's pixels with usable depth, and the 3D points they give.

All computation stays within a crop around the mask, and fits use a subsample of the points, so that ten instances take
some milliseconds.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cached_property
from typing import NamedTuple

import cv2
import numpy as np
from scipy.spatial import KDTree

from instructsam.core.errors import GeometryError
from instructsam.core.rle import Rle

Rays = tuple[np.ndarray, np.ndarray]
"""x / z and y / z of every pixel of a crop, each [h, w] float32, as in CameraModel.rays."""

Pixels = tuple[np.ndarray, np.ndarray]
"""Rows [N] and columns [N] in a crop."""

MIN_MARGIN = 5
"""Least width of the margin of a crop, in its own pixels: the supporting plane is looked for within it."""

_KERNEL = np.ones((3, 3), np.uint8)


@dataclass(frozen=True)
class SurfaceParams:
    """Parameters that separate a surface from its background and set the density of its samples."""

    depth_jump: float = 0.03  # relative depth difference above which neighbouring pixels are on different surfaces
    fragment_share: float = 0.2  # fragments below this share of the largest one's area are small
    fragment_gap_m: float = 0.02  # small fragments farther than this from every large one are dropped
    floor_m: float = 0.004  # points up to this height above the supporting plane belong to the plane
    floor_share: float = 0.25  # floor_m is limited to this share of the object's height
    min_points: int = 12  # objects with fewer usable pixels are not measured
    sample_points: int = 1500  # a fit gets about this many points at most
    edge_points: int = 800  # points of the outline in addition: a convex hull has its corners there
    max_crop_px: int = 60_000  # larger crops are read at every n-th row and column
    reach_m: float = 0.15  # surroundings up to this far from the object are kept: a hand around it may touch them
    surroundings_step_m: float = 0.003  # largest distance of their pixels at the object's depth, if pixels are finer


class MaskCrop(NamedTuple):
    """A part of the image around a mask. In a large crop, the slices have a step."""

    rows: slice
    columns: slice
    mask: np.ndarray  # [h, w] bool


def crop_around(mask: Rle, margin_px: int, max_px: int) -> MaskCrop:
    """Return the mask with a margin around it, decoded from its run lengths without the rest of the image.

    Args:
        mask: Mask of the whole image.
        margin_px: Width of the margin, at least MIN_MARGIN pixels of the crop; the border of the image cuts it off.
        max_px: Size above which every n-th row and column are taken; a wider margin than `margin_px` does not count.

    Raises:
        GeometryError: The mask is empty.
    """
    x0, y0, x1, y1 = mask.box
    if not x1:
        raise GeometryError('the mask is empty')

    def with_margin(margin: int) -> tuple[slice, slice]:
        return (
            slice(max(0, y0 - margin), min(mask.height, y1 + margin)),
            slice(max(0, x0 - margin), min(mask.width, x1 + margin)),
        )

    rows, columns = with_margin(margin_px)
    step = math.ceil(math.sqrt((rows.stop - rows.start) * (columns.stop - columns.start) / max_px))
    rows, columns = with_margin(max(margin_px, MIN_MARGIN * step))
    ends = np.cumsum(mask.counts, dtype=np.int64) - columns.start * mask.height
    lengths = np.clip(ends, 0, (columns.stop - columns.start) * mask.height)
    lengths[1:] -= lengths[:-1].copy()
    inside = np.repeat(np.uint8(np.arange(len(lengths)) & 1), lengths).reshape(-1, mask.height)
    cropped = _every_nth(inside, rows, step)
    if step > 1 and not cropped.any():  # All of a thin mask is between these rows or columns: begin at one of its own.
        x, y = np.divmod(int(inside.argmax()), mask.height)
        rows = slice(rows.start + (y - rows.start) % step, rows.stop)
        columns = slice(columns.start + x % step, columns.stop)
        cropped = _every_nth(inside[x % step :], rows, step)
    return MaskCrop(
        slice(rows.start, rows.stop, step),
        slice(columns.start, columns.stop, step),
        cropped,
    )


def _every_nth(columns: np.ndarray, rows: slice, step: int) -> np.ndarray:
    """Return [h, w] bool, every n-th pixel in these rows of the columns [W, H] uint8 of a mask."""
    return cv2.transpose(columns[::step, rows.start : rows.stop : step]).view(bool)  # takes a fifth of numpy's time


class Surroundings(NamedTuple):
    """A coarse part of the image around a crop. It is a copy, as drivers reuse the memory of their images."""

    depth: np.ndarray  # [h, w] in the unit of the image, 0 inside the crop
    rays: Rays

    def depth_m(self) -> np.ndarray:
        """Return the depth [h, w] float32 m, 0 where there is none, where there is no ray, and inside the crop."""
        return np.where(np.isfinite(self.rays[0]), to_meters(self.depth), np.float32(0))


def surroundings_of(
    crop: MaskCrop,
    depth: np.ndarray,
    rays: Rays,
    *,
    depth_range_m: tuple[float, float],
    focal_px: float,
    params: SurfaceParams,
) -> Surroundings:
    """Return the part of the image that a hand around an object may touch.

    Args:
        crop: The crop around the object.
        depth: Depth [H, W] of the whole image, as in `to_meters`.
        rays: x / z and y / z of every pixel of the image.
        depth_range_m: Nearest and farthest depth of the object.
        focal_px: Focal length.
        params: Width and density of the part.
    """
    nearest, farthest = depth_range_m
    margin = math.ceil(params.reach_m * focal_px / nearest)
    top, bottom = max(0, crop.rows.start - margin), min(depth.shape[0], crop.rows.stop + margin)
    left, right = max(0, crop.columns.start - margin), min(depth.shape[1], crop.columns.stop + margin)
    least_step = math.ceil(math.sqrt((bottom - top) * (right - left) / params.max_crop_px))
    step = max(least_step, int(params.surroundings_step_m * focal_px / farthest))
    rows, columns = slice(top, bottom, step), slice(left, right, step)
    coarse = depth[rows, columns].copy()
    first_row, end_row = (math.ceil((row - top) / step) for row in (crop.rows.start, crop.rows.stop))
    first_column, end_column = (math.ceil((column - left) / step) for column in (crop.columns.start, crop.columns.stop))
    coarse[first_row:end_row, first_column:end_column] = 0
    return Surroundings(coarse, (rays[0][rows, columns], rays[1][rows, columns]))


@dataclass(frozen=True, eq=False)
class Surface:
    """The pixels of a crop that belong to an object, with all that their 3D points are computed from."""

    depth: np.ndarray  # [h, w] float32 m, 0 where there is none
    mask: np.ndarray  # [h, w] bool, the object's usable pixels
    rays: Rays
    rows: slice  # rows of the crop in the image, with a step
    columns: slice
    width: int  # px, of the image
    params: SurfaceParams = SurfaceParams()
    rotation: np.ndarray | None = None  # [3, 3], to the frame of `points`; None: the camera's optical frame
    translation: np.ndarray | None = None  # [3] m

    @cached_property
    def count(self) -> int:
        """Number of points."""
        return int(np.count_nonzero(self.mask))

    @cached_property
    def points(self) -> np.ndarray:
        """Points [N, 3] float32 m, one per usable pixel, in the frame that `moved` led to."""
        y, x = np.nonzero(self.mask)
        points = back_project(self.depth, (y, x), self.rays)
        if self.rotation is None or self.translation is None:
            return points
        return points @ self.rotation.astype(np.float32).T + self.translation.astype(np.float32)

    @property
    def pixels(self) -> np.ndarray:
        """The pixel [N] of the image that shows each of the points: row * width + column."""
        y, x = np.nonzero(self.mask)
        return (self.rows.start + y * self.rows.step) * self.width + self.columns.start + x * self.columns.step

    @cached_property
    def sample(self) -> Pixels:
        """A subsample of the pixels, spread over all of them."""
        return subsample(self.mask, self.count, self.params.sample_points)

    @cached_property
    def sampled_points(self) -> np.ndarray:
        """Points [M, 3] float32 m of `sample` in the camera's optical frame."""
        return back_project(self.depth, self.sample, self.rays)

    @cached_property
    def hull_points(self) -> np.ndarray:
        """Points [K, 3] float32 m among which the convex hull has its corners, in the camera's optical frame."""
        outline = self.mask > cv2.erode(self.mask.view(np.uint8), _KERNEL).view(bool)
        edge = np.flatnonzero(outline)
        rows, columns = np.divmod(edge[:: 1 + len(edge) // self.params.edge_points], outline.shape[1])
        return np.concatenate([back_project(self.depth, (rows, columns), self.rays), self.sampled_points[::3]])

    def moved(self, rotation: np.ndarray, translation: np.ndarray) -> Surface:
        """Return the surface in another frame, where a point is rotation [3, 3] @ point + translation [3] m."""
        if self.rotation is not None and self.translation is not None:
            rotation, translation = rotation @ self.rotation, rotation @ self.translation + translation
        return replace(self, rotation=rotation, translation=translation)


def back_project(depth: np.ndarray, pixels: Pixels, rays: Rays) -> np.ndarray:
    """Return the points [N, 3] float32 m of pixels of a crop with depth [h, w] m, in the camera's optical frame."""
    z = depth[pixels]
    points = np.empty((len(z), 3), np.float32)
    np.multiply(rays[0][pixels], z, out=points[:, 0])
    np.multiply(rays[1][pixels], z, out=points[:, 1])
    points[:, 2] = z
    return points


def subsample(mask: np.ndarray, count: int, max_points: int) -> Pixels:
    """Return the pixels of a mask [h, w] that has `count`; if they are many, those of every n-th row and column."""
    step = max(1, round(math.sqrt(count / max_points)))
    coarse = mask[::step, ::step]
    rows, columns = np.divmod(np.flatnonzero(coarse), coarse.shape[1])  # takes half of np.nonzero's time
    return rows * step, columns * step


NO_DEPTH_MM = 65535
"""Largest 16-bit number: some drivers send it, instead of 0, where there is no depth."""

NO_DEPTH_M = 1000.0
"""Depth from which on a number is not a measurement: some drivers send the largest float, simulators the far plane."""

LEAST_DEPTH_M = np.float32(0.001)
"""Smaller numbers are not measurements, but for example the bits of other data; 16-bit depth has none."""


def to_meters(depth: np.ndarray) -> np.ndarray:
    """Return a float32 copy of depth in m, 0 where there is none. depth: float m, or uint16 mm."""
    if depth.dtype == np.uint16:
        meters = depth * np.float32(0.001)
        meters[depth == NO_DEPTH_MM] = 0
        return meters
    is_measured = (depth >= LEAST_DEPTH_M) & (depth < NO_DEPTH_M)  # also false for NaN
    return np.where(is_measured, depth, 0).astype(np.float32)


def depth_edges(depth: np.ndarray, mask: np.ndarray, jump: float) -> np.ndarray:
    """Return the pixels [h, w] bool at or next to a depth discontinuity in the mask.

    Their depth may lie between the two surfaces (flying pixels).

    Args:
        depth: Depth [h, w], uint16 or float32.
        mask: Pixels [h, w] bool that have a depth; the others cause no discontinuity.
        jump: Relative depth difference from which neighbours are on different surfaces.
    """
    beyond = depth.dtype.type(65535 if depth.dtype == np.uint16 else 1e9)
    highest = cv2.dilate(depth * mask, _KERNEL)
    lowest = cv2.erode(np.where(mask, depth, beyond), _KERNEL)
    return highest > lowest * np.float32(1 + jump)


def drop_detached_fragments(surface: Surface) -> Surface:
    """Remove fragments of the mask that are small and not adjacent in 3D to a large one.

    A mask that runs over the object's edge, or has islands elsewhere, has such fragments on other objects.
    """
    contours, hierarchy = cv2.findContours(surface.mask.view(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    if np.count_nonzero(hierarchy[0, :, 3] < 0) == 1:  # one fragment; the others are holes
        return surface
    # A fragment is represented by its outer contour; the contour of a hole belongs to the contour around it.
    fragment_of = np.array([index if outer < 0 else outer for index, (*_, outer) in enumerate(hierarchy[0])])
    areas = np.array([cv2.contourArea(contour) for contour in contours])[fragment_of]
    is_small = areas < surface.params.fragment_share * areas.max()
    if not is_small.any():
        return surface

    def contour_points(chosen: np.ndarray) -> np.ndarray:
        x, y = np.concatenate([contours[index] for index in chosen])[:, 0].T
        return back_project(surface.depth, (y, x), surface.rays)

    small = np.flatnonzero(is_small & (fragment_of == np.arange(len(contours))))
    large_points = KDTree(contour_points(np.flatnonzero(~is_small)))
    gaps_m, _ = large_points.query(contour_points(small), distance_upper_bound=surface.params.fragment_gap_m)
    starts = np.cumsum([0, *(len(contours[index]) for index in small[:-1])])
    mask = surface.mask.copy()
    for index in small[np.isinf(np.minimum.reduceat(gaps_m, starts))]:
        cv2.drawContours(mask.view(np.uint8), contours, index, 0, cv2.FILLED)
    return replace(surface, mask=mask)

"""Fits the plane that an object stands on to the depth around its mask, by RANSAC."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import NamedTuple

import cv2
import numpy as np

from instructsam.core.spatial.surface import Rays, back_project, subsample
from instructsam.core.spatial.vectors import cross, robust_extent

MIN_RING = 2.0
"""Least outer distance of the ring from the mask, in pixels of the resolution at which it is looked for."""


class Plane(NamedTuple):
    """The points with normal @ point + offset_m = 0."""

    normal: np.ndarray  # [3], of unit length, towards the camera
    offset_m: float


@dataclass(frozen=True)
class PlaneFit:
    """Parameters of the fit."""

    ring_px: tuple[int, int] = (3, 20)  # distances from the mask between which the plane is looked for
    depth_margin_m: float = 0.3  # depth searched before and beyond the object: about the height of objects on tables
    ring_points: int = 1500  # the ring, and the whole image, are subsampled to about this many points
    min_points: int = 12  # a ring with fewer points has no plane
    hypotheses: int = 64  # planes through three random points
    scored_points: int = 250  # points whose inliers decide between the hypotheses
    inlier_m: float = 0.006  # distance from the plane below which a point is an inlier
    max_ring_px: int = 10_000  # size of a crop above which the ring is looked for at a lower resolution
    scene_planes: int = 3  # most planes of the scene that are looked for
    min_scene_share: float = 0.25  # least share of a plane in the image's other points, without the planes found before
    min_scene_share_of_all: float = 0.15  # least share of a plane in all points of the image
    max_tilt_deg: float = 10.0  # planes that differ by less from a plane of the scene are parallel to it
    min_parallel_share: float = 0.15  # least share of inliers in the ring for a plane parallel to one of the scene
    min_tilted_share: float = 0.7  # the same for any other plane, which may be the side of a neighbour
    min_inlier_share: float = 0.35  # the same if the scene has no plane
    max_gap_m: float = 0.015  # the lowest visible part of an object on a plane is at most this high above it
    max_hidden_m: float = 0.1  # the same if the lower part of the object is hidden, as of a spoon in a mug


def fit_scene_normals(depth: np.ndarray, rays: Rays, params: PlaneFit = PlaneFit()) -> list[np.ndarray]:
    """Return the normals [3] of the large planes in an image, towards the camera, the largest first.

    They are usually those of a table or a floor and of walls, and what objects stand on is parallel to one of them.

    Args:
        depth: Depth [h, w] float32 m, 0 where there is none.
        rays: x / z and y / z of every pixel.
        params: Parameters of the fit.
    """
    points = back_project(depth, subsample(depth > 0, depth.size, params.ring_points), rays).astype(np.float64)
    normals, count = [], len(points)
    while len(normals) < params.scene_planes:
        found = _ransac(points, params.min_scene_share, params)
        if found is None or found.is_inlier.sum() < params.min_scene_share_of_all * count:
            break
        normals.append(found.plane.normal)
        points = points[~found.is_inlier]
    return normals


def fit_support_plane(
    depth: np.ndarray,
    mask: np.ndarray,
    rays: Rays,
    *,
    depth_range_m: tuple[float, float],
    step: int,
    points: np.ndarray,
    scene_normals: Sequence[np.ndarray] = (),
    params: PlaneFit = PlaneFit(),
) -> Plane | None:
    """Fit the supporting plane to the ring around the mask by RANSAC.

    It is None if too few points of the ring are inliers, or if most of the object lies below the plane, as a basin does
    below the counter.

    A ring also shows the sides of neighbours, of the vessel that an object is in, and of what it stands on; they often
    have more points than the support. So planes parallel to those of the scene come first: among them those that the
    object reaches down to, as it does not to a wall behind it, and then the one with the most points.

    Args:
        depth: Depth [h, w] float32 m of a crop, 0 where there is none.
        mask: The object [h, w] bool.
        rays: x / z and y / z of every pixel of the crop.
        depth_range_m: Nearest and farthest depth at which a pixel can belong to the plane.
        step: Pixels of the image per pixel of the crop, in each direction.
        points: Visible points [N, 3] m of the object.
        scene_normals: As `fit_scene_normals` returns them.
        params: Parameters of the fit.
    """
    ring = _ring_points(depth, mask, rays, depth_range_m, step, params).astype(np.float64)
    found = [_ransac(ring, params.min_parallel_share, params, normal) for normal in scene_normals]
    parallel = [each for each in found if each is not None and not _is_below(points, each.plane, params)]
    if parallel:
        gaps_m = [_gap_m(each.plane, points) for each in parallel]
        counts = [np.count_nonzero(each.is_inlier) for each in parallel]
        best = max(range(len(parallel)), key=lambda index: (gaps_m[index] < params.max_gap_m, counts[index]))
        return parallel[best].plane if gaps_m[best] < params.max_hidden_m else None
    tilted = _ransac(ring, params.min_tilted_share if scene_normals else params.min_inlier_share, params)
    return None if tilted is None or _is_below(points, tilted.plane, params) else tilted.plane


def heights_above(plane: Plane, points: np.ndarray) -> np.ndarray:
    """Return the heights [N] float32 m of points [N, 3] above a plane."""
    return points @ plane.normal.astype(np.float32) + np.float32(plane.offset_m)


def _gap_m(plane: Plane, points: np.ndarray) -> float:
    """Return the height above a plane of the lowest of points [N, 3] m."""
    return robust_extent(heights_above(plane, points))[1]


def _is_below(points: np.ndarray, plane: Plane, params: PlaneFit) -> bool:
    """Return whether most of points [N, 3] m are farther below a plane than its inliers are."""
    return bool(np.mean(heights_above(plane, points) < -params.inlier_m) > 0.5)


class _Fit(NamedTuple):
    plane: Plane
    is_inlier: np.ndarray  # [N] bool


def _ransac(
    points: np.ndarray, min_share: float, params: PlaneFit, parallel_to: np.ndarray | None = None
) -> _Fit | None:
    """Return the plane that most of the points [N, 3] m lie on; None if their share is below `min_share`.

    Three random points give a hypothesis; the one with the most inliers is refitted to them by least squares. The
    random numbers are the same in every call, and so are the results.
    """
    if len(points) < params.min_points:
        return None
    triples = points[(_random_triples(params.hypotheses) * len(points)).astype(int)]
    normals = cross((triples[:, 1] - triples[:, 0]).T, (triples[:, 2] - triples[:, 0]).T).T
    lengths = np.sqrt((normals**2).sum(axis=1))
    is_plane = lengths > 1e-12  # the three points do not lie on one line
    normals = normals[is_plane] / lengths[is_plane, None]
    offsets = (normals * triples[is_plane, 0]).sum(axis=1)
    if parallel_to is not None:
        # Parallel planes through single points are hypotheses as well: three points seldom lie on a small support.
        normals = np.concatenate([normals, np.full_like(triples[:, 0], parallel_to)])
        offsets = np.concatenate([offsets, triples[:, 0] @ parallel_to])
        is_parallel = np.abs(normals @ parallel_to) > np.cos(np.deg2rad(params.max_tilt_deg))
        normals, offsets = normals[is_parallel], offsets[is_parallel]
    if not len(normals):
        return None
    scored = points[:: max(1, len(points) // params.scored_points)]
    distances = normals @ scored.T
    distances -= offsets[:, None]
    np.abs(distances, out=distances)
    best = np.count_nonzero(distances < params.inlier_m, axis=1).argmax()
    is_inlier = np.abs(points @ normals[best] - offsets[best]) < params.inlier_m
    if np.count_nonzero(is_inlier) / len(points) < min_share:
        return None
    plane = _least_squares_plane(points.compress(is_inlier, axis=0))
    if parallel_to is not None and plane.normal @ parallel_to < np.cos(np.deg2rad(params.max_tilt_deg)):
        return None  # few inliers in a narrow strip
    return _Fit(plane, is_inlier)


def _ring_points(
    depth: np.ndarray,
    mask: np.ndarray,
    rays: Rays,
    depth_range_m: tuple[float, float],
    step: int,
    params: PlaneFit,
) -> np.ndarray:
    """Return points [N, 3] float32 m around the mask."""
    coarse = int(min(max(math.sqrt(mask.size / params.max_ring_px), 1), 4))
    distance = cv2.distanceTransform((~mask[::coarse, ::coarse]).view(np.uint8), cv2.DIST_L2, 3)
    seen = depth[::coarse, ::coarse]
    inner, outer = (np.float64(distance_px) / (coarse * step) for distance_px in params.ring_px)
    nearest, farthest = depth_range_m
    # In a large image, the pixels next to the mask may be farther from it than the ring.
    ring = (distance > inner) & (distance <= max(outer, MIN_RING)) & (seen > nearest) & (seen < farthest)
    y, x = subsample(ring, int(np.count_nonzero(ring)), params.ring_points)
    return back_project(depth, (y * coarse, x * coarse), rays)


@cache
def _random_triples(count: int) -> np.ndarray:
    """Return [count, 3] uniform random numbers in [0, 1), always the same."""
    return np.random.default_rng(0).random((count, 3))


def _least_squares_plane(points: np.ndarray) -> Plane:
    """Return the plane through points [N, 3] m with the least squared distances."""
    # OpenCV's functions take a third of the time of numpy's.
    flags = cv2.COVAR_ROWS | cv2.COVAR_NORMAL
    covariance, center = cv2.calcCovarMatrix(points, None, flags)  # pyright: ignore[reportArgumentType, reportCallIssue]
    _, _, axes = cv2.eigen(covariance)
    normal, center = axes[2], center[0]  # the axis with the least variance
    normal = -normal if normal @ center > 0 else normal
    return Plane(normal, float(-normal @ center))

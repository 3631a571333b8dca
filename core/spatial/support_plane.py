"""Fits the plane that an object stands on to the depth around its mask, by RANSAC."""

from dataclasses import dataclass
from functools import cache
from typing import NamedTuple

import cv2
import numpy as np

from instructsam.core.spatial.surface import Rays, back_project, subsample
from instructsam.core.spatial.vectors import cross, mean


class Plane(NamedTuple):
    """The points with normal @ point + offset_m = 0."""

    normal: np.ndarray  # [3], of unit length, towards the camera
    offset_m: float


@dataclass(frozen=True)
class PlaneFit:
    """Parameters of the fit."""

    ring_px: tuple[int, int] = (3, 20)  # distances from the mask between which the plane is looked for
    depth_margin_m: float = 0.3  # depth searched before and beyond the object: about the height of objects on tables
    ring_points: int = 1500  # the ring is subsampled to about this many points
    min_points: int = 12  # a ring with fewer points has no plane
    hypotheses: int = 64  # planes through three random points
    scored_points: int = 250  # points whose inliers decide between the hypotheses
    inlier_m: float = 0.006  # distance from the plane below which a point is an inlier
    min_inlier_share: float = 0.35  # share of the ring; below it, what surrounds the object is not flat
    max_ring_px: int = 10_000  # size of a crop above which the ring is looked for at a lower resolution


def fit_support_plane(
    depth: np.ndarray,
    mask: np.ndarray,
    rays: Rays,
    *,
    depth_range_m: tuple[float, float],
    step: int,
    params: PlaneFit = PlaneFit(),
) -> Plane | None:
    """Fit the supporting plane to the ring around the mask by RANSAC; None if too few of its points are inliers.

    Three random points give a hypothesis; the one with the most inliers is refitted to them by least squares. The
    random numbers are the same in every call, and so are the results.

    Args:
        depth: Depth [h, w] float32 m of a crop, 0 where there is none.
        mask: The object [h, w] bool.
        rays: x / z and y / z of every pixel of the crop.
        depth_range_m: Nearest and farthest depth at which a pixel can belong to the plane.
        step: Pixels of the image per pixel of the crop, in each direction.
        params: Parameters of the fit.
    """
    points = _ring_points(depth, mask, rays, depth_range_m, step, params).astype(np.float64)
    if len(points) < params.min_points:
        return None
    triples = points[(_random_triples(params.hypotheses) * len(points)).astype(int)]
    normals = cross((triples[:, 1] - triples[:, 0]).T, (triples[:, 2] - triples[:, 0]).T).T
    lengths = np.sqrt((normals**2).sum(axis=1))
    is_plane = lengths > 1e-12  # the three points do not lie on one line
    if not is_plane.any():
        return None
    normals = normals[is_plane] / lengths[is_plane, None]
    offsets = (normals * triples[is_plane, 0]).sum(axis=1)
    scored = points[:: max(1, len(points) // params.scored_points)]
    best = np.count_nonzero(np.abs(scored @ normals.T - offsets) < params.inlier_m, axis=0).argmax()
    is_inlier = np.abs(points @ normals[best] - offsets[best]) < params.inlier_m
    if is_inlier.mean() < params.min_inlier_share:
        return None
    return _least_squares_plane(points[is_inlier])


def _ring_points(
    depth: np.ndarray,
    mask: np.ndarray,
    rays: Rays,
    depth_range_m: tuple[float, float],
    step: int,
    params: PlaneFit,
) -> np.ndarray:
    """Return points [N, 3] float32 m around the mask."""
    coarse = int(np.clip(np.sqrt(mask.size / params.max_ring_px), 1, 4))
    distance = cv2.distanceTransform((~mask[::coarse, ::coarse]).view(np.uint8), cv2.DIST_L2, 3)
    seen = depth[::coarse, ::coarse]
    inner, outer = np.divide(params.ring_px, coarse * step)
    nearest, farthest = depth_range_m
    ring = (distance > inner) & (distance <= outer) & (seen > nearest) & (seen < farthest)
    y, x = subsample(ring, int(np.count_nonzero(ring)), params.ring_points)
    return back_project(depth, (y * coarse, x * coarse), rays)


@cache
def _random_triples(count: int) -> np.ndarray:
    """Return [count, 3] uniform random numbers in [0, 1), always the same."""
    return np.random.default_rng(0).random((count, 3))


def _least_squares_plane(points: np.ndarray) -> Plane:
    """Return the plane through points [N, 3] m with the least squared distances."""
    center = mean(points)
    points = points - center
    normal = np.linalg.eigh(points.T @ points)[1][:, 0]
    normal = -normal if normal @ center > 0 else normal
    return Plane(normal, float(-normal @ center))

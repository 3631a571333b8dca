"""Oriented bounding boxes of an object's visible points: standing on a plane, or along their principal axes."""

from dataclasses import dataclass

import cv2
import numpy as np

from instructsam.core.spatial.support_plane import Plane, heights_above
from instructsam.core.spatial.surface import Surface
from instructsam.core.spatial.vectors import cross, mean, robust_extent

LEAST_SIZE_M = 0.001
"""Least size of a box along each axis, of a flat object for example: motion planners refuse a box without volume."""


@dataclass(frozen=True, eq=False)
class OrientedBox:
    """A box in the camera's optical frame. The columns of `rotation` are its axes: length, width, height."""

    center: np.ndarray  # [3] m
    rotation: np.ndarray  # [3, 3], right-handed
    size_m: np.ndarray  # [3], along the axes
    visible_m: np.ndarray  # [3], extent of the visible points along the axes
    centroid: np.ndarray  # [3] m, mean of the visible points


def box_on_plane(surface: Surface, plane: Plane) -> OrientedBox:
    """Return the box that stands on a plane and contains the visible points.

    The plane's normal is its third axis, it reaches from the plane to the highest point, and its footprint is the
    smallest rectangle around all points seen from above.
    """
    normal = plane.normal
    across = np.array([normal[1], -normal[0], 0.0])  # horizontal in the image
    if across @ across < 1e-6:  # the camera looks straight down
        across = np.array([1.0, 0.0, 0.0])
    across -= normal * (normal @ across)
    across /= np.sqrt(across @ across)
    basis = np.array([across, cross(normal, across)]).T.copy()
    footprint = cv2.convexHull(surface.hull_points @ basis.astype(np.float32))
    (x, y), (length, width), angle = cv2.minAreaRect(footprint)
    angle = np.deg2rad(angle)
    axes = basis @ np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    if length < width:
        axes, length, width = np.stack([axes[:, 1], -axes[:, 0]], axis=1), width, length
    top, bottom = robust_extent(heights_above(plane, surface.sampled_points))
    size_m = np.maximum([length, width, top], LEAST_SIZE_M)
    return OrientedBox(
        center=basis @ [x, y] + normal * (size_m[2] / 2 - plane.offset_m),
        rotation=np.column_stack([axes, normal]),
        size_m=size_m,
        visible_m=np.array([length, width, top - bottom]),
        centroid=mean(surface.sampled_points),
    )


def box_of_points(surface: Surface, normal: np.ndarray) -> OrientedBox:
    """Return the box of the visible points alone whose third axis is `normal` [3]."""
    _, lowest = robust_extent(surface.sampled_points @ normal.astype(np.float32))
    return box_on_plane(surface, Plane(normal, -float(lowest)))


def pca_box(surface: Surface) -> OrientedBox:
    """Return the box of the visible points along their principal axes (PCA), the third one towards the camera."""
    points = surface.sampled_points.astype(np.float64)
    centroid = points.mean(axis=0)
    axes = np.linalg.eigh(np.cov((points - centroid).T))[1][:, ::-1]
    if axes[:, 2] @ centroid > 0:
        axes[:, 2] *= -1
    first, second = (np.subtract(*robust_extent(along)) for along in ((points - centroid) @ axes[:, :2]).T)
    if first < second:  # as of two parallel bars: the larger variance is not that of the longer side
        axes[:, 0] = axes[:, 1]
    axes[:, 1] = cross(axes[:, 2], axes[:, 0])
    high, low = np.array([robust_extent(along) for along in ((points - centroid) @ axes).T]).T
    return OrientedBox(
        center=centroid + axes @ ((low + high) / 2),
        rotation=axes,
        size_m=np.maximum(high - low, LEAST_SIZE_M),
        visible_m=high - low,
        centroid=centroid,
    )

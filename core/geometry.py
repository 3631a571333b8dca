"""From a mask and a depth image to where the object is and how large: points, and a box that stands on its support.

Only an object's near side is seen. Its box is found with the help of what it stands on, a plane that is fitted to the
depth around the mask: the box has the plane's normal as its third axis, reaches from the plane to the highest point,
and its footprint is the smallest rectangle around all points seen from above. All in the camera's optical frame (REP
103: x right, y down, z forward), in metres.
"""
from dataclasses import dataclass

import cv2
import numpy as np

from instructsam.core.errors import InstructSAMError

AROUND_PX = (3, 20)  # the ring around a mask in which its support is looked for
JUMP = 0.03  # of the depth: neighbours further apart lie on different things
TRIPLES, RING_POINTS = 64, 400  # of the plane's fit
NEAR_M = 0.006  # of a plane: what belongs to it
SUPPORT_SHARE = 0.35  # of the ring that must be near the plane
FLOOR_M = 0.004  # points lower than this over the support are the support's, where the object is not that thin
TOP, BOTTOM = 98, 2  # percentiles, for a few outliers
LEAST_POINTS, ENOUGH_POINTS = 12, 3000  # for a fit, which takes every n-th of more


class GeometryError(InstructSAMError, ValueError):
    """Depth or intrinsics that say nothing about the object; the message says why."""


@dataclass(frozen=True, eq=False)
class Geometry:
    """Where an object is. The columns of `rotation` are its box's axes: length, width, height, as in `size_m`."""

    points: np.ndarray  # [N, 3] m, on the visible surface
    center: np.ndarray  # [3] m, of the box
    rotation: np.ndarray  # [3, 3], right-handed; the third axis points away from the support
    size_m: np.ndarray  # [3], of the box: length >= width, height over the support
    visible_m: np.ndarray  # [3], what is seen of it along these axes
    valid: float  # share of the mask's pixels that have a depth, 0 to 1
    has_support: bool  # false: nothing flat was seen around it, and the box is that of the visible points alone

    def to_json(self):
        """A dict of plain types, without the points but for their number."""
        return {
            'center_m': self.center.tolist(), 'size_m': self.size_m.tolist(), 'rotation': self.rotation.tolist(),
            'visible_m': self.visible_m.tolist(), 'points': len(self.points), 'valid': self.valid,
            'has_support': self.has_support,
        }  # fmt: skip


def measure(mask, depth, intrinsics):
    """The Geometry of one mask.

    mask: [H, W] bool; depth: [H, W] float m along the optical axis, 0 or not finite where there is none; intrinsics:
    K [3, 3] px of a rectified pinhole. Raises GeometryError: sizes, intrinsics, or too little depth on the mask.
    """
    mask, depth, intrinsics = np.asarray(mask, bool), np.asarray(depth), np.asarray(intrinsics, np.float64)
    check_camera(depth, mask.shape, intrinsics)
    rows, columns = _window(mask)
    part, seen = mask[rows, columns], depth[rows, columns].astype(np.float32)
    has_depth = np.isfinite(seen) & (seen > 0)
    valid = float(has_depth[part].mean())
    origin = columns.start, rows.start
    points = _points(seen, part & has_depth & ~_torn(seen, part & has_depth), intrinsics, origin)
    if len(points) < LEAST_POINTS:
        raise GeometryError(f'{100 * valid:.0f} % of the mask have a depth, {len(points)} usable points: too little.')
    plane = _support(seen, part, has_depth, intrinsics, origin)
    if plane is not None:
        heights = points @ plane[0].astype(np.float32) + np.float32(plane[1])
        on_it = heights > min(FLOOR_M, 0.25 * np.percentile(_some(heights), TOP))
        if np.count_nonzero(on_it) >= LEAST_POINTS:
            return _standing(points[on_it], heights[on_it], plane, valid)
    return _floating(points, valid)


def _some(values):
    """Every n-th, about ENOUGH_POINTS of them."""
    return values[:: max(1, len(values) // ENOUGH_POINTS)]


def check_camera(depth, size, intrinsics):
    """Raises GeometryError where `measure` cannot use depth or intrinsics with an image of `size` (height, width)."""
    if depth.shape != tuple(size):
        raise GeometryError(f'depth is {depth.shape}, the image {tuple(size)} (height, width): align depth to colour.')
    intrinsics = np.asarray(intrinsics, np.float64)
    if intrinsics.shape != (3, 3) or not np.isfinite(intrinsics).all() or min(intrinsics[0, 0], intrinsics[1, 1]) <= 0:
        raise GeometryError(f'intrinsics are K [3, 3] with focal lengths above 0, got {intrinsics.tolist()}.')


def _window(mask):
    """Rows and columns of the mask with the ring around it, as slices. Raises GeometryError for an empty mask."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not rows.size:
        raise GeometryError('the mask is empty.')
    margin = AROUND_PX[1] + 1
    return tuple(slice(max(0, int(found[0]) - margin), int(found[-1]) + margin + 1) for found in (rows, columns))


def _torn(depth, inside):
    """Pixels at an edge of depth within the mask, or next to one: their depth may be of neither side."""
    highest = cv2.dilate(np.where(inside, depth, 0), np.ones((3, 3), np.uint8))
    lowest = -cv2.dilate(np.where(inside, -depth, -np.float32(1e9)), np.ones((3, 3), np.uint8))
    return highest - lowest > JUMP * np.maximum(lowest, 1e-3)


def _points(depth, chosen, intrinsics, origin):
    """[N, 3] m of the chosen pixels of a window that starts at `origin` (x, y)."""
    flat = np.flatnonzero(chosen)
    y, x = np.divmod(flat, chosen.shape[1])
    z = depth.ravel()[flat]
    points = np.empty((len(z), 3), np.float32)
    points[:, 0] = (x + (origin[0] - intrinsics[0, 2])) * z / intrinsics[0, 0]
    points[:, 1] = (y + (origin[1] - intrinsics[1, 2])) * z / intrinsics[1, 1]
    points[:, 2] = z
    return points


def _support(depth, mask, has_depth, intrinsics, origin):
    """(normal [3] towards the camera, offset m) of the plane around the mask; None where most of it is not flat."""
    away = cv2.distanceTransform((~mask).astype(np.uint8), cv2.DIST_L2, 3)
    ring = (away > AROUND_PX[0]) & (away <= AROUND_PX[1]) & has_depth
    around = _some(_points(depth, ring, intrinsics, origin)).astype(np.float64)
    if len(around) < LEAST_POINTS:
        return None
    rng = np.random.default_rng(0)  # the same result for the same input
    tried = around[rng.integers(len(around), size=(TRIPLES, 3))]
    normals = np.cross(tried[:, 1] - tried[:, 0], tried[:, 2] - tried[:, 0])
    lengths = np.linalg.norm(normals, axis=1)
    span = lengths > 1e-12  # three points that lie on no line
    if not span.any():
        return None
    normals = normals[span] / lengths[span, None]
    offsets = (normals * tried[span, 0]).sum(axis=1)
    some = around[rng.integers(len(around), size=RING_POINTS)]
    best = (np.abs(some @ normals.T - offsets) < NEAR_M).sum(axis=0).argmax()
    near = np.abs(around @ normals[best] - offsets[best]) < NEAR_M
    if near.mean() < SUPPORT_SHARE:
        return None
    middle = around[near].mean(axis=0)
    normal = np.linalg.eigh(np.cov((around[near] - middle).T))[1][:, 0]
    normal = -normal if normal @ middle > 0 else normal
    return normal, -normal @ middle


def _standing(points, heights, plane, valid):
    """The Geometry of an object on a plane."""
    normal, offset = plane
    across = np.cross(normal, [0.0, 0.0, 1.0])
    if np.linalg.norm(across) < 1e-3:  # seen from straight above
        across = np.array([1.0, 0.0, 0.0])
    across -= normal * (normal @ across)
    across /= np.linalg.norm(across)
    basis = np.stack([across, np.cross(normal, across)], axis=1)
    (x, y), (long, short), angle = cv2.minAreaRect(cv2.convexHull(points @ basis.astype(np.float32)))
    turn = np.deg2rad(angle)
    axes = basis @ np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    if long < short:
        axes, long, short = np.stack([axes[:, 1], -axes[:, 0]], axis=1), short, long
    bottom, top = np.percentile(_some(heights), [BOTTOM, TOP]).tolist()
    return Geometry(
        points=points, center=basis @ [x, y] + normal * (top / 2 - offset),
        rotation=np.column_stack([axes, normal]), size_m=np.array([long, short, top]),
        visible_m=np.array([long, short, top - bottom]),
        valid=valid, has_support=True,
    )  # fmt: skip


def _floating(points, valid):
    """The Geometry of visible points alone: their principal axes, the third one towards the camera."""
    some = _some(points).astype(np.float64)
    middle = some.mean(axis=0)
    axes = np.linalg.eigh(np.cov((some - middle).T))[1][:, ::-1]
    if axes[:, 2] @ middle > 0:
        axes[:, 2] *= -1
    axes[:, 1] = np.cross(axes[:, 2], axes[:, 0])
    along = (some - middle) @ axes
    low, high = np.percentile(along, [BOTTOM, TOP], axis=0)
    return Geometry(
        points=points, center=middle + axes @ ((low + high) / 2), rotation=axes, size_m=high - low,
        visible_m=high - low, valid=valid, has_support=False,
    )  # fmt: skip

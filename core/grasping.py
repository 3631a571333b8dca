"""Where a parallel gripper might close on an object: top-down antipodal candidates, from its visible points.

A starting point for a planner, not one: it knows the object's points and what it stands on, and nothing of the arm, of
neighbours or of weight. Each candidate is a slice: what lies between two parallel planes, as far apart as the fingers
are wide, higher than the fingertips would be. Where a slice falls into one or several pieces, with room for the fingers
beside each, every piece that is thinner than the opening can be grasped: a whole box or can, the rim of a bowl, the
handle of a mug. Pieces are scored by how parallel their two sides are, how near the middle of the object and how deep
between the fingers they are.
"""
from dataclasses import dataclass

import numpy as np

ANGLES = 16  # directions of closing, over half a turn
OFFSETS = np.linspace(-0.8, 0.8, 9)  # of slices, in halves of the object's extent across
DEPTHS_M = (0.035, 0.022, 0.012)  # of the fingertips below the top of the slice
LEAST_POINTS = 8  # in a piece
MOST_POINTS = 2000  # of the object, every n-th of more
CLEAR_M = 0.003  # of the fingertips over what the object stands on
TOP, BOTTOM = 98, 2  # percentiles, for outliers
WEIGHTS = {'parallel': 0.45, 'near': 0.35, 'deep': 0.2}


@dataclass(frozen=True)
class Gripper:
    """A parallel-jaw gripper; the defaults are near those of a Robotiq 2F-85 and a Franka Hand."""

    opening_m: float = 0.08  # between the open fingers
    finger_m: float = 0.02  # width of a finger, across the direction of closing
    thickness_m: float = 0.012  # of a finger, along it
    margin_m: float = 0.006  # of the opening that is kept free, both sides together


@dataclass(frozen=True, eq=False)
class Grasp:
    """position: [3] m, between the fingertips; rotation: [3, 3], whose columns are x, along which the fingers close, y,
    and z, the direction of approach; both in the frame of the points."""

    position: np.ndarray
    rotation: np.ndarray
    width_m: float  # of what lies between the fingers
    quality: float  # 0 to 1


def grasp_candidates(geometry, gripper=Gripper(), limit=5):
    """Up to `limit` Grasps for an object, best first, from opposite to the third axis of its box; may be empty.

    geometry: anything with points [N, 3] m, and center [3] m, rotation [3, 3] and size_m [3] of the box, such as a
    geometry.Geometry.
    """
    points = geometry.points[:: 1 + len(geometry.points) // MOST_POINTS]
    local = (points - geometry.center) @ geometry.rotation
    local[:, 2] += geometry.size_m[2] / 2  # over the support
    found = [piece for angle in np.arange(ANGLES) * np.pi / ANGLES for piece in _pieces(local, angle, gripper)]
    reach = max(float(np.linalg.norm(geometry.size_m[:2])) / 2, 1e-3)
    scored = sorted(((_quality(piece, reach), index) for index, piece in enumerate(found)), reverse=True)
    return [_grasp(found[index], quality, geometry) for quality, index in scored[:limit]]


@dataclass(frozen=True)
class _Piece:
    angle: float
    along: float  # middle, in the direction of closing
    across: float
    tip: float  # height of the fingertips over the support
    width: float
    depth: float  # of the fingertips below the top
    skew: float  # of its two sides, as the tangent of an angle


def _pieces(local, angle, gripper):
    """All that can be grasped by closing along `angle`."""
    direction, aside = np.array([np.cos(angle), np.sin(angle)]), np.array([-np.sin(angle), np.cos(angle)])
    along, across, height = local[:, :2] @ direction, local[:, :2] @ aside, local[:, 2]
    low, high = np.percentile(across, [BOTTOM, TOP])
    for offset in (low + high) / 2 + OFFSETS * (high - low) / 2:
        near = np.abs(across - offset) < gripper.finger_m / 2
        if np.count_nonzero(near) < LEAST_POINTS:
            continue
        u, v, h = along[near], across[near] - offset, height[near]
        order = np.argsort(u)
        u, v, h = u[order], v[order], h[order]
        for depth in DEPTHS_M:
            yield from _graspable(u, v, h, depth, angle, offset, gripper)


def _graspable(u, v, h, depth, angle, offset, gripper):
    """The pieces of one slice, u sorted, with the fingertips `depth` below the top of each."""
    tip = max(float(np.percentile(h, TOP)) - depth, CLEAR_M)
    high = h > tip
    u, v, h = u[high], v[high], h[high]
    if len(u) < LEAST_POINTS:
        return
    gaps = np.flatnonzero(np.diff(u) > gripper.thickness_m) + 1
    bounds = [0, *gaps.tolist(), len(u)]
    for start, end in zip(bounds, bounds[1:]):
        if end - start < LEAST_POINTS:
            continue
        first, last = np.percentile(u[start:end], [BOTTOM, TOP])
        width = float(last - first)
        middle = float(first + last) / 2
        room = (gripper.opening_m - width) / 2 + gripper.thickness_m  # that an open finger takes on either side
        before = u[start - 1] if start else -np.inf
        after = u[end] if end < len(u) else np.inf
        if width > gripper.opening_m - gripper.margin_m or before > first - room or after < last + room:
            continue
        top = float(np.percentile(h[start:end], TOP))
        skew = _skew(u[start:end], v[start:end], gripper.finger_m)
        yield _Piece(angle, middle, float(offset), tip, width, top - tip, skew)


def _skew(u, v, finger_m):
    """How far from square to the direction of closing the two sides are, as the tangent of an angle."""
    left, right = u[v < 0], u[v >= 0]
    if min(len(left), len(right)) < LEAST_POINTS // 2:
        return 1.0
    sides = [np.percentile(right, q) - np.percentile(left, q) for q in (BOTTOM, TOP)]
    return float(max(abs(side) for side in sides) / (finger_m / 2))


def _quality(piece, reach):
    parallel = 1 / (1 + piece.skew**2)
    near = max(0.0, 1 - np.hypot(piece.along, piece.across) / reach)
    return WEIGHTS['parallel'] * parallel + WEIGHTS['near'] * near + WEIGHTS['deep'] * piece.depth / max(DEPTHS_M)


def _grasp(piece, quality, geometry):
    direction = np.array([np.cos(piece.angle), np.sin(piece.angle)])
    aside = np.array([-direction[1], direction[0]])
    place = piece.along * direction + piece.across * aside
    position = np.array([*place, piece.tip - geometry.size_m[2] / 2])
    x, z = np.array([*direction, 0.0]), np.array([0.0, 0.0, -1.0])
    rotation = geometry.rotation @ np.stack([x, np.cross(z, x), z], axis=1)
    return Grasp(geometry.center + geometry.rotation @ position, rotation, piece.width, float(quality))

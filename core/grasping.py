"""Where a parallel gripper might close on an object: top-down antipodal candidates, from its visible points.

A starting point for a planner, not one: it knows the object's points, what it stands on and, where it is told, what is
around it, and nothing of the arm or of weight. Each candidate is a slice: what lies between two parallel planes, as far
apart as the fingers are wide, higher than the fingertips would be. Where a slice falls into one or several pieces, each
that is thinner than the opening can be grasped: a whole can, the rim of a bowl, the handle of a mug. Of a side that is
rounded away from the camera it is guessed how far it goes on. Pieces are scored by how parallel their two sides are,
how near the middle of the object and how deep between the fingers they are; the best where the open hand touches none
of the points on its way down are the candidates.
"""
from dataclasses import dataclass

import numpy as np

ANGLES = 16  # directions of closing, over half a turn
OFFSETS = np.linspace(-0.8, 0.8, 9)  # of slices, in halves of the object's extent across
DEPTHS_M = (0.035, 0.022, 0.012)  # of the fingertips below the top of the slice
LEAST_POINTS = 8  # in a piece
MOST_POINTS, MOST_AROUND = 1500, 6000  # every n-th of more
CLEAR_M = 0.001  # of the fingertips over what the object stands on
BESIDE_M = 0.012  # that the hand opens wider than the piece, on either side
IN_THE_WAY = 3  # points, less are noise; and those as near as this to the fingertips' height do not count:
NEAR_M = 0.002
END_M = 0.008  # of a piece, over which the slope of its end is taken
TOP, BOTTOM = 98, 2  # percentiles, for outliers
MOST_SKEW = 0.6  # of the sides of a piece: more slides out, whatever the fingers are made of
WEIGHTS = {'parallel': 0.45, 'near': 0.35, 'deep': 0.2}


@dataclass(frozen=True)
class Gripper:
    """A parallel-jaw gripper; the defaults are near those of a Robotiq 2F-85 and a Franka Hand."""

    opening_m: float = 0.08  # between the open fingers
    finger_m: float = 0.02  # width of a finger, across the direction of closing
    thickness_m: float = 0.012  # of a finger, along it
    length_m: float = 0.05  # of a finger, from its tip to the palm
    palm_m: float = 0.05  # width of the palm, across the direction of closing; along it, it covers the open fingers
    margin_m: float = 0.006  # of the opening that is kept free, both sides together


@dataclass(frozen=True, eq=False)
class Grasp:
    """position: [3] m, between the fingertips; rotation: [3, 3], whose columns are x, along which the fingers close, y,
    and z, the direction of approach; both in the frame of the points."""

    position: np.ndarray
    rotation: np.ndarray
    width_m: float  # of what lies between the fingers
    opening_m: float  # between the fingers on the way down
    quality: float  # 0 to 1


def grasp_candidates(geometry, gripper=Gripper(), limit=5, around=None):
    """Up to `limit` Grasps for an object, best first, from opposite to the third axis of its box; may be empty.

    geometry: anything with points [N, 3] m, and center [3] m, rotation [3, 3] and size_m [3] of the box, such as a
    geometry.Geometry or a client's Instance. around: [M, 3] m, points of all else, in the same frame; without them
    neighbours are not avoided.
    """
    local = _over_support(geometry.points, MOST_POINTS, geometry)
    obstacles = local
    if around is not None:
        far = np.linalg.norm(geometry.size_m[:2]) / 2 + gripper.opening_m + 2 * gripper.thickness_m
        near = around[(np.abs(around - geometry.center) < far + geometry.size_m[2]).all(axis=1)]
        obstacles = np.concatenate([local, _over_support(near, MOST_AROUND, geometry)])
    found = [piece for angle in np.arange(ANGLES) * np.pi / ANGLES for piece in _pieces(local, angle, gripper)]
    reach = max(float(np.linalg.norm(geometry.size_m[:2])) / 2, 1e-3)
    grasps = []
    for piece in sorted(found, key=lambda piece: -_quality(piece, reach)):
        if len(grasps) == limit:
            break
        if _is_free(piece, obstacles, gripper):
            grasps.append(_grasp(piece, _quality(piece, reach), gripper, geometry))
    return grasps


def _over_support(points, most, geometry):
    """About `most` of the points in the box's frame, their heights over what the object stands on."""
    local = (points[:: 1 + len(points) // most] - geometry.center) @ geometry.rotation
    local[:, 2] += geometry.size_m[2] / 2
    return local


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
    u, v = (local[:, :2] @ np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])).T
    order = np.argsort(u)
    u, v, h = u[order], v[order], local[order, 2]
    low, high = _ends(np.sort(v))
    for offset in (low + high) / 2 + OFFSETS * (high - low) / 2:
        near = np.abs(v - offset) < gripper.finger_m / 2
        if np.count_nonzero(near) >= LEAST_POINTS:
            part = u[near], v[near] - offset, h[near]
            top = _ends(np.sort(part[2]))[1]
            tips = {max(float(top - depth), CLEAR_M) for depth in DEPTHS_M}
            for tip in sorted(tips):
                yield from _graspable(*part, tip, angle, float(offset), gripper)


def _graspable(u, v, h, tip, angle, offset, gripper):
    """The pieces of one slice, u sorted, with the fingertips at the height `tip`."""
    high = h > tip
    u, v, h = u[high], v[high], h[high]
    bounds = [0, *(np.flatnonzero(np.diff(u) > gripper.thickness_m) + 1).tolist(), len(u)]
    for start, end in zip(bounds, bounds[1:]):
        if end - start < LEAST_POINTS:
            continue
        first, last = _ends(u[start:end])
        if last - first > gripper.opening_m - gripper.margin_m:
            continue
        skew = _skew(u[start:end], v[start:end], gripper.finger_m)
        if skew > MOST_SKEW:
            continue
        first -= _hidden(first - u[start:end], h[start:end] - tip)
        last += _hidden(u[start:end] - last, h[start:end] - tip)
        if last - first > gripper.opening_m - gripper.margin_m:
            continue
        top = _ends(np.sort(h[start:end]))[1]
        yield _Piece(angle, float(first + last) / 2, offset, tip, float(last - first), float(top - tip), skew)


def _ends(ordered):
    """The lowest and the highest value without outliers."""
    return ordered[(len(ordered) - 1) * BOTTOM // 100], ordered[(len(ordered) - 1) * TOP // 100]


def _hidden(beyond, h):
    """How far a piece goes on beyond the last of it that is seen, m.

    beyond: [N] m, distances beyond that end, most of them negative; h: [N] m, heights over the fingertips. A surface
    that slopes down there, still over the fingertips, goes on: half as far as it would without growing steeper.
    """
    near = beyond > -END_M
    x, y = beyond[near], h[near]
    x = x - x.mean()
    spread = float(x @ x)
    slope = -float(x @ (y - y.mean())) / spread if spread > 0 else 0.0
    if slope < 0.25:  # level, up to an edge; or rising
        return 0.0
    left = float(np.median(y[np.argsort(-x)[: max(3, len(x) // 5)]]))
    return 0.5 * left / max(slope, 0.5)


def _skew(u, v, finger_m):
    """How far from square to the direction of closing the two sides are, as the tangent of an angle; u sorted."""
    left, right = u[v < 0], u[v >= 0]
    if min(len(left), len(right)) < LEAST_POINTS // 2:
        return 1.0
    sides = np.subtract(_ends(right), _ends(left))
    return float(np.abs(sides).max() / (finger_m / 2))


def _is_free(piece, obstacles, gripper):
    """Whether the hand with its fingers open comes down without touching the obstacles [N, 3]."""
    cos, sin = np.cos(piece.angle), np.sin(piece.angle)
    u = np.abs(obstacles[:, 0] * cos + obstacles[:, 1] * sin - piece.along)
    v = np.abs(obstacles[:, 1] * cos - obstacles[:, 0] * sin - piece.across)
    h = obstacles[:, 2] - piece.tip
    inside = _opening(piece, gripper) / 2
    fingers = (h > NEAR_M) & (v < gripper.finger_m / 2) & (u > inside) & (u < inside + gripper.thickness_m)
    palm = (h > gripper.length_m) & (v < gripper.palm_m / 2) & (u < gripper.opening_m / 2 + gripper.thickness_m)
    return np.count_nonzero(fingers | palm) < IN_THE_WAY


def _opening(piece, gripper):
    return min(gripper.opening_m, piece.width + 2 * BESIDE_M)


def _quality(piece, reach):
    parallel = 1 / (1 + piece.skew**2)
    near = max(0.0, 1 - np.hypot(piece.along, piece.across) / reach)
    deep = min(1.0, piece.depth / max(DEPTHS_M))
    return float(WEIGHTS['parallel'] * parallel + WEIGHTS['near'] * near + WEIGHTS['deep'] * deep)


def _grasp(piece, quality, gripper, geometry):
    direction = np.array([np.cos(piece.angle), np.sin(piece.angle)])
    aside = np.array([-direction[1], direction[0]])
    place = piece.along * direction + piece.across * aside
    position = np.array([*place, piece.tip - geometry.size_m[2] / 2])
    x, z = np.array([*direction, 0.0]), np.array([0.0, 0.0, -1.0])
    rotation = geometry.rotation @ np.stack([x, np.cross(z, x), z], axis=1)
    place = geometry.center + geometry.rotation @ position
    return Grasp(place, rotation, piece.width, float(_opening(piece, gripper)), quality)

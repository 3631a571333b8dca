"""Where a parallel gripper might close on an object: top-down antipodal candidates, from its visible points.

A starting point for a planner, not one: it knows the object's points, what it stands on and what is seen next to it,
and nothing of the arm or of weight. Each candidate is a slice: what lies between two parallel planes, as far apart as
the fingers are wide, higher than the fingertips would be. A slice falls into one or several pieces, and each that is
thinner than the opening can be grasped: a whole can, the rim of a bowl, the handle of a mug. Where a side is rounded
away from the camera, how far it goes on is guessed. Pieces are scored by how parallel their two sides are, how near the
middle of the object, how deep between the fingers and how well seen; the best that the open hand reaches without
touching any point are the candidates.
"""

from dataclasses import dataclass, replace

import cv2
import numpy as np
from scipy.spatial import cKDTree

ANGLES = 12  # directions of closing, over half a turn
OFFSETS = np.linspace(-0.75, 0.75, 7)  # of slices, in halves of the object's extent across
DEPTHS_M = (0.035, 0.022, 0.012)  # of the fingertips below the top of the slice
LEAST_POINTS = 8  # in a piece
CELL_M, MOST_POINTS, MOST_AROUND = 0.0015, 2000, 6000  # one point a cell, every n-th of more
CLEAR_M = 0.001  # of the fingertips over what the object stands on
BESIDE_M = 0.012  # that the hand opens wider than the piece, on either side
IN_THE_WAY = 3  # points, less are noise; and those as near as this to the fingertips' height do not count:
NEAR_M = 0.002
OWN_M = 0.004  # of the object: what else is as near as this may be its own edge, which a mask has left out
END_M, EDGE_M = 0.008, 0.002  # of a piece, over which the slope of its end is taken, and how far down it is seen
CUT_PX, CUT_M = 7, 0.01  # the square in which something nearer is looked for, and how much nearer
LEVEL, MOST_HIDDEN_M = 0.2, 0.012  # a slope that is none, and how far a slope is thought to go on
RISE_M = 0.006  # over which a piece's taper is taken
OUTLIERS = 2  # points at either end, of a hundred or more
MOST_SLANT = 0.8  # of the sides of a piece, a tangent: more slides out of fingers of rubber
ROOM_M = 0.016  # in the opening, both sides together, that is enough
WEIGHTS = {'parallel': 0.35, 'near': 0.3, 'deep': 0.15, 'seen': 0.1, 'room': 0.1}


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
    and z, the direction of approach; both in the frame of the points.
    """

    position: np.ndarray
    rotation: np.ndarray
    width_m: float  # of what lies between the fingers
    opening_m: float  # between the fingers on the way down
    quality: float  # 0 to 1


def grasp_candidates(geometry, gripper=Gripper(), limit=5, around=None):
    """Up to `limit` Grasps for an object, best first, from opposite to the third axis of its box; may be empty.

    geometry: anything with points [N, 3] m, and center [3] m, rotation [3, 3] and size_m [3] of the box, such as a
    geometry.Geometry or a client's Instance. around: [M, 3] m, points of what else is there, in the same frame; without
    them those next to the mask that a geometry.Geometry was made of, where it is one. Raises ValueError: the geometry
    came without points.
    """
    if geometry.points is None:
        raise ValueError('the object has no points: candidates need those on its visible surface')
    local, chosen = _over_support(geometry.points, MOST_POINTS, geometry)
    if len(local) < LEAST_POINTS:
        return []
    if around is None:
        around = _next_to(geometry)
    far = np.linalg.norm(geometry.size_m) + gripper.opening_m + 2 * gripper.thickness_m
    others, _ = _over_support(around[(np.abs(around - geometry.center) < far).all(axis=1)], MOST_AROUND, geometry)
    others = others[cKDTree(local).query(others, distance_upper_bound=OWN_M)[0] > OWN_M]
    cut = _cut(geometry)[chosen]
    found = [piece for angle in np.arange(ANGLES) * np.pi / ANGLES for piece in _pieces(local, cut, angle, gripper)]
    reach = max(float(np.linalg.norm(geometry.size_m[:2])) / 2, 1e-3)
    grasps = []
    for piece in sorted(found, key=lambda piece: -_quality(piece, reach, gripper)):
        if len(grasps) == limit:
            break
        if _is_free(piece, local, others, gripper):
            grasps.append(_grasp(piece, _quality(piece, reach, gripper), gripper, geometry))
    return grasps


def _next_to(geometry):
    """[M, 3] m, what has a depth and is not the object's in the part of the image where it was measured; or none."""
    surface = getattr(geometry, 'surface', None)
    if surface is None:
        return np.empty((0, 3))
    return replace(surface, chosen=(surface.depth > 0) & ~surface.chosen).points


def _cut(geometry):
    """[N] bool: points at something nearer or at the border of the image, where the object may go on unseen."""
    surface = getattr(geometry, 'surface', None)
    if surface is None:
        return np.zeros(len(geometry.points), bool)
    others = np.where(surface.chosen | (surface.depth <= 0), np.float32(np.inf), surface.depth)
    cut = cv2.erode(others, np.ones((CUT_PX, CUT_PX), np.uint8)) < surface.depth - CUT_M
    border = np.ones_like(cut)
    border[2:-2, 2:-2] = False  # of the window, which reaches beyond the object unless the image ends there
    return (cut | border)[surface.chosen]


def _over_support(points, most, geometry):
    """(About `most` of the points in the box's frame, evenly over the surface, heights over the support; which)."""
    local = (points - geometry.center) @ geometry.rotation
    local[:, 2] += geometry.size_m[2] / 2
    cells = np.floor(local / CELL_M).astype(np.int64) @ (1, 1 << 20, 1 << 40)  # else what is seen from the side has few
    chosen = np.unique(cells, return_index=True)[1]
    chosen = chosen[:: 1 + len(chosen) // most]
    return local[chosen], chosen


@dataclass(frozen=True)
class _Piece:
    along: float  # middle, in the direction of closing
    width: float
    depth: float  # of the fingertips below the top
    slant: float  # of its two sides, as the tangent of an angle
    seen: float  # share of the two sides, 0 to 1
    angle: float = 0.0  # of the direction of closing
    across: float = 0.0
    tip: float = 0.0  # height of the fingertips over the support


def _pieces(local, cut, angle, gripper):
    """All that can be grasped by closing along `angle`; local [N, 3] m, cut [N]."""
    u, v = (local[:, :2] @ np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])).T
    order = np.argsort(u)
    u, v, h, cut = u[order], v[order], local[order, 2], cut[order]
    low, high = _ends(np.sort(v))
    for offset in (low + high) / 2 + OFFSETS * (high - low) / 2:
        near = np.abs(v - offset) < gripper.finger_m / 2
        if np.count_nonzero(near) < LEAST_POINTS:
            continue
        top = _ends(np.sort(h[near]))[1]
        for tip in sorted({max(float(top - depth), CLEAR_M) for depth in DEPTHS_M}):
            chosen = np.flatnonzero(near & (h > tip))
            gaps = np.flatnonzero(np.diff(u[chosen]) > gripper.thickness_m) + 1
            for part in np.split(chosen, gaps):
                piece = _piece(u[part], v[part] - offset, h[part] - tip, cut[part], gripper)
                if piece is not None:
                    yield replace(piece, angle=angle, across=float(offset), tip=tip)


def _piece(u, v, h, cut, gripper):
    """The piece with these points, u sorted, h over the fingertips; None where it does not fit or would slip out."""
    most = gripper.opening_m - gripper.margin_m
    if len(u) < LEAST_POINTS:
        return None
    first, last = _ends(u)
    if last - first > most:
        return None
    depth = float(np.sort(h)[-1 - len(h) // 50])
    slant = np.hypot(_skew(u, v, gripper.finger_m), _taper(u, h, last - first, min(RISE_M, depth / 2)))
    if slant > MOST_SLANT:
        return None
    (more, low), (further, lower) = _hidden(first - u, h, cut), _hidden(u - last, h, cut)
    first, last = float(first - more), float(last + further)
    if last - first > most:
        return None
    seen = 1 - float(low + lower) / (2 * depth)
    return _Piece((first + last) / 2, last - first, depth, float(slant), seen)


def _ends(ordered):
    """The lowest and the highest value, without a few for outliers: what is seen at a flat angle has few points."""
    few = min(OUTLIERS, len(ordered) // 50)
    return ordered[few], ordered[-1 - few]


def _hidden(beyond, h, cut):
    """What is not seen of a side: how far it goes on beyond the last that is seen, and how high over the fingertips, m.

    beyond: [N] m, distances beyond the last point, most of them negative; h: [N] m, heights over the fingertips; cut:
    [N]. A surface that slopes down there goes on, growing steeper, about half as far as it would if it did not; one
    that is cut goes on for ever.
    """
    if cut[beyond > -EDGE_M].mean() > 0.5:
        return np.inf, 0.0
    near = beyond > -END_M
    x, y = beyond[near], h[near]
    left = float(y[x > -EDGE_M].min())
    x = x - x.mean()
    slope = -float(x @ y) / max(float(x @ x), 1e-12)
    if slope < LEVEL:  # up to an edge, or it even rises
        return 0.0, left
    return min(0.45 * left / slope, MOST_HIDDEN_M), left


def _skew(u, v, finger_m):
    """How far from square to the direction of closing the two sides are, seen from above; a tangent. u sorted."""
    left, right = u[v < 0], u[v >= 0]
    if min(len(left), len(right)) < LEAST_POINTS // 2:
        return 1.0
    return float(np.abs(np.subtract(_ends(right), _ends(left))).max() / (finger_m / 2))


def _taper(u, h, width, rise_m):
    """How much narrower, on each side, it grows within `rise_m` over the fingertips, in relation to that; a tangent."""
    higher = u[h > rise_m]
    if not len(higher):
        return 0.0
    first, last = _ends(higher)
    return float(max(0.0, width - (last - first)) / (2 * rise_m))


def _is_free(piece, own, others, gripper):
    """Whether the hand with its fingers open comes down without touching anything, and closes on the piece alone.

    own, others: points [N, 3] of the object and of all else.
    """
    half = _opening(piece, gripper) / 2
    cos, sin = np.cos(piece.angle), np.sin(piece.angle)
    count = 0
    for points, inside in ((own, half), (others, 0.0)):
        u = np.abs(points[:, 0] * cos + points[:, 1] * sin - piece.along)
        v = np.abs(points[:, 1] * cos - points[:, 0] * sin - piece.across)
        h = points[:, 2] - piece.tip
        fingers = (h > NEAR_M) & (v < gripper.finger_m / 2) & (u > inside) & (u < half + gripper.thickness_m)
        palm = (h > gripper.length_m) & (v < gripper.palm_m / 2) & (u < gripper.opening_m / 2 + gripper.thickness_m)
        count += np.count_nonzero(fingers | palm)
    return count < IN_THE_WAY


def _opening(piece, gripper):
    return min(gripper.opening_m, piece.width + 2 * BESIDE_M)


def _quality(piece, reach, gripper):
    values = {
        'parallel': 1 / (1 + piece.slant**2),
        'near': max(0.0, 1 - np.hypot(piece.along, piece.across) / reach),
        'deep': min(1.0, piece.depth / max(DEPTHS_M)),
        'seen': piece.seen,
        'room': min(1.0, (gripper.opening_m - piece.width) / ROOM_M),
    }
    return float(sum(weight * values[name] for name, weight in WEIGHTS.items()))


def _grasp(piece, quality, gripper, geometry):
    direction = np.array([np.cos(piece.angle), np.sin(piece.angle)])
    aside = np.array([-direction[1], direction[0]])
    place = piece.along * direction + piece.across * aside
    position = np.array([*place, piece.tip - geometry.size_m[2] / 2])
    x, z = np.array([*direction, 0.0]), np.array([0.0, 0.0, -1.0])
    rotation = geometry.rotation @ np.stack([x, np.cross(z, x), z], axis=1)
    place = geometry.center + geometry.rotation @ position
    return Grasp(place, rotation, piece.width, float(_opening(piece, gripper)), quality)

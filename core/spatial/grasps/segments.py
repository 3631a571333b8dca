"""Divides an object's points into the segments that a parallel gripper could close on.

A slice is the part of the object between two parallel planes, as far apart as the fingers are wide, and above the
height of the fingertips. It consists of one or several connected segments, and each one narrower than the opening can
be grasped: a whole can, the rim of a bowl, the handle of a mug. Where a side curves away from the camera, its hidden
extent is estimated.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple

import numpy as np


@dataclass(frozen=True)
class Gripper:
    """A parallel-jaw gripper; the defaults are near those of a Robotiq 2F-85 and a Franka Hand."""

    opening_m: float = 0.08  # distance between the open fingers
    finger_m: float = 0.02  # width of a finger, across the direction of closing
    thickness_m: float = 0.012  # thickness of a finger, along the direction of closing
    length_m: float = 0.05  # length of a finger, from its tip to the palm
    palm_m: float = 0.05  # width of the palm across the direction of closing; along it, the palm spans the fingers
    margin_m: float = 0.006  # part of the opening that is kept free, both sides together


@dataclass(frozen=True)
class SegmentSearch:
    """Parameters of the search for segments."""

    directions: int = 12  # number of closing directions, spread over 180 degrees
    slices: int = 7  # number of slices per direction
    slice_range: float = 0.75  # share of the object's extent across the direction that the slices' centres cover
    depths_m: tuple[float, ...] = (0.035, 0.028, 0.022, 0.017, 0.012)  # depths of the fingertips below a slice's top
    support_clearance_m: float = 0.001  # least height of the fingertips above the supporting plane
    min_points: int = 8  # segments with fewer points are ignored
    end_m: float = 0.008  # length at the end of a segment over which its slope is fitted
    edge_m: float = 0.002  # length at its very end where the lowest visible point is looked for
    top_m: float = 0.006  # height of the top of a segment
    max_cut_share: float = 0.3  # share of the top's points that may be cut off: more, and it may continue upwards
    level_slope: float = 0.2  # a lower slope is level: the end is an edge, and nothing is hidden
    max_hidden_m: float = 0.016  # longest hidden extent that is assumed
    hidden_share: float = 0.45  # hidden extent relative to a straight slope: it grows steeper towards its end
    taper_rise_m: float = 0.006  # height above the fingertips over which the taper is measured
    max_slant: float = 0.8  # tangent of the sides' angle above which a segment slips out of rubber fingers


@dataclass(frozen=True)
class Segment:
    """A graspable segment in the frame of the object's box, whose origin is on the supporting plane."""

    along_m: float  # middle of the segment, in the direction of closing
    width_m: float  # width of the segment in the direction of closing
    depth_m: float  # depth of the fingertips below its top
    slant: float  # slant of its two sides, as the tangent of an angle
    visible_share: float  # visible share of its two sides, 0 to 1
    angle_rad: float  # angle of the direction of closing
    across_m: float  # middle of the slice, across the direction of closing
    tip_m: float  # height of the fingertips above the supporting plane


class Rejection(Enum):
    """Reason why a segment cannot be grasped."""

    WIDE = 'wider than the opening'
    SLIPS = 'its sides are not parallel enough, and it would slip out of the fingers'
    HIDDEN = 'a side of it is hidden by something nearer or by the border of the image'


class Rejected(NamedTuple):
    """A segment that cannot be grasped."""

    why: Rejection
    width_m: float  # width of its visible part


class SlicePoints(NamedTuple):
    """Points of a slice or segment, sorted by `along`."""

    along: np.ndarray  # [N] m, in the direction of closing
    across: np.ndarray  # [N] m, from the middle of the slice
    height: np.ndarray  # [N] m, above the fingertips
    is_cut: np.ndarray  # [N] bool, where the object may continue unseen


def find_segments(
    points: np.ndarray,
    is_cut: np.ndarray,
    angle_rad: float,
    gripper: Gripper,
    params: SegmentSearch,
) -> Iterator[Segment | Rejected]:
    """Yield every segment between fingers that close in one direction: those that can be grasped, and the others.

    Args:
        points: Points [N, 3] m of the object; the third coordinate is the height above the supporting plane.
        is_cut: [N] bool: the object may continue unseen at this point.
        angle_rad: Direction of closing.
        gripper: Dimensions of the gripper.
        params: Parameters of the search.
    """
    cos, sin = np.cos(angle_rad), np.sin(angle_rad)
    along, across = (points[:, :2] @ np.array([[cos, -sin], [sin, cos]])).T
    order = np.argsort(along)
    along, across, height, is_cut = along[order], across[order], points[order, 2], is_cut[order]
    low, high = _extent(np.sort(across))
    offsets = np.linspace(-params.slice_range, params.slice_range, params.slices)
    for offset in (low + high) / 2 + offsets * (high - low) / 2:
        in_slice = np.abs(across - offset) < gripper.finger_m / 2
        if np.count_nonzero(in_slice) < params.min_points:
            continue
        top = _extent(np.sort(height[in_slice]))[1]
        for tip in sorted({max(float(top - depth), params.support_clearance_m) for depth in params.depths_m}):
            chosen = np.flatnonzero(in_slice & (height > tip))
            gaps = np.flatnonzero(np.diff(along[chosen]) > gripper.thickness_m) + 1
            for part in np.split(chosen, gaps):
                part_points = SlicePoints(along[part], across[part] - offset, height[part] - tip, is_cut[part])
                if len(part) >= params.min_points:
                    yield _segment(part_points, angle_rad, float(offset), tip, gripper, params)


def _segment(
    points: SlicePoints,
    angle_rad: float,
    across_m: float,
    tip_m: float,
    gripper: Gripper,
    params: SegmentSearch,
) -> Segment | Rejected:
    """Return the segment of these points, or why it cannot be grasped."""
    max_width = gripper.opening_m - gripper.margin_m
    along, height = points.along, points.height
    first, last = _extent(along)
    depth = float(np.sort(height)[-1 - len(height) // 50])
    skew = _skew(points, gripper.finger_m, params.min_points // 2)
    slant = np.hypot(skew, _taper(points, first, last, min(params.taper_rise_m, depth / 2)))
    if slant > params.max_slant:
        return Rejected(Rejection.SLIPS, float(last - first))
    if points.is_cut[height > depth - params.top_m].mean() > params.max_cut_share:
        return Rejected(Rejection.HIDDEN, float(last - first))
    left = _hidden_side(first - along, height, points.is_cut, params)
    right = _hidden_side(along - last, height, points.is_cut, params)
    width = float(last + right.extent_m - (first - left.extent_m))
    if last - first > max_width or max_width < width < np.inf:
        return Rejected(Rejection.WIDE, float(last - first) if width == np.inf else width)
    if width == np.inf:
        return Rejected(Rejection.HIDDEN, float(last - first))
    middle = float(first - left.extent_m + last + right.extent_m) / 2
    visible_share = 1 - float(left.lowest_m + right.lowest_m) / (2 * depth)
    return Segment(middle, width, depth, float(slant), visible_share, angle_rad, across_m, tip_m)


def _extent(ordered: np.ndarray) -> tuple[float, float]:
    """Return the lowest and highest of sorted values without outliers: at most two at either end.

    One value in 50 counts as an outlier, because surfaces seen at a flat angle have few points.
    """
    outliers = min(2, len(ordered) // 50)
    return ordered[outliers], ordered[-1 - outliers]


class _HiddenSide(NamedTuple):
    extent_m: float  # hidden extent beyond the last visible point
    lowest_m: float  # height of the lowest visible point above the fingertips


def _hidden_side(beyond: np.ndarray, height: np.ndarray, is_cut: np.ndarray, params: SegmentSearch) -> _HiddenSide:
    """Estimate the hidden extent of a side beyond the last visible point.

    A surface that slopes down continues, growing steeper, about half as far as it would at a constant slope; one that
    is cut by something nearer has no end.

    Args:
        beyond: Distance [N] m of the points beyond the last one, most of them negative.
        height: Height [N] m above the fingertips.
        is_cut: [N] bool, where the object may continue unseen.
        params: Parameters of the search.
    """
    if is_cut[beyond > -params.edge_m].mean() > 0.5:
        return _HiddenSide(np.inf, 0.0)
    near = beyond > -params.end_m
    x, y = beyond[near], height[near]
    lowest = float(y[x > -params.edge_m].min())
    x = x - x.mean()
    slope = -float(x @ y) / max(float(x @ x), 1e-12)
    if slope < params.level_slope:
        return _HiddenSide(0.0, lowest)
    return _HiddenSide(min(params.hidden_share * lowest / slope, params.max_hidden_m), lowest)


def _skew(points: SlicePoints, finger_m: float, min_points: int) -> float:
    """Return the tangent by which the two sides, seen from above, deviate from the normal of the closing direction."""
    left, right = points.along[points.across < 0], points.along[points.across >= 0]
    if min(len(left), len(right)) < min_points:
        return 1.0
    return float(np.abs(np.subtract(_extent(right), _extent(left))).max() / (finger_m / 2))


def _taper(points: SlicePoints, first: float, last: float, rise_m: float) -> float:
    """Return the tangent of the angle by which the sides lean inwards within `rise_m` above the fingertips.

    It is the larger one: a segment slips out of the fingers along its flatter side.
    """
    higher = points.along[points.height > rise_m]
    if not len(higher):
        return 0.0
    low, high = _extent(higher)
    return float(max(0.0, low - first, last - high) / rise_m)

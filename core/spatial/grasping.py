"""Grasp candidates for a parallel gripper: top-down antipodal grasps on an object's visible points.

They are a starting point for a grasp planner and do not replace it: they take into account the object's points, its
supporting plane and its visible surroundings, but neither the arm nor the object's weight. The hidden part of round
objects is completed first (see grasps.round_objects). Every graspable segment (see grasps.segments) is scored by how
parallel its two sides are, how near the middle of the object it is, how deep it lies between the fingers and how much
of it is visible; the best ones that the open hand reaches without touching any point are the candidates.

Only a Geometry has surroundings. Any other object, such as an instance of instructsam_ros.client, is taken to be alone
and wholly in view, apart from the obstacles that the caller gives.
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Protocol

import cv2
import numpy as np
from scipy.spatial import KDTree

from instructsam.core.spatial.geometry import Geometry
from instructsam.core.spatial.grasps.round_objects import RoundFit, complete_round
from instructsam.core.spatial.grasps.segments import (
    Gripper,
    Rejected,
    Rejection,
    Segment,
    SegmentSearch,
    find_segments,
)

__all__ = ['Grasp', 'GraspResult', 'GraspSearch', 'Gripper', 'find_grasps', 'grasp_candidates', 'points_of_others']

DEFAULT_GRIPPER = Gripper()


@dataclass(frozen=True, eq=False)
class Grasp:
    """A pose of the gripper in the frame of the points."""

    position: np.ndarray  # [3] m, between the fingertips
    rotation: np.ndarray  # [3, 3]; its columns are x, along which the fingers close, y, and z, the approach
    width_m: float  # width of the segment between the fingers
    opening_m: float  # opening of the fingers during the approach
    quality: float  # 0 to 1


@dataclass(frozen=True)
class QualityWeights:
    """Weights of the terms of a candidate's quality, each 0 to 1; their sum is 1."""

    parallel: float = 0.35  # how parallel the two sides are
    central: float = 0.3  # how near the middle of the object
    deep: float = 0.15  # how far between the fingers
    visible: float = 0.1  # how much of the two sides is seen
    room: float = 0.1  # how much wider the opening is than the segment


@dataclass(frozen=True)
class GraspSearch:
    """Parameters of the search. The defaults were chosen by simulated picks (test/bench/bench_grasps.py)."""

    segments: SegmentSearch = field(default_factory=SegmentSearch)
    weights: QualityWeights = field(default_factory=QualityWeights)
    cell_m: float = 0.0015  # the object's surface is reduced to one point per cell of this side
    max_points: int = 3000  # cells of a larger surface grow, but at most to half a finger's thickness
    max_obstacle_points: int = 12000  # the same for obstacles around the object
    own_edge_m: float = 0.004  # obstacles nearer than this to the object may be its edge, which the mask left out
    finger_clearance_m: float = 0.012  # extra opening on either side of the segment
    min_colliding_points: int = 3  # a hand pose with fewer points inside the hand counts as free: they are noise
    ignored_height_m: float = 0.002  # points up to this high above the fingertips do not collide
    occluder_px: int = 7  # side of the square around a pixel in which something nearer cuts the object off
    occluder_gap_m: float = 0.01  # an occluder is nearer than the pixel by at least this
    min_quality: float = 0.58  # simulated picks with worse ones failed: they are not candidates
    room_m: float = 0.016  # free opening beside the segment, both sides together, that gets the full score


class LocatedObject(Protocol):
    """An object with a box, such as a Geometry or an instance of instructsam_ros.client."""

    @property
    def points(self) -> np.ndarray | None:
        """Points [N, 3] m of the visible surface; None if they were not requested."""

    @property
    def center(self) -> np.ndarray | None:
        """Center [3] m of the box."""

    @property
    def rotation(self) -> np.ndarray | None:
        """Axes [3, 3] of the box, in columns."""

    @property
    def size_m(self) -> np.ndarray | None:
        """Size [3] m of the box along its axes."""


@dataclass(frozen=True, eq=False)
class _Box:
    center: np.ndarray
    rotation: np.ndarray
    size_m: np.ndarray


@dataclass(frozen=True)
class GraspResult:
    """The grasps of an object, or the reason why it has none."""

    candidates: list[Grasp]  # best first
    reason: str = ''  # for example 'it is 12.3 cm wide, and the gripper opens 8.0 cm, ...'


def grasp_candidates(
    geometry: LocatedObject,
    gripper: Gripper = DEFAULT_GRIPPER,
    limit: int = 5,
    around: np.ndarray | None = None,
    *,
    search: GraspSearch = GraspSearch(),
) -> list[Grasp]:
    """Return up to `limit` grasps of an object, best first; `find_grasps` also says why there are none.

    Args:
        geometry: As in `find_grasps`.
        gripper: As in `find_grasps`.
        limit: As in `find_grasps`.
        around: As in `find_grasps`.
        search: As in `find_grasps`.

    Raises:
        ValueError: The object has no points or no box.
    """
    return find_grasps(geometry, gripper, limit, around, search=search).candidates


def find_grasps(
    geometry: LocatedObject,
    gripper: Gripper = DEFAULT_GRIPPER,
    limit: int = 5,
    around: np.ndarray | None = None,
    *,
    search: GraspSearch = GraspSearch(),
) -> GraspResult:
    """Return up to `limit` grasps of an object, best first, or the reason why the gripper cannot grasp it.

    They approach against the third axis of the object's box, from above if it has a supporting plane.

    Args:
        geometry: The object's points and box.
        gripper: Dimensions of the gripper.
        limit: Largest number of candidates.
        around: Points [M, 3] m of obstacles in the same frame. None: all that the image shows near a Geometry, see
            SurfaceParams.reach_m. Objects of other types then have no obstacles: pass `points_of_others` at least.
        search: Parameters of the search.

    Raises:
        ValueError: The object has no points or no box.
    """
    points = geometry.points
    if points is None or geometry.center is None or geometry.rotation is None or geometry.size_m is None:
        raise ValueError('the object has no points: candidates need those on its visible surface')
    box = _Box(geometry.center, geometry.rotation, geometry.size_m)
    own = _to_box_frame(points, box)
    chosen = _thin_out(own, search.cell_m, search.max_points, gripper)
    own = own[chosen]
    if len(own) < search.segments.min_points:
        return GraspResult([], f'{len(own)} points of it are seen, which are too few to plan a grasp')
    surface = geometry if isinstance(geometry, Geometry) else None
    obstacles = _obstacles(surface, around, box, own, gripper, search)
    is_cut = _cut_points(surface, len(points), search)[chosen]
    # Half of the depth would do; the top of a slice leaves out a few points, which are noise.
    round_fit = RoundFit(filled_m=2 * max(search.segments.depths_m))
    hidden, is_hidden_cut = complete_round(own, is_cut, _to_camera(surface, box), round_fit)
    own, is_cut = np.concatenate([own, hidden]), np.concatenate([is_cut, is_hidden_cut])
    found = _all_segments(own, is_cut, gripper, search)
    segments = _ranked([each for each in found if isinstance(each, Segment)], own, box, gripper, search)
    candidates = _best_free(segments, own, obstacles, box, gripper, limit, search)
    if candidates:
        return GraspResult(candidates)
    rejected = [each for each in found if isinstance(each, Rejected)]
    return GraspResult([], _why_not(rejected, bool(segments), box, gripper))


def points_of_others(objects: Iterable[LocatedObject | None], one: LocatedObject) -> np.ndarray:
    """Return the points [M, 3] m of all objects except `one`: known obstacles of its grasps."""
    others = [each.points for each in objects if each is not None and each is not one and each.points is not None]
    return np.concatenate([np.empty((0, 3), np.float32), *others])


def _why_not(rejected: list[Rejected], is_blocked: bool, box: _Box, gripper: Gripper) -> str:
    """Return the reason why no segment can be grasped. is_blocked: the hand does not reach any of the others."""
    if is_blocked:
        return 'the hand would touch its surroundings, or another part of it, wherever it is narrow enough'
    widths_m = [each.width_m for each in rejected if each.why is Rejection.WIDE]
    if widths_m:
        # The narrowest segment may be near an end of the object, where it is narrower than its box.
        width_m = max(min(widths_m), box.size_m[1])
        return (
            f'it is {100 * width_m:.1f} cm wide, and the gripper opens {100 * gripper.opening_m:.1f} cm, '
            f'of which {100 * gripper.margin_m:.1f} cm are kept free'
        )
    counts = Counter(each.why for each in rejected)
    return counts.most_common(1)[0][0].value if counts else 'it is lower than the fingertips can reach'


def _all_segments(
    own: np.ndarray, is_cut: np.ndarray, gripper: Gripper, search: GraspSearch
) -> list[Segment | Rejected]:
    """Return the segments in every direction of closing."""
    angles = np.arange(search.segments.directions) * np.pi / search.segments.directions
    return [segment for angle in angles for segment in find_segments(own, is_cut, angle, gripper, search.segments)]


def _ranked(
    segments: Iterable[Segment], own: np.ndarray, box: _Box, gripper: Gripper, search: GraspSearch
) -> list[tuple[float, Segment]]:
    """Return the segments of sufficient quality with it, best first."""
    radius = max(float(np.linalg.norm(box.size_m[:2])) / 2, 1e-3)
    middle = _footprint_middle(own)
    ranked = [(_quality(segment, middle, radius, gripper, search), segment) for segment in segments]
    return sorted((pair for pair in ranked if pair[0] >= search.min_quality), key=lambda pair: -pair[0])


def _best_free(
    segments: Iterable[tuple[float, Segment]],
    own: np.ndarray,
    obstacles: np.ndarray,
    box: _Box,
    gripper: Gripper,
    limit: int,
    search: GraspSearch,
) -> list[Grasp]:
    """Return grasps of the best segments that the hand reaches without a collision, at most `limit`.

    segments: with their quality, best first.
    """
    grasps: list[Grasp] = []
    for quality, segment in segments:
        if len(grasps) == limit:
            break
        if _is_free(segment, own, obstacles, gripper, search):
            grasps.append(_grasp(segment, box, quality, gripper, search))
    return grasps


def _footprint_middle(own: np.ndarray, cell_m: float = 0.005) -> np.ndarray:
    """Return the middle [2] m between the centre and the centroid of the object, both seen from above.

    A spoon is heavier at its bowl, but the tines of a fork are lighter than they are wide.
    """
    cells = np.unique(np.floor(own[:, :2] / cell_m), axis=0) + 0.5
    return (cells.mean(axis=0) + (cells.min(axis=0) + cells.max(axis=0)) / 2) * cell_m / 2


def _obstacles(
    geometry: Geometry | None,
    around: np.ndarray | None,
    box: _Box,
    own: np.ndarray,
    gripper: Gripper,
    search: GraspSearch,
) -> np.ndarray:
    """Return the points [M, 3] m of obstacles near the object, in the frame of its box."""
    if around is None:
        around = np.empty((0, 3)) if geometry is None else _points_beside(geometry)
    reach = np.linalg.norm(box.size_m) + gripper.opening_m + 2 * gripper.thickness_m
    obstacles = _to_box_frame(around[(np.abs(around - box.center) < reach).all(axis=1)], box)
    # Most points are the table's, lower than any fingertip.
    obstacles = obstacles[obstacles[:, 2] > search.segments.support_clearance_m + search.ignored_height_m]
    obstacles = obstacles[_thin_out(obstacles, search.cell_m, search.max_obstacle_points, gripper)]
    distances, _ = KDTree(own).query(obstacles, distance_upper_bound=search.own_edge_m)
    return obstacles[distances > search.own_edge_m]


def _points_beside(geometry: Geometry) -> np.ndarray:
    """Return the points [M, 3] m within reach that are not the object's; those near it are the densest."""
    surface, depth_m = geometry.surface, geometry.surroundings.depth_m()
    near = replace(surface, mask=(surface.depth > 0) & ~surface.mask)
    far = replace(surface, depth=depth_m, mask=depth_m > 0, rays=geometry.surroundings.rays)
    return np.concatenate([near.points, far.points])


def _cut_points(geometry: Geometry | None, count: int, search: GraspSearch) -> np.ndarray:
    """Return [N] bool: points next to something nearer or to the image border, where the object may continue unseen."""
    if geometry is None:
        return np.zeros(count, bool)
    surface = geometry.surface
    others = np.where(surface.mask | (surface.depth <= 0), np.float32(np.inf), surface.depth)
    nearest = cv2.erode(others, np.ones((search.occluder_px, search.occluder_px), np.uint8))
    is_cut = nearest < surface.depth - search.occluder_gap_m
    # The crop has a margin around the object, except where the image ends.
    border = np.ones_like(is_cut)
    border[4:-4, 4:-4] = False
    return (is_cut | border)[surface.mask]


def _to_camera(geometry: Geometry | None, box: _Box) -> np.ndarray | None:
    """Return the direction [2] from the object to the camera, seen from above, in the frame of its box."""
    if geometry is None:
        return None
    translation = geometry.surface.translation
    camera = np.zeros(3) if translation is None else translation
    return ((camera - box.center) @ box.rotation)[:2]


def _to_box_frame(points: np.ndarray, box: _Box) -> np.ndarray:
    """Return points [N, 3] m along the axes of the box, with the height above the supporting plane as the third."""
    local = (points - box.center) @ box.rotation
    local[:, 2] += box.size_m[2] / 2
    return local


def _thin_out(points: np.ndarray, cell_m: float, max_points: int, gripper: Gripper) -> np.ndarray:
    """Return the indices of points, one per cell, evenly spread: parts seen at a flat angle have fewer points per area.

    Cells grow until there are `max_points`, but no larger than half a finger is thick: points in neighbouring cells are
    then no farther apart than a finger is thick, which would look like room for one. A large surface keeps more points.

    Args:
        points: Points [N, 3] m.
        cell_m: Least side of a cell.
        max_points: Number of points above which cells grow.
        gripper: Dimensions of the gripper.
    """
    while True:
        cells = np.floor(points / cell_m).astype(np.int64) @ (1, 1 << 20, 1 << 40)
        chosen = np.unique(cells, return_index=True)[1]
        if len(chosen) <= max_points or cell_m >= gripper.thickness_m / 2:
            return chosen
        cell_m = min(1.25 * cell_m, gripper.thickness_m / 2)


def _is_free(segment: Segment, own: np.ndarray, obstacles: np.ndarray, gripper: Gripper, search: GraspSearch) -> bool:
    """Return whether the open hand comes down without touching anything, and closes on the segment alone.

    Args:
        segment: The segment between the fingers.
        own: Points [N, 3] m of the object in the frame of its box; between the fingers they do not collide.
        obstacles: Points [M, 3] m of everything else.
        gripper: Dimensions of the gripper.
        search: Parameters of the search.
    """
    half = _opening(segment, gripper, search) / 2
    cos, sin = np.cos(segment.angle_rad), np.sin(segment.angle_rad)
    colliding = 0
    for points, free_half in ((own, half), (obstacles, 0.0)):
        u = np.abs(points[:, 0] * cos + points[:, 1] * sin - segment.along_m)
        v = np.abs(points[:, 1] * cos - points[:, 0] * sin - segment.across_m)
        h = points[:, 2] - segment.tip_m
        in_reach = (u > free_half) & (u < half + gripper.thickness_m)
        in_fingers = (h > search.ignored_height_m) & (v < gripper.finger_m / 2) & in_reach
        under_palm = (v < gripper.palm_m / 2) & (u < gripper.opening_m / 2 + gripper.thickness_m)
        colliding += np.count_nonzero(in_fingers | ((h > gripper.length_m) & under_palm))
    return colliding < search.min_colliding_points


def _opening(segment: Segment, gripper: Gripper, search: GraspSearch) -> float:
    """Return the opening of the fingers during the approach, m."""
    return min(gripper.opening_m, segment.width_m + 2 * search.finger_clearance_m)


def _quality(segment: Segment, middle: np.ndarray, radius: float, gripper: Gripper, search: GraspSearch) -> float:
    """Return the weighted mean of the terms, 0 to 1. middle: [2] m and radius: the object's, in m."""
    weights = search.weights
    off_middle = np.linalg.norm(_position(segment) - middle)
    return float(
        weights.parallel * (1 / (1 + segment.slant**2))
        + weights.central * max(0.0, 1 - off_middle / radius)
        + weights.deep * min(1.0, segment.depth_m / max(search.segments.depths_m))
        + weights.visible * segment.visible_share
        + weights.room * min(1.0, (gripper.opening_m - segment.width_m) / search.room_m)
    )


def _position(segment: Segment) -> np.ndarray:
    """Return the middle [2] m of a segment, seen from above, in the frame of the object's box."""
    cos, sin = np.cos(segment.angle_rad), np.sin(segment.angle_rad)
    return np.array([cos * segment.along_m - sin * segment.across_m, sin * segment.along_m + cos * segment.across_m])


def _grasp(segment: Segment, box: _Box, quality: float, gripper: Gripper, search: GraspSearch) -> Grasp:
    """Return the grasp of a segment in the frame of the object's points."""
    direction = np.array([np.cos(segment.angle_rad), np.sin(segment.angle_rad)])
    local = np.array([*_position(segment), segment.tip_m - box.size_m[2] / 2])
    x, z = np.array([*direction, 0.0]), np.array([0.0, 0.0, -1.0])
    return Grasp(
        position=box.center + box.rotation @ local,
        rotation=box.rotation @ np.stack([x, np.cross(z, x), z], axis=1),
        width_m=segment.width_m,
        opening_m=float(_opening(segment, gripper, search)),
        quality=quality,
    )

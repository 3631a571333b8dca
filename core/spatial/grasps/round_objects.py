"""Completes the hidden part of round objects: cans, bottles, balls, fruit, vases, the bodies of teapots.

A camera sees half of a surface of revolution, and that half determines the rest. An upright axis is fitted to the
outline at all heights at once; where most of the outline is round about it, the azimuths that were not seen get points.
So does the inside, as far down as fingertips reach, except at heights where the inside of a vessel is seen. Objects
that are not round stay as they were seen.
"""

import math
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class RoundFit:
    """Parameters of the fit."""

    band_m: float = 0.005  # height of a band
    azimuths: int = 40  # sectors of a band
    iterations: int = 6  # alternations between the outline and the axis
    tolerance_m: float = 0.002  # largest distance of a round outline from its circle,
    tolerance_share: float = 0.09  # or this share of its radius, if that is more
    min_round_share: float = 0.78  # least share of the outline that is round
    min_arc_share: float = 0.25  # least share of the azimuths of all bands at which there is an outline
    min_seen_share: float = 0.42  # least share of the azimuths at which any part of the object is seen
    min_seen_share_low: float = 0.8  # the same for an object lower than its radius, whose far side is seen as well
    far_deg: float = 60.0  # the far side is within this angle of the direction away from the visible outline
    level_share: float = 0.4  # distance between added rings, as a share of a band
    spacing_m: float = 0.009  # distance between points inside a solid band: less than a finger is thick
    filled_m: float = 0.07  # depth below the top of the inside that gets points: fingertips reach no deeper
    max_diameter_m: float = 2.0  # wider objects stay as they were seen: the points inside would be too many
    min_width_share: float = 0.82  # least width of the visible part as a share of the largest diameter


def complete_round(
    points: np.ndarray,
    is_cut: np.ndarray,
    to_camera: np.ndarray | None = None,
    params: RoundFit = RoundFit(),
) -> tuple[np.ndarray, np.ndarray]:
    """Return the hidden part of a round object: points [K, 3] m and is_cut [K]; none if it is not round.

    Args:
        points: Points [N, 3] m of the visible surface; the third coordinate is the height.
        is_cut: [N] bool: the object may continue unseen behind something nearer at this point.
        to_camera: Direction [2] towards the camera, seen from above. None: the inside stays empty.
        params: Parameters of the fit.
    """
    nothing = np.empty((0, 3)), np.empty(0, bool)
    seen = points[~is_cut]
    if len(seen) < params.azimuths:
        return nothing
    base_m = points[:, 2].min()
    bands = np.floor((points[:, 2] - base_m) / params.band_m).astype(int)
    outline, axis, radii = _fit_circles(seen, bands[~is_cut], params)
    at = bands[~is_cut][outline]
    distance = np.linalg.norm(seen[outline, :2] - axis, axis=1)
    is_round = np.abs(distance - radii[at]) < np.maximum(params.tolerance_m, params.tolerance_share * radii[at])
    sectors = _sectors(seen, axis, params)
    is_low = np.ptp(seen[:, 2]) < radii.max()
    if (
        is_round.mean() < params.min_round_share
        or len(outline) < params.min_arc_share * len(np.unique(at)) * params.azimuths
        or len(np.unique(sectors)) < (params.min_seen_share_low if is_low else params.min_seen_share) * params.azimuths
        or _width(seen) < params.min_width_share * 2 * radii.max()
        or 2 * radii.max() > params.max_diameter_m
    ):
        return nothing
    # A band with a part that sticks out, such as a handle, is round if most of its outline is.
    share = np.bincount(at, is_round, len(radii)) / np.maximum(np.bincount(at, minlength=len(radii)), 1)
    usable = np.flatnonzero(share >= params.min_round_share)
    occupied = np.zeros((bands.max() + 1, params.azimuths), bool)
    occupied[bands, _sectors(points, axis, params)] = True
    hidden = [_rim(occupied, usable, radii, params)]
    if to_camera is not None:
        hidden.append(_inside(occupied, usable, radii, to_camera, params))
    added = np.concatenate(hidden)
    cut_share = np.bincount(bands, is_cut) / np.maximum(np.bincount(bands), 1)
    level = np.round(added[:, 2]).astype(int).clip(0, bands.max())
    added[:, :2] += axis
    added[:, 2] = base_m + (added[:, 2] + 0.5) * params.band_m
    return added, cut_share[level] > 0.5


def _fit_circles(points: np.ndarray, bands: np.ndarray, params: RoundFit) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the outline, as indices of points [N, 3], the axis [2] m and the radius of every band."""
    axis = (points[:, :2].min(axis=0) + points[:, :2].max(axis=0)) / 2
    for _ in range(params.iterations):
        outline = _outline(points, bands, axis, params)
        axis, radii = _fit(points[outline, :2], bands[outline], axis)
    return _outline(points, bands, axis, params), axis, radii


def _rim(occupied: np.ndarray, usable: np.ndarray, radii: np.ndarray, params: RoundFit) -> np.ndarray:
    """Return points [K, 3] at the azimuths [bands, azimuths] that were not seen; heights are numbers of bands."""
    levels = np.arange(usable[0], usable[-1] + 0.01, params.level_share)
    nearest = usable[np.abs(usable[:, None] - levels).argmin(axis=0)]
    is_near = np.abs(nearest - levels) <= 0.5
    levels, nearest = levels[is_near], nearest[is_near]
    level, sector = np.nonzero(~occupied[nearest])
    radius = np.interp(levels, usable, radii[usable])[level]
    angle = _angles(params)[sector]
    return np.column_stack([radius * np.cos(angle), radius * np.sin(angle), levels[level]])


def _inside(
    occupied: np.ndarray, usable: np.ndarray, radii: np.ndarray, to_camera: np.ndarray, params: RoundFit
) -> np.ndarray:
    """Return points [K, 3] inside the highest bands that are solid; heights are numbers of bands.

    The inside of a vessel is seen on its far side, down to some height; whatever is lower counts as solid.
    """
    turned = _angles(params) - np.arctan2(-to_camera[1], -to_camera[0])
    is_far = np.cos(turned) > np.cos(np.deg2rad(params.far_deg))
    seen_far = np.flatnonzero(occupied[:, is_far].any(axis=1) & (np.arange(len(occupied)) >= usable[0]))
    solid = usable[usable < (seen_far[0] if len(seen_far) else np.inf)]
    steps = np.arange(-radii.max(), radii.max(), params.spacing_m)
    disc = np.stack(np.meshgrid(steps, steps), axis=-1).reshape(-1, 2)
    is_inside = np.linalg.norm(disc, axis=1) < radii[solid, None] - params.spacing_m / 2
    bands_above = np.cumsum(is_inside[::-1], axis=0, dtype=np.int32)[::-1]
    band, number = np.nonzero(is_inside & (bands_above <= math.ceil(params.filled_m / params.band_m)))
    return np.column_stack([disc[number], solid[band]])


def _width(points: np.ndarray) -> float:
    """Return the largest horizontal extent of points [N, 3]."""
    angles = np.arange(12) * np.pi / 12
    return float(np.ptp(points[:, :2] @ np.stack([np.cos(angles), np.sin(angles)]), axis=0).max())


def _angles(params: RoundFit) -> np.ndarray:
    """Return the azimuth of the middle of each sector."""
    return (np.arange(params.azimuths) + 0.5) * 2 * np.pi / params.azimuths


def _sectors(points: np.ndarray, axis: np.ndarray, params: RoundFit) -> np.ndarray:
    """Return the sector [N] of each point about an axis [2]."""
    angle = np.arctan2(points[:, 1] - axis[1], points[:, 0] - axis[0])
    return np.floor(angle / (2 * np.pi) * params.azimuths).astype(int) % params.azimuths


def _outline(points: np.ndarray, bands: np.ndarray, axis: np.ndarray, params: RoundFit) -> np.ndarray:
    """Return the indices of the outermost point in every sector of every band."""
    cells = bands * params.azimuths + _sectors(points, axis, params)
    order = np.lexsort((np.linalg.norm(points[:, :2] - axis, axis=1), cells))
    last = np.flatnonzero(np.diff(cells[order], append=-1))
    return order[last]


def _fit(points: np.ndarray, bands: np.ndarray, axis: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the axis [2] and the radius of every band of the circles about it nearest to points [N, 2].

    It solves x^2 + y^2 = 2 axis . (x, y) + k, with one k per band, by least squares with weights that decrease with the
    distance from the previous circles.
    """
    count = bands.max() + 1
    distance = np.linalg.norm(points - axis, axis=1)
    medians = np.array([np.median(distance[bands == band]) if (bands == band).any() else 0.0 for band in range(count)])
    weight = 1 / (1 + ((distance - medians[bands]) / (0.03 * medians[bands] + 1e-4)) ** 2)
    # The means of each band are removed, which leaves two unknowns.
    total = np.maximum(np.bincount(bands, weight, count), 1e-12)

    def centred(values: np.ndarray) -> np.ndarray:
        return values - (np.bincount(bands, weight * values, count) / total)[bands]

    design = np.stack([centred(2 * points[:, 0]), centred(2 * points[:, 1])], axis=1)
    target = centred((points**2).sum(axis=1))
    matrix = design.T @ (weight[:, None] * design)
    axis = np.linalg.solve(matrix + 1e-12 * np.eye(2), design.T @ (weight * target))
    distance = np.linalg.norm(points - axis, axis=1)
    return axis, np.bincount(bands, weight * distance, count) / total

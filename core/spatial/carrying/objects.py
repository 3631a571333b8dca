"""The objects of an answer in later images: trajectories of points inside each mask, and the motion fitted to them.

Points follow the flow (dense point trajectories: Sundaram, Brox and Keutzer, ECCV 2010). An affine motion is fitted to
those of each object and aligned to the answer's image (Lucas and Kanade, IJCAI 1981; Baker and Matthews, IJCV 2004), so
that errors of the flow do not add up; the deviation of the points from it is the object's deformation. A point whose
color differs from that in the answer's image is hidden. An object of which little is visible is not returned until it
is recognised near where the camera's motion has carried it, and dropped if that does not happen soon.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import cv2
import numpy as np

from instructsam.core.result import Instance, Result
from instructsam.core.spatial.carrying.outline import Outline, cut, encode


@dataclass(frozen=True)
class CarryParams:
    """Parameters of the carrying. Lengths in px are on the reduced image."""

    longer_side_px: int = 320  # longer side of the reduced image
    max_images: int = 150  # images between an answer and the newest one whose flow is kept; each takes 0.3 MB
    max_points: int = 1500  # points of all objects together
    max_points_each: int = 150
    margin_px: float = 2.0  # distance of the points from the outline, where the flow belongs to neither side
    max_inconsistency_px: float = 1.0  # difference of the flows forward and back, above which neither is believed
    max_deviation_px: float = 1.5  # distance from the fitted motion above which a point is an outlier
    max_color_difference: float = 26.0  # mean difference of RGB, 0 to 255, above which a point is hidden
    min_visible: float = 0.35  # share of an object's points below which it is hidden
    min_recognised: float = 0.6  # share of them that match where a hidden object is seen again
    max_hidden_s: float = 1.0  # time after which a hidden object is dropped
    min_inside: float = 0.3  # share of an object inside the image, below which it is dropped
    max_area_ratio: float = 2.5  # change of an object's area by which it is dropped


class Step(NamedTuple):
    """One image, reduced, and the flow from the image before it."""

    time_ns: int
    colors: np.ndarray  # [h, w, 3] uint8 RGB, slightly blurred
    flow: np.ndarray | None  # [h/2, w/2, 2] float16 px, at every second pixel of the image before; None: no flow
    is_consistent: np.ndarray | None  # [h/2, w/2] uint8, whether the flow back agrees


class Carried(NamedTuple):
    """An instance that was carried to an image."""

    instance: Instance  # its mask in that image; without geometry
    confidence: float  # 0 to 1, see CarriedObjects.carried


SEARCHED = np.array(
    sorted(((x, y) for x in range(-6, 7, 2) for y in range(-6, 7, 2)), key=lambda shift: shift[0] ** 2 + shift[1] ** 2),
    np.float32,
)
"""Displacements [S, 2] px at which a hidden object is looked for, the nearest first."""

PREFERENCE = np.array([[1.0], [1.1], [1.1]])
"""Factors of the mismatch of each motion: the flow is followed unless another one matches better by a tenth."""

RIDGE = np.diag([3000.0, 3000.0, 1e-3]).astype(np.float32)
"""Weights of an object's previous shape, px2, and of its previous position, against its points.

For errors of 1 px that neighbours share and changes of the linear part by 0.02 per image: an object keeps its shape
while it is partly hidden.
"""

CALM = np.ones((13, 13), np.uint8)
UNCALM_WEIGHT = 0.05
"""Weight of points within 12 px of inconsistent flow (CALM), because an occluder drags the flow around it along."""

MAX_SHADE = 12.0  # difference by which an object may become lighter or darker than the image
COLOR_NOISE = 8.0  # standard deviation of a color, 0 to 255
DRIFT = np.tile(np.array([0.003, 0.003, 0.15], np.float32) ** -2, 2)
"""Inverse variances of the errors of the fitted motion in one image: of its linear part, and px."""


class CarriedObjects:
    """The instances of one answer and where they are now.

    Arrays are padded to the same number of points for every object. Positions are px of the reduced image.
    """

    def __init__(self, result: Result, colors: np.ndarray, time_ns: int, params: CarryParams) -> None:
        """Start with the instances of `result` on its image: `colors` [h, w, 3], reduced and blurred."""
        self._params = params
        self._size = result.height, result.width
        self._scale = np.array([result.width / colors.shape[1], result.height / colors.shape[0]])
        self._instances = [each for each in result.instances if each.mask.area]
        count = len(self._instances)
        most = min(params.max_points_each, max(8, params.max_points // max(count, 1)))
        self._outlines = [Outline(each.mask, self._scale, most, params.margin_px) for each in self._instances]
        width = max((len(outline.points) for outline in self._outlines), default=1)
        self._exists = np.zeros((count, width), bool)
        self._positions = np.zeros((count, width, 2), np.float32)
        for index, outline in enumerate(self._outlines):
            number = len(outline.points)
            self._exists[index, :number] = True
            self._positions[index, :number] = outline.points
            self._positions[index, number:] = outline.points[0]
        centers = np.array([outline.points.mean(axis=0) for outline in self._outlines], np.float32).reshape(count, 2)
        self._basis = np.ones((count, width, 3), np.float32)
        self._basis[..., :2] = self._positions - centers[:, None]
        self._vertices = [
            _with_one(each.vertices - center) for each, center in zip(self._outlines, centers, strict=True)
        ]
        self._influence = [_influence(outline) for outline in self._outlines]
        self._motion = np.zeros((count, 3, 2), np.float32)  # positions are basis @ motion
        self._motion[:, 0, 0] = self._motion[:, 1, 1] = 1
        self._motion[:, 2] = centers
        self._velocity = np.zeros((count, 2), np.float32)  # px per image
        self._deviation = np.zeros_like(self._positions)
        blurred = colors.astype(np.float32)
        self._colors = _sample(blurred, self._positions)
        gradient = np.stack([cv2.Sobel(blurred, cv2.CV_32F, *d, ksize=1, scale=0.5) for d in ((1, 0), (0, 1))], axis=-1)
        self._gradient = np.stack(
            [_sample(np.ascontiguousarray(gradient[..., i]), self._positions) for i in (0, 1)], -1
        )
        self._brightness = np.array(cv2.mean(colors)[:3], np.float32)
        self._gain = np.zeros((count, 1, 3), np.float32)  # difference of brightness from the answer's image
        self._is_visible = self._exists.copy()
        self._quality = np.ones(count)
        self._seen_ns = np.full(count, time_ns)
        self._is_hidden = np.zeros(count, bool)
        self._is_dropped = np.zeros(count, bool)

    def advance(self, step: Step) -> None:
        """Carry all objects to the next image."""
        if not self._instances or self._is_dropped.all():
            return
        if step.flow is None or step.is_consistent is None:
            self._is_dropped[:] = True
            return
        params, flow = self._params, step.flow.astype(np.float32)
        half = self._positions / 2
        followed = self._positions + _sample(flow, half)
        is_consistent = _sample(step.is_consistent, half, cv2.INTER_NEAREST)[..., 0] > 0
        is_calm = _sample(cv2.erode(step.is_consistent, CALM), half, cv2.INTER_NEAREST)[..., 0]
        weights = (is_consistent & self._is_visible & ~self._is_hidden[:, None]) * np.maximum(
            is_calm, np.float32(UNCALM_WEIGHT)
        )
        fitted = self._best_match(
            step.colors,
            _fit(self._basis, followed, weights, self._motion),
            _shifted(self._motion, self._velocity),
            _shifted(self._motion, _median_flow(flow, step.is_consistent)),
        )
        deviation = followed - self._basis @ fitted
        is_inlier = (weights > 0) & ((deviation**2).sum(axis=2) < params.max_deviation_px**2)
        self._deviation = np.where(is_inlier[..., None], deviation, 0)
        before = self._motion[:, 2]
        self._motion = self._aligned(fitted, step.colors)
        self._velocity = self._motion[:, 2] - before
        self._positions = self._basis @ self._motion + self._deviation
        self._judge(step)

    def _best_match(self, colors: np.ndarray, fitted: np.ndarray, steady: np.ndarray, static: np.ndarray) -> np.ndarray:
        """Return the motion of each object under which it looks most like in the answer's image.

        Where something passes in front of an object, the flow follows that instead.

        Args:
            colors: The image.
            fitted: Motions [K, 3, 2] by the flow.
            steady: Motions by the velocity in the last image.
            static: Motions of objects that only the camera moves.
        """
        candidates = np.stack([fitted, steady, static])
        costs = np.stack([self._mismatch(motion, colors) for motion in candidates]) * PREFERENCE
        best = candidates[costs.argmin(axis=0), np.arange(len(fitted))]
        for index in np.flatnonzero(self._is_hidden & ~self._is_dropped).tolist():
            best[index] = self._searched(index, static[index], colors)
        return best

    def _mismatch(self, motion: np.ndarray, colors: np.ndarray) -> np.ndarray:
        """Return the mean difference of each object's points from the answer's image, [K], hidden points limited."""
        error = np.abs(_sample(colors, self._basis @ motion + self._deviation) - self._colors - self._gain).mean(axis=2)
        error = np.minimum(error, self._params.max_color_difference)
        return np.where(self._exists, error, 0).sum(axis=1) / self._exists.sum(axis=1)

    def _aligned(self, motion: np.ndarray, colors: np.ndarray) -> np.ndarray:
        """Return the motion after one step of Gauss and Newton towards the colors of the answer's image."""
        linear = np.linalg.inv(motion[:, :2])[:, None, None]  # [K, 1, 1, 2, 2]; a gradient turns with the object
        gradient = (linear @ self._gradient[..., None])[..., 0]
        positions = self._basis @ motion + self._deviation
        error = _sample(colors, positions) - self._colors - self._gain
        is_alike = np.abs(error).mean(axis=2) < self._params.max_color_difference
        weights = (self._exists & _is_inside(positions, colors) & is_alike)[..., None] / (COLOR_NOISE**2 + error**2)
        count = len(motion)
        jacobian = (self._basis[:, :, None, None, :] * gradient[..., None]).reshape(count, -1, 6)
        weighted = (jacobian * weights.reshape(count, -1, 1)).transpose(0, 2, 1)
        delta = np.linalg.solve(weighted @ jacobian + np.diag(DRIFT), -weighted @ error.reshape(count, -1, 1))
        return (motion + delta.reshape(count, 2, 3).transpose(0, 2, 1)).astype(np.float32)

    def _judge(self, step: Step) -> None:
        """Find out which points and objects are visible, and drop those that are lost."""
        params = self._params
        difference = _sample(step.colors, self._positions) - self._colors
        seen = self._exists & _is_inside(self._positions, step.colors)
        exposure = np.array(cv2.mean(step.colors)[:3], np.float32) - self._brightness
        gain = _median(difference, seen & self._is_visible, self._gain[:, 0])
        self._gain = np.clip(gain, exposure - MAX_SHADE, exposure + MAX_SHADE)[:, None]
        error = np.abs(difference - self._gain).mean(axis=2)
        self._is_visible = seen & (error < params.max_color_difference)
        share = self._is_visible.sum(axis=1) / self._exists.sum(axis=1)
        similarity = 1 - np.where(self._is_visible, error, 0).sum(axis=1) / np.maximum(
            self._is_visible.sum(axis=1) * params.max_color_difference, 1
        )
        self._quality = share * similarity
        self._is_hidden = self._quality < np.where(self._is_hidden, params.min_recognised, params.min_visible)
        self._seen_ns[~self._is_hidden] = step.time_ns
        area = np.maximum(np.linalg.det(self._motion[:, :2]), 1e-6)
        inside = (seen & self._exists).sum(axis=1) / self._exists.sum(axis=1)
        self._is_dropped |= (
            (step.time_ns - self._seen_ns > params.max_hidden_s * 1e9)
            | (np.maximum(area, 1 / area) > params.max_area_ratio)
            | (inside < params.min_inside)
        )

    def _searched(self, index: int, motion: np.ndarray, colors: np.ndarray) -> np.ndarray:
        """Return the motion of a hidden object, moved to where it is recognised."""
        number = len(self._outlines[index].points)
        at = self._basis[index, :number] @ motion + SEARCHED[:, None]
        error = np.abs(_sample(colors, at) - self._colors[index, :number] - self._gain[index]).mean(axis=2)
        share = (error < self._params.max_color_difference).mean(axis=1)
        if share.max() < self._params.min_recognised:
            return motion
        return _shifted(motion[None], SEARCHED[share.argmax()])[0]

    def carried(self) -> list[Carried]:
        """Return the instances where they are now, without those that are hidden or dropped.

        The confidence is the share of the object's points that were recognised, times their similarity.
        """
        found = []
        for index in np.flatnonzero(~(self._is_hidden | self._is_dropped)).tolist():
            outline, instance = self._outlines[index], self._instances[index]
            number = len(outline.points)
            is_visible = self._is_visible[index, :number]
            drawn = outline.draw(self._moved_vertices(index, is_visible), self._scale, self._size)
            if drawn is None:
                continue
            crop, low = drawn
            if not is_visible.all():
                cut(crop, low, self._scale, self._positions[index, :number], ~is_visible, outline.spacing)
            mask = encode(crop, low, self._size)
            if mask is None:
                continue
            moved = Instance(
                mask, instance.score, instance.phrase, instance.slot, instance.group, track_id=instance.track_id
            )
            found.append(Carried(moved, float(self._quality[index])))
        return found

    def _moved_vertices(self, index: int, is_visible: np.ndarray) -> np.ndarray:
        """Return where the vertices of an outline are: moved as the object, and deformed as the visible points near."""
        influence = self._influence[index] * is_visible
        deformation = influence @ self._deviation[index, : len(is_visible)]
        return self._vertices[index] @ self._motion[index] + deformation / (influence.sum(axis=1, keepdims=True) + 1e-3)


def _influence(outline: Outline) -> np.ndarray:
    """Return the weights of an outline's points for each of its vertices, [M, N] float32, at most 1."""
    sigma = max(3.0, 0.25 * outline.spacing * len(outline.points) ** 0.5)
    squared = ((outline.vertices[:, None] - outline.points) ** 2).sum(axis=2)
    return np.exp((squared.min(axis=1, keepdims=True) - squared) / (2 * sigma**2)).astype(np.float32)


def _with_one(vectors: np.ndarray) -> np.ndarray:
    """Return vectors [N, 2] as [N, 3] with 1 as their last component."""
    return np.concatenate([vectors, np.ones((len(vectors), 1), np.float32)], axis=1)


def _fit(basis: np.ndarray, positions: np.ndarray, weights: np.ndarray, prior: np.ndarray) -> np.ndarray:
    """Fit an affine motion to the points of each object by iteratively reweighted least squares (Cauchy's weights).

    Args:
        basis: Points in the answer's image, [K, N, 3].
        positions: Where they are now, [K, N, 2].
        weights: [K, N]; 0: ignored.
        prior: Motions [K, 3, 2] that apply where the points do not determine others.

    Returns:
        Motions [K, 3, 2].
    """
    motion = prior.copy()
    motion[:, 2] += _median(positions - basis @ motion, weights > 0, np.zeros((len(prior), 2), np.float32))
    start = motion
    for _ in range(3):
        residual = positions - basis @ motion
        robust = weights / (1 + (residual**2).sum(axis=2))
        weighted = (basis * robust[..., None]).transpose(0, 2, 1)
        motion = np.linalg.solve(weighted @ basis + RIDGE, weighted @ positions + RIDGE @ start)
    return motion


def _shifted(motion: np.ndarray, shift: np.ndarray) -> np.ndarray:
    """Return motions [K, 3, 2] with `shift`, [2] or [K, 2] px, added."""
    shifted = motion.copy()
    shifted[:, 2] += shift
    return shifted


def _median(values: np.ndarray, is_valid: np.ndarray, otherwise: np.ndarray) -> np.ndarray:
    """Return the medians [K, C] of values [K, N, C] where `is_valid` [K, N]; `otherwise` [K, C] where none is."""
    count = is_valid.sum(axis=1)
    ordered = np.sort(np.where(is_valid[..., None], values, np.inf), axis=1)
    medians = np.take_along_axis(ordered, (count // 2 - (count % 2 == 0))[:, None, None].clip(0), axis=1)[:, 0]
    return np.where(count[:, None] > 0, medians, otherwise).astype(np.float32)


def _median_flow(flow: np.ndarray, is_consistent: np.ndarray) -> np.ndarray:
    """Return the median of the flow, [2] px: the camera's motion."""
    sparse = flow[::4, ::4].reshape(1, -1, 2)
    return _median(sparse, is_consistent[::4, ::4].reshape(1, -1) > 0, np.zeros((1, 2), np.float32))[0]


def _is_inside(positions: np.ndarray, image: np.ndarray) -> np.ndarray:
    """Return which positions [..., 2] are inside an image [h, w, ...]."""
    return np.all((positions > -0.5) & (positions < np.array(image.shape[1::-1]) - 0.5), axis=-1)


def _sample(field: np.ndarray, positions: np.ndarray, interpolation: int = cv2.INTER_LINEAR) -> np.ndarray:
    """Return a field [h, w, C] or [h, w] at positions [K, N, 2], as [K, N, C] float32."""
    if not positions.size:
        return np.zeros((*positions.shape[:-1], field.shape[2]), np.float32)
    x, y = np.ascontiguousarray(positions[..., 0]), np.ascontiguousarray(positions[..., 1])
    values = cv2.remap(field, x, y, interpolation, borderMode=cv2.BORDER_REPLICATE)
    return values.reshape(*positions.shape[:-1], -1).astype(np.float32)

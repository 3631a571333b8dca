"""Composites: several stamps on a photographed surface, with contact shadows, occlusion and a camera's artefacts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from instructsam.train.evaluation.real.stamps import Stamp, StampFacts
from instructsam.train.pictures import compress_jpeg, turn_matrix, warp_cutout
from instructsam.train.tabletop.scenes import sensor

WIDTH, HEIGHT = 480, 360  # px; the stamps are small
PX_PER_CM = (4.5, 7.0)
FOCUS_COUNT, KNOWN_COUNT, OTHER_COUNT = (2, 4), (1, 4), (0, 3)  # ranges of the numbers of objects, upper end excluded
LEAST_VISIBLE = 0.75  # share of every object
TRIES = 60  # positions tried for one object before it is left out
JPEG_QUALITY = (70, 96)


@dataclass(frozen=True, eq=False)
class Item:
    """An object of a composite: its facts and its visible pixels [H, W] bool."""

    facts: StampFacts
    mask: np.ndarray

    @property
    def box(self) -> tuple[int, int, int, int]:
        """Box (x0, y0, x1, y1) px of the visible pixels."""
        x, y, width, height = cv2.boundingRect(self.mask.astype(np.uint8))
        return x, y, x + width, y + height


@dataclass(frozen=True, eq=False)
class _Placed:
    stamp: Stamp
    alpha: np.ndarray  # [H, W] float32, 0 to 1
    color: np.ndarray  # [H, W, 3] float32
    covers: np.ndarray  # [H, W] bool, its silhouette
    bottom: int  # px


def draw_composite(
    known: Sequence[Stamp], other: Sequence[Stamp], surfaces: Sequence[np.ndarray], rng: np.random.Generator
) -> tuple[np.ndarray, list[Item]]:
    """Draw an image [H, W, 3] uint8 and return it with its objects.

    Args:
        known: Stamps of the nouns that most instructions are about; two or three objects share one noun.
        other: Stamps of other nouns.
        surfaces: Photographs of surfaces, [N, M, 3] uint8.
        rng: Random numbers.
    """
    image = _background(surfaces, rng)
    nouns = sorted({stamp.facts.noun for stamp in known})
    focus = [stamp for stamp in known if stamp.facts.noun == nouns[rng.integers(len(nouns))]]
    chosen = [
        pool[int(rng.integers(len(pool)))]
        for pool, (low, high) in zip((focus, known, other), (FOCUS_COUNT, KNOWN_COUNT, OTHER_COUNT), strict=True)
        for _ in range(rng.integers(low, high))
        if pool
    ]
    scale = rng.uniform(*PX_PER_CM)
    placed: list[_Placed] = []
    for stamp in chosen:
        for _ in range(TRIES):
            trial = sorted([*placed, _place(stamp, scale, rng)], key=lambda each: each.bottom)
            if all(share >= LEAST_VISIBLE for share in _visible_shares(trial)):
                placed = trial
                break
    light = rng.uniform(-1, 1, 2)
    for each in placed:
        image = _pasted(image, each, light, rng)
    masks = _visible_masks(placed)
    return _photographed(image, rng), [Item(each.stamp.facts, mask) for each, mask in zip(placed, masks, strict=True)]


def _background(surfaces: Sequence[np.ndarray], rng: np.random.Generator) -> np.ndarray:
    """Draw a table, often with a blurred wall behind it, [H, W, 3] float32."""
    table = _crop(surfaces[int(rng.integers(len(surfaces)))], rng)
    wall = cv2.GaussianBlur(_crop(surfaces[int(rng.integers(len(surfaces)))], rng), (0, 0), rng.uniform(2, 8))
    edge = int(rng.uniform(-0.3, 0.35) * HEIGHT)
    if edge > 0:
        table[:edge] = wall[:edge] * rng.uniform(0.5, 1)
        table[max(edge - 3, 0) : edge + 3] = cv2.GaussianBlur(table, (0, 0), 2)[max(edge - 3, 0) : edge + 3]
    x, y = np.meshgrid(np.linspace(-1, 1, WIDTH), np.linspace(-1, 1, HEIGHT))
    slope = rng.normal(0, 0.12, 2)
    return (table * (1 + slope[0] * x + slope[1] * y)[..., None]).astype(np.float32)


def _crop(surface: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return a random part of a photograph in the size of the image, [H, W, 3] float32."""
    height, width = surface.shape[:2]
    share = rng.uniform(0.5, 1.0)
    columns = int(min(width, height * WIDTH / HEIGHT) * share)
    rows = max(1, int(columns * HEIGHT / WIDTH))
    top, left = int(rng.integers(height - rows + 1)), int(rng.integers(width - columns + 1))
    crop = surface[top : top + rows, left : left + columns]
    if rng.random() < 0.5:
        crop = crop[:, ::-1]
    return cv2.resize(np.ascontiguousarray(crop), (WIDTH, HEIGHT), interpolation=cv2.INTER_AREA).astype(np.float32)


def _place(stamp: Stamp, px_per_cm: float, rng: np.random.Generator) -> _Placed:
    """Place a stamp at random, completely in the image."""
    height, width = stamp.picture.shape[:2]
    scale = stamp.facts.length_cm * px_per_cm * rng.uniform(0.9, 1.1) / max(height, width)
    angle = np.radians(rng.uniform(0, 360) if stamp.facts.rolls else rng.normal(0, 3))
    turn = turn_matrix(scale, angle, is_mirrored=rng.random() < 0.5)
    corners = turn @ (np.array([[-1, 1, 1, -1], [-1, -1, 1, 1]]) * [[width / 2], [height / 2]])
    margin = np.abs(corners).max(axis=1) + 2
    center = rng.uniform(margin, (WIDTH, HEIGHT) - margin) if (2 * margin < (WIDTH, HEIGHT)).all() else margin
    opacity, color = warp_cutout(stamp.picture, turn, center, (WIDTH, HEIGHT), scale=scale, softness=0.45)
    alpha = np.clip(opacity / 255, 0, 1)
    covers = alpha > stamp.facts.solid
    rows = np.flatnonzero(covers.any(axis=1))
    return _Placed(stamp, alpha, color, covers, int(rows[-1]) if len(rows) else 0)


def _visible_masks(placed: Sequence[_Placed]) -> list[np.ndarray]:
    """Return the visible pixels of objects that are drawn in this order."""
    masks: list[np.ndarray] = []
    for each in placed:
        masks = [*(mask & ~each.covers for mask in masks), each.covers]
    return masks


def _visible_shares(placed: Sequence[_Placed]) -> list[float]:
    masks = _visible_masks(placed)
    return [mask.sum() / max(each.covers.sum(), 1) for each, mask in zip(placed, masks, strict=True)]


def _pasted(image: np.ndarray, placed: _Placed, light: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Paint an object with the shadow that it casts."""
    rows = np.flatnonzero(placed.covers.any(axis=1))
    height = rows[-1] - rows[0] + 1
    shift = np.array([[1, 0, 0.08 * height * light[0]], [0, 1, 0.05 * height * (1 + light[1])]])
    shadow = cv2.warpAffine(placed.alpha, shift, (WIDTH, HEIGHT))
    shadow = cv2.GaussianBlur(shadow, (0, 0), 0.06 * height + 1) * rng.uniform(0.3, 0.6)
    gain = rng.uniform(0.85, 1.1)
    alpha = placed.alpha[..., None]
    return image * (1 - shadow[..., None]) * (1 - alpha) + placed.color * gain


def _photographed(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return the image as a camera would provide it, [H, W, 3] uint8."""
    noisy = sensor.noise(cv2.GaussianBlur(image, (0, 0), rng.uniform(0.4, 0.9)).astype(np.float32), rng)
    return compress_jpeg(noisy, int(rng.integers(*JPEG_QUALITY)))

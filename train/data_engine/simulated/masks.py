"""Masks of a simulated box-to-mask model: the truth of the object in the box, with the annotation's faults of masks."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from instructsam.core.rle import Rle
from instructsam.train.data_engine.coordinates import box_iou
from instructsam.train.data_engine.rows import Box, ObjectMask
from instructsam.train.data_engine.simulated.annotator import SimulatedAnnotator
from instructsam.train.data_engine.simulated.noise import generator
from instructsam.train.data_engine.simulated.world import KnownScene

REACH = 0.15  # a box-prompted mask ends at most this share of the box's sides outside the box
SCORE_ERROR = 0.05  # standard deviation of the error of the predicted IoU
LEAK_PX = 9  # side of the kernel with which a leaking mask grows


def simulated_masks(annotator: SimulatedAnnotator, image: np.ndarray, boxes: Sequence[Box]) -> list[ObjectMask]:
    """Return one mask per box.

    The mask is the object whose own box fits best, cut off outside the reach of the prompt, and eroded, leaking or
    halved if the annotation says so. Its predicted IoU is the IoU with the whole object with a normal error; its
    stability is high, as the simulation has no logits.

    Args:
        annotator: The annotator, which knows the scene.
        image: The picture of the scene, [H, W, 3] uint8 RGB.
        boxes: Boxes in px.
    """
    scene = annotator.gallery.recognise(image)
    faults = annotator.annotation(scene).mask_faults
    return [_mask(scene, box, faults, annotator.noise.seed) for box in boxes]


def _mask(scene: KnownScene, box: Box, faults: dict[int, str], seed: int) -> ObjectMask:
    nearest = max(scene.masks, key=lambda i: (box_iou(box, scene.box(i)), -i))
    whole = scene.masks[nearest].decode()
    rng = generator(seed, scene.name, nearest, 'mask')
    drawn = spoiled(whole, faults.get(nearest, ''), rng) & _within(whole.shape, box)
    mask = Rle.encode(drawn)
    true_iou = float(mask.iou([scene.masks[nearest]])[0]) if mask.area else 0.0
    predicted = float(np.clip(true_iou + rng.normal(0, SCORE_ERROR), 0, 1))
    return ObjectMask(
        drawn.shape,
        mask.to_coco()['counts'] if mask.area else '',
        predicted_iou=round(predicted, 4),
        stability=0.99,
        object_score=5.0 if mask.area else -5.0,
        box_iou=round(box_iou(box, tuple(map(float, mask.box))), 4) if mask.area else 0.0,
    )


def spoiled(mask: np.ndarray, fault: str, rng: np.random.Generator) -> np.ndarray:
    """Return a mask [H, W] bool with a fault of `noise.MASK_FAULTS`, or without one.

    eroded_mask: the rim is gone, about half of the area; leaking_mask: it grows far into its surroundings on one side;
    half_mask: one half is missing.
    """
    rows, columns = np.nonzero(mask)
    if not fault or not len(rows):
        return mask
    if fault == 'eroded_mask':
        depth = cv2.distanceTransform(np.pad(mask.astype(np.uint8), 1), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)[1:-1, 1:-1]
        return depth > np.median(depth[mask])
    along = columns if np.ptp(columns) > np.ptp(rows) else rows
    is_first = along < np.median(along)
    if rng.random() < 0.5:
        is_first = ~is_first
    half = np.zeros_like(mask)
    half[rows[is_first], columns[is_first]] = True
    if fault == 'half_mask':
        return half
    return mask | cv2.dilate(half.astype(np.uint8), np.ones((LEAK_PX, LEAK_PX), np.uint8), iterations=2).astype(bool)


def _within(shape: tuple[int, ...], box: Box) -> np.ndarray:
    """Return the reach of a prompt [H, W] bool: its box with a margin of REACH of its sides."""
    margins = REACH * np.array([box[2] - box[0], box[3] - box[1]])
    (x0, y0), (x1, y1) = np.array(box[:2]) - margins, np.array(box[2:]) + margins
    reach = np.zeros(shape, bool)
    reach[max(int(y0), 0) : max(int(np.ceil(y1)), 0), max(int(x0), 0) : max(int(np.ceil(x1)), 0)] = True
    return reach

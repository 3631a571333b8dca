"""Masks of a simulated box-to-mask model: the truth of the object in the box, with the annotation's faults of masks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import cv2
import numpy as np

from instructsam.core.rle import Rle
from instructsam.train.data_engine.coordinates import box_iou
from instructsam.train.data_engine.masks.stage import object_mask
from instructsam.train.data_engine.rows import Box, ObjectMask, SegmentedObject
from instructsam.train.data_engine.simulated.annotator import SimulatedAnnotator
from instructsam.train.data_engine.simulated.noise import generator
from instructsam.train.data_engine.simulated.world import KnownScene

REACH = 0.15  # a box-prompted mask ends at most this share of the box's sides outside the box
SCORE_ERROR = 0.05  # standard deviation of the error of the predicted IoU
LOST = 0.55  # share of a mask that is missing if it is eroded or halved: too much for an IoU of 0.5
LEAK_PX = 9  # side of the kernel with which a leaking mask grows


class SimulatedMasks:
    """A backend of stage masks, see `masks.stage.MaskBackend`.

    A mask is the object whose own box fits best, cut off outside the reach of the prompt, and eroded, leaking or halved
    if the annotation says so. Its predicted IoU is the IoU with the whole object with a normal error; its stability is
    high, as the simulation has no logits.

    Args:
        annotator: The annotator, which knows the scenes.
    """

    def __init__(self, annotator: SimulatedAnnotator) -> None:
        self._annotator = annotator

    def __call__(self, image: np.ndarray, objects: Sequence[SegmentedObject]) -> list[ObjectMask]:
        """Return one mask per object of a picture of a known scene, [H, W, 3] uint8 RGB. Raises DataError."""
        scene = self._annotator.gallery.recognise(image)
        faults = self._annotator.annotation(scene).mask_faults
        return [_mask(scene, each.box, faults, self._annotator.noise.seed) for each in objects]


def _mask(scene: KnownScene, box: Box, faults: Mapping[int, str], seed: int) -> ObjectMask:
    nearest = max(scene.masks, key=lambda i: (box_iou(box, scene.box(i)), -i))
    whole = scene.masks[nearest].decode()
    rng = generator(seed, scene.name, nearest, 'mask')
    drawn = spoiled(whole, faults.get(nearest, ''), rng) & _within(whole.shape, box)
    mask = Rle.encode(drawn)
    true_iou = float(mask.iou([scene.masks[nearest]])[0]) if mask.area else 0.0
    predicted = float(np.clip(true_iou + rng.normal(0, SCORE_ERROR), 0, 1))
    score = 5.0 if mask.area else -5.0
    return object_mask(mask, box, predicted_iou=predicted, stability=0.99, object_score=score)


def spoiled(mask: np.ndarray, fault: str, rng: np.random.Generator) -> np.ndarray:
    """Return a mask [H, W] bool with a fault of `noise.MASK_FAULTS`, or without one.

    eroded_mask: the rim is gone, LOST of the area; leaking_mask: it grows far into its surroundings on one side;
    half_mask: LOST of it is missing at one end.
    """
    rows, columns = np.nonzero(mask)
    if not fault or not len(rows):
        return mask
    if fault == 'eroded_mask':
        depth = cv2.distanceTransform(np.pad(mask.astype(np.uint8), 1), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)[1:-1, 1:-1]
        return depth > np.quantile(depth[mask], LOST)
    along = columns if np.ptp(columns) > np.ptp(rows) else rows
    along = along if rng.random() < 0.5 else -along
    is_first = along > np.quantile(along, LOST)
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

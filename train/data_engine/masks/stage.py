"""Stage masks as a function: row in, row out, with a backend that turns boxes into masks."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Protocol

import numpy as np

from instructsam.core.rle import Rle
from instructsam.train.data_engine.coordinates import box_iou
from instructsam.train.data_engine.rows import Box, EngineImage, ObjectMask, Row, SegmentedObject, StageRecord

STAGE = 'masks'


class MaskBackend(Protocol):
    """A model that segments the objects of an image, which it encodes once."""

    def __call__(self, image: np.ndarray, objects: Sequence[SegmentedObject]) -> list[ObjectMask]:
        """Return one mask per object of an image [H, W, 3] uint8 RGB, of its size."""
        ...


class SegmentObjects:
    """The stage as a function. Any number of threads may call it: one at a time uses the model, others read images.

    Args:
        backend: The model.
        model: Its name, for the record.
        read: Returns the picture of a row's image, [H, W, 3] uint8 RGB.
    """

    def __init__(self, backend: MaskBackend, model: str, read: Callable[[EngineImage], np.ndarray]) -> None:
        self._backend = backend
        self._model = model
        self._read = read
        self._lock = threading.Lock()

    def __call__(self, row: Row) -> Row:
        """Return the row with a mask for every object.

        Raises:
            ModelError: The model computes numbers that are not finite.
            InstructSAMError: The image cannot be read any more.
        """
        if row.is_rejected or row.image is None or not row.objects:
            return row
        image = self._read(row.image)
        with self._lock:
            start = time.perf_counter()
            masks = self._backend(image, row.objects)
            seconds = time.perf_counter() - start
        objects = tuple(replace(each, mask=mask) for each, mask in zip(row.objects, masks, strict=True))
        return replace(row, objects=objects).with_record(StageRecord(STAGE, self._model, seconds=seconds))


def object_mask(
    mask: Rle,
    box: Box,
    *,
    predicted_iou: float | None = None,
    stability: float | None = None,
    object_score: float | None = None,
) -> ObjectMask:
    """Return a mask as rows have it; numbers are rounded, so that they are the same on every machine."""
    tight = mask.box
    return ObjectMask(
        size=(mask.height, mask.width),
        counts=str(mask.to_coco()['counts']) if mask.area else '',
        predicted_iou=_rounded(predicted_iou),
        stability=_rounded(stability),
        object_score=_rounded(object_score),
        box_iou=round(box_iou((float(tight[0]), float(tight[1]), float(tight[2]), float(tight[3])), box), 4),
    )


def empty_mask(image: np.ndarray) -> ObjectMask:
    """Return a mask without a pixel for an image [H, W, 3]."""
    return ObjectMask((image.shape[0], image.shape[1]), '')


def clipped(box: Box, image: np.ndarray) -> Box | None:
    """Return the part of a box that lies in an image [H, W, 3]; None if there is none."""
    height, width = image.shape[:2]
    x0, y0, x1, y1 = max(box[0], 0.0), max(box[1], 0.0), min(box[2], float(width)), min(box[3], float(height))
    return (x0, y0, x1, y1) if x1 > x0 and y1 > y0 else None


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 4)

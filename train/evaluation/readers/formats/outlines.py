"""Labelled outlines as LabelMe writes them and ReasonSeg uses them: targets, and regions to ignore."""

from typing import Any

import cv2
import numpy as np

from instructsam.core.rle import Rle
from instructsam.train.data.record_fields import RecordError
from instructsam.train.evaluation.readers.formats.records import GroundTruth, require_pixels

TARGET, IGNORE = 1, 2


def read_outlines(shapes: Any, height: int, width: int) -> GroundTruth:
    """Return one mask of all targets, and one of the regions to ignore.

    As in the authors' code, larger outlines are painted first, so that smaller ones inside stay visible; the label
    'flag' is left out, labels with 'ignore' are to be ignored, everything else is the target.

    Raises:
        RecordError: The shapes are broken, or the target has no pixel.
    """
    if not isinstance(shapes, list) or not shapes:
        raise RecordError('a record needs a list of shapes')
    painted: list[tuple[np.ndarray, int]] = []
    for shape in shapes:
        label = _label(shape)
        if label != 'flag':
            area = np.zeros((height, width), np.uint8)
            cv2.fillPoly(area, [_points(shape, height, width)], 1)  # fills the outline itself, too
            painted.append((area > 0, IGNORE if 'ignore' in label else TARGET))
    canvas = np.zeros((height, width), np.uint8)
    for area, value in sorted(painted, key=lambda pair: np.count_nonzero(pair[0]))[::-1]:
        canvas[area] = value
    target, ignore = require_pixels(Rle.encode(canvas == TARGET)), Rle.encode(canvas == IGNORE)
    return GroundTruth((target,), ignore if ignore.area else None)


def _label(shape: Any) -> str:
    label = shape.get('label') if isinstance(shape, dict) else None
    if not isinstance(label, str):
        raise RecordError(f'a shape needs a label and points, got {str(shape)[:60]}')
    return label.lower()


def _points(shape: dict[str, Any], height: int, width: int) -> np.ndarray:
    """Return the outline, [N, 2] int32 px, truncated to whole pixels as in the authors' code."""
    try:
        points: np.ndarray = np.array(shape.get('points'), dtype=np.float64)
    except (TypeError, ValueError, OverflowError):
        points = np.zeros(0)
    limit = 2 * max(height, width)  # painting outlines that extend far outside is slow
    if points.ndim != 2 or points.shape[1] != 2 or not (np.abs(points) <= limit).all():
        raise RecordError(f'a shape needs points [x, y] near the image, got {str(shape.get("points"))[:60]}')
    return points.astype(np.int32)

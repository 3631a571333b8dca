"""Outlines with labels, as LabelMe writes them and ReasonSeg means them: a target, and what is to be ignored."""

import cv2
import numpy as np

from instructsam.core.rle import Rle
from instructsam.train.data.record_fields import RecordError
from instructsam.train.evaluation.readers.records import visible

TARGET, IGNORE = 1, 2


def read_outlines(shapes, height, width):
    """The fields `truth` and `ignore` of a Query. Raises RecordError.

    As the authors have it: the larger are painted first, so that what is small and inside stays visible; 'flag' is left
    out, 'ignore' is to be ignored, everything else is the target.
    """
    if not isinstance(shapes, list) or not shapes:
        raise RecordError('a record has a list of shapes')
    painted = []
    for shape in shapes:
        label = _label(shape)
        if label != 'flag':
            area = np.zeros((height, width), np.uint8)
            cv2.fillPoly(area, [_points(shape, height, width)], 1)  # its border included
            painted.append((area > 0, IGNORE if 'ignore' in label else TARGET))
    canvas = np.zeros((height, width), np.uint8)
    for area, value in sorted(painted, key=lambda one: np.count_nonzero(one[0]))[::-1]:
        canvas[area] = value
    ignore = Rle.encode(canvas == IGNORE)
    return {'truth': (visible(Rle.encode(canvas == TARGET)),), 'ignore': ignore if ignore.area else None}


def _label(shape):
    label = shape.get('label') if isinstance(shape, dict) else None
    if not isinstance(label, str):
        raise RecordError(f'a shape has a label and points, got {str(shape)[:60]}')
    return label.lower()


def _points(shape, height, width):
    """[N, 2] int32 px, cut to whole pixels as the authors do."""
    try:
        points = np.array(shape.get('points'), dtype=np.float64)
    except (TypeError, ValueError, OverflowError):
        points = np.zeros(0)
    near = 2 * max(height, width)  # what is far outside would take long to paint
    if points.ndim != 2 or points.shape[1] != 2 or not (np.abs(points) <= near).all():
        raise RecordError(f'a shape has points [x, y] near the image, got {str(shape.get("points"))[:60]}')
    return points.astype(np.int32)

"""Rules about the boxes of the targets."""

from __future__ import annotations

from itertools import combinations

from instructsam.train.data_engine.filters.finding import Finding
from instructsam.train.data_engine.filters.thresholds import Thresholds
from instructsam.train.data_engine.rows import Box, Question, Row


def area(box: Box) -> float:
    """Return the area of a box, px²; 0 if a side is negative."""
    return max(box[2] - box[0], 0.0) * max(box[3] - box[1], 0.0)


def iou(a: Box, b: Box) -> float:
    """Return the intersection over union of two boxes; 0 if both are empty."""
    common = area((max(a[0], b[0]), max(a[1], b[1]), min(a[2], b[2]), min(a[3], b[3])))
    union = area(a) + area(b) - common
    return common / union if union > 0 else 0.0


def _share(row: Row, box: Box) -> float:
    """Return the area of a box as a share of the picture; 0 without a picture."""
    return area(box) / (row.image.height * row.image.width) if row.image else 0.0


def outside(row: Row, question: Question, limits: Thresholds) -> Finding | None:
    """Reject a box that exceeds the picture."""
    if row.image is None:
        return None
    for each in row.objects_of(question):
        x0, y0, x1, y1 = each.box
        excess = max(-x0, -y0, x1 - row.image.width, y1 - row.image.height)
        if not excess <= limits.box_margin_px:  # also not a number
            return Finding('px outside', each.id, excess, limits.box_margin_px)
    return None


def too_thin(row: Row, question: Question, limits: Thresholds) -> Finding | None:
    """Reject a box with a side that is too short to tell what is in it."""
    for each in row.objects_of(question):
        side = min(each.box[2] - each.box[0], each.box[3] - each.box[1])
        if side < limits.box_side_px:
            return Finding('px', each.id, side, limits.box_side_px)
    return None


def too_small(row: Row, question: Question, limits: Thresholds) -> Finding | None:
    """Reject a box that covers too little of the picture."""
    for each in row.objects_of(question):
        share = _share(row, each.box)
        if share < limits.box_share_low:
            return Finding('of the picture', each.id, share, limits.box_share_low)
    return None


def too_large(row: Row, question: Question, limits: Thresholds) -> Finding | None:
    """Reject a box that covers nearly all of the picture."""
    for each in row.objects_of(question):
        share = _share(row, each.box)
        if share > limits.box_share_high:
            return Finding('of the picture', each.id, share, limits.box_share_high)
    return None


def twice(row: Row, question: Question, limits: Thresholds) -> Finding | None:
    """Reject an answer that counts one thing twice: under one id, or under two with about the same box."""
    if len(set(question.object_ids)) < len(question.object_ids):
        return Finding('an id is given twice')
    for a, b in combinations(row.objects_of(question), 2):
        common = iou(a.box, b.box)
        if common > limits.duplicate_iou:
            return Finding(f'IoU of the boxes of {a.id} and {b.id}', b.id, common, limits.duplicate_iou)
    return None

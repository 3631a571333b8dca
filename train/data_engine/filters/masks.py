"""Rules about the masks of the targets."""

from __future__ import annotations

from itertools import combinations

import cv2
import numpy as np

from instructsam.core.rle import Rle
from instructsam.train.data_engine.filters.finding import Finding
from instructsam.train.data_engine.filters.thresholds import Thresholds
from instructsam.train.data_engine.rows import Box, ObjectMask, Question, Row, SegmentedObject


def _masked(row: Row, question: Question) -> list[tuple[SegmentedObject, ObjectMask]]:
    """Return the targets that have a mask with a pixel; `missing` is about the others."""
    return [(each, each.mask) for each in row.objects_of(question) if each.mask is not None and each.mask.counts]


def missing(row: Row, question: Question, limits: Thresholds) -> Finding | None:
    """Reject a target without a mask, or with a mask without a pixel."""
    for each in row.objects_of(question):
        if each.mask is None or not each.mask.counts or not each.mask.rle.area:
            return Finding('no mask' if each.mask is None else 'no pixel', each.id)
    return None


def doubted(row: Row, question: Question, limits: Thresholds) -> Finding | None:
    """Reject a mask of which its model predicts a low IoU."""
    for each, mask in _masked(row, question):
        if mask.predicted_iou is not None and mask.predicted_iou < limits.predicted_iou:
            return Finding('predicted IoU', each.id, mask.predicted_iou, limits.predicted_iou)
    return None


def unstable(row: Row, question: Question, limits: Thresholds) -> Finding | None:
    """Reject a mask that changes much with the threshold of its logits."""
    for each, mask in _masked(row, question):
        if mask.stability is not None and mask.stability < limits.stability:
            return Finding('stability', each.id, mask.stability, limits.stability)
    return None


def no_object(row: Row, question: Question, limits: Thresholds) -> Finding | None:
    """Reject a mask whose model finds no object in the box."""
    for each, mask in _masked(row, question):
        if mask.object_score is not None and mask.object_score <= limits.object_score:
            return Finding('object score', each.id, mask.object_score, limits.object_score)
    return None


def off_box(row: Row, question: Question, limits: Thresholds) -> Finding | None:
    """Reject a mask whose tight box differs much from the box that prompted it."""
    for each, mask in _masked(row, question):
        if mask.box_iou < limits.mask_box_iou:
            return Finding('IoU of mask and box', each.id, mask.box_iou, limits.mask_box_iou)
    return None


def outside_box(row: Row, question: Question, limits: Thresholds) -> Finding | None:
    """Reject a mask of which too much lies outside its box."""
    for each, mask in _masked(row, question):
        share = share_outside(mask.rle, each.box)
        if share > limits.outside_box:
            return Finding('of the mask', each.id, share, limits.outside_box)
    return None


def in_pieces(row: Row, question: Question, limits: Thresholds) -> Finding | None:
    """Reject a mask without a piece that is most of it."""
    for each, mask in _masked(row, question):
        share = largest_piece(mask.rle)
        if share < limits.largest_piece:
            return Finding('of the mask', each.id, share, limits.largest_piece)
    return None


def overlapping(row: Row, question: Question, limits: Thresholds) -> Finding | None:
    """Reject an answer two masks of which overlap much."""
    masks = [(each, mask.rle) for each, mask in _masked(row, question)]
    for (a, first), (b, second) in combinations(masks, 2):
        smaller = min(first.area, second.area)
        share = first.intersection_area(second) / smaller if smaller else 0.0
        if share > limits.overlap:
            return Finding(f'of the smaller one of {a.id} and {b.id}', b.id, share, limits.overlap)
    return None


def share_outside(mask: Rle, box: Box) -> float:
    """Return the share of a mask's pixels whose centres are outside a box; 0 for an empty mask."""
    if not mask.area:
        return 0.0
    x0, y0, x1, y1 = (int(np.clip(np.ceil(value - 0.5), 0, None)) for value in box)
    inside = np.count_nonzero(mask.decode()[y0:y1, x0:x1])
    return 1.0 - inside / mask.area


def largest_piece(mask: Rle) -> float:
    """Return the share of a mask's pixels in its largest piece, with 8 neighbours a pixel; 1 for an empty mask."""
    if not mask.area:
        return 1.0
    _, _, statistics, _ = cv2.connectedComponentsWithStats(mask.crop().astype(np.uint8))
    return float(statistics[1:, cv2.CC_STAT_AREA].max()) / mask.area

"""Predicted against true masks as the benchmarks' authors compare them: pooled AP, gIoU, cIoU, no-target accuracy.

`compare` boils one query down to a few numbers; everything else takes a sequence of these. Figures are shares, 0 to 1,
and nan where there is nothing to measure. Checked against recordings of the authors' code (test/train/test_metrics.py).
"""

from dataclasses import dataclass
from functools import reduce

import numpy as np

IOUS = tuple(np.arange(50, 100, 5) / 100)  # of mAP
NUMBERS = ('0', '1', '2+')  # of targets


@dataclass(frozen=True, eq=False)
class Compared:
    """One query: P predicted and T true masks. Unions, intersections and `found` are about those above a threshold."""

    scores: np.ndarray  # [P]
    ious: np.ndarray  # [P, T]
    intersection: int  # px that the unions of predicted and of true masks have in common
    union: int  # px of both
    found: int  # predictions above the threshold

    @property
    def targets(self):
        """True masks, T."""
        return self.ious.shape[1]

    @property
    def number(self):
        """Its group by number of targets, one of NUMBERS."""
        return NUMBERS[min(self.targets, 2)]


def compare(masks, scores, truth, threshold, ignore=None):
    """Predicted `masks` (P Rle) with `scores` against the masks in `truth` (T Rle): Compared.

    All predictions take part in AP, those that score above `threshold` in the rest. ignore: an Rle of pixels that count
    neither way, in gIoU and cIoU (ReasonSeg). Scores meet the threshold in float32, as the models give them.
    """
    passes = np.asarray(scores, dtype=np.float32) > np.float32(threshold)
    above = [mask for mask, passed in zip(masks, passes, strict=True) if passed]
    predicted, true = _union(above), _union(truth)
    counted = True if ignore is None else ~ignore.decode()
    return Compared(
        scores=np.asarray(scores, dtype=np.float64),
        ious=np.array([mask.iou(truth) for mask in masks], dtype=np.float64).reshape(len(masks), len(truth)),
        intersection=int(np.count_nonzero(predicted & true & counted)),
        union=int(np.count_nonzero((predicted | true) & counted)),
        found=len(above),
    )


def _union(masks):
    """[H, W] bool, or False for no masks."""
    return reduce(np.logical_or, (mask.decode() for mask in masks), np.False_)


def average_precision(queries, iou):
    """AP at one IoU: the predictions of all queries in one list, the area under its whole precision-recall curve.

    Best scored first (of equal scores the earlier one), each prediction takes the true mask of its query that it
    overlaps most among those not taken yet, and is right if their IoU is at least `iou`. Precision at a recall is the
    best at that recall or beyond.
    """
    total = sum(query.targets for query in queries)
    if not total:
        return np.nan
    scores = np.concatenate([query.scores for query in queries])
    right = np.concatenate([_right(query, iou) for query in queries])[np.argsort(-scores, kind='stable')]
    precision = np.cumsum(right) / np.arange(1, len(right) + 1)
    envelope = np.maximum.accumulate(precision[::-1])[::-1]
    return float(envelope[right].sum() / total)  # recall grows by 1 / total at each right one


def _right(query, iou):
    """Which predictions of a query take a true mask, [P] bool."""
    right = np.zeros(len(query.scores), dtype=bool)
    free = np.ones(query.targets, dtype=bool)
    for index in np.argsort(-query.scores, kind='stable'):
        if not free.any():
            break
        overlaps = np.where(free, query.ious[index], -1.0)
        best = overlaps.argmax()
        if overlaps[best] >= iou:
            right[index], free[best] = True, False
    return right


def giou(queries, empty=1.0):
    """Mean IoU of unions; `empty` where neither has a pixel: 1 on Inst2Seg, gRefCOCO, 0 on ReasonSeg, RoboRefIt."""
    ious = [query.intersection / query.union if query.union else empty for query in queries]
    return float(np.mean(ious)) if ious else np.nan


def ciou(queries, empty=1.0):
    """All intersections over all unions; `empty` where there is no pixel in any."""
    if not queries:
        return np.nan
    union = sum(query.union for query in queries)
    return sum(query.intersection for query in queries) / union if union else empty


def no_target_accuracy(queries):
    """Of the queries without a target, the share for which nothing scores above the threshold."""
    silent = [not query.found for query in queries if not query.targets]
    return float(np.mean(silent)) if silent else np.nan


def figures(queries, empty=1.0):
    """All of them, name -> share: mAP (mean over IoU 0.50, 0.55 ... 0.95), AP50, AP75, gIoU, cIoU, no target."""
    by_iou = {iou: average_precision(queries, iou) for iou in IOUS}
    return {
        'mAP': float(np.mean(list(by_iou.values()))),
        'AP50': by_iou[0.5],
        'AP75': by_iou[0.75],
        'gIoU': giou(queries, empty),
        'cIoU': ciou(queries, empty),
        'no_target_accuracy': no_target_accuracy(queries),
    }

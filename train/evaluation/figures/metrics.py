"""Predicted against true masks as the benchmarks' authors compare them: pooled AP, gIoU, cIoU, accuracy of yes and no.

`compare` boils one query down to a few numbers; everything else takes a sequence of these. Figures are shares, 0 to 1,
and nan where there is nothing to measure. Checked against recordings of the authors' code
(test/core/test_evaluation_reference.py).
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from instructsam.core.rle import Rle, ious

IOUS = tuple(np.arange(50, 100, 5) / 100)  # of mAP
NUMBERS = ('0', '1', '2+')  # of targets
PRECISIONS = (0.5, 0.6, 0.7, 0.8, 0.9)


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

    @cached_property
    def right(self):
        """[P, 10] bool: which predictions take a true mask, at each of IOUS."""
        right = np.zeros((len(self.scores), len(IOUS)), dtype=bool)
        free = np.ones((len(IOUS), self.targets), dtype=bool)
        if self.targets:
            each = np.arange(len(IOUS))
            for index in np.argsort(-self.scores, kind='stable'):
                overlaps = np.where(free, self.ious[index], -1.0)
                best = overlaps.argmax(axis=1)
                right[index] = overlaps[each, best] >= IOUS
                free[each, best] &= ~right[index]
        return right

    def iou(self, empty):
        """Of the unions; `empty` where neither has a pixel."""
        return self.intersection / self.union if self.union else empty


def compare(masks, scores, truth, threshold, ignore=None):
    """Predicted `masks` (P Rle) with `scores` against the masks in `truth` (T Rle): Compared.

    All predictions take part in AP, those that score above `threshold` in the rest. ignore: an Rle of pixels that count
    neither way, in gIoU and cIoU (ReasonSeg). Scores meet the threshold in float32, as the models give them.
    """
    passes = np.asarray(scores, dtype=np.float32) > np.float32(threshold)
    above = [mask for mask, passed in zip(masks, passes, strict=True) if passed]
    counted = [] if ignore is None else [ignore.inverse()]
    predicted, true = (
        [Rle.merge([Rle.merge(some), *counted], intersect=True)] if some else [] for some in (above, truth)
    )
    intersection = predicted[0].intersection_area(true[0]) if predicted and true else 0
    return Compared(
        scores=np.asarray(scores, dtype=np.float64),
        ious=ious(masks, truth),
        intersection=intersection,
        union=sum(mask.area for mask in (*predicted, *true)) - intersection,
        found=len(above),
    )


def average_precision(queries, iou):
    """AP at one of IOUS: the predictions of all queries in one list, the area under its whole precision-recall curve.

    Best scored first (of equal scores the earlier one), each prediction takes the true mask of its query that it
    overlaps most among those not taken yet, and is right if their IoU is at least `iou`. Precision at a recall is the
    best at that recall or beyond.
    """
    pooled = Pooled(queries)
    return float(pooled.average_precision(pooled.once())[IOUS.index(iou)])


class Pooled:
    """The predictions of all queries, best scored first, for average_precision at all IOUS and with weights."""

    def __init__(self, queries):
        scores = np.concatenate([query.scores for query in queries]) if queries else np.zeros(0)
        order = np.argsort(-scores, kind='stable')
        self.owner = np.repeat(np.arange(len(queries)), [len(query.scores) for query in queries])[order]
        self.targets = np.array([query.targets for query in queries], dtype=np.int64)
        right = np.concatenate([query.right for query in queries])[order] if queries else np.zeros((0, len(IOUS)), bool)
        self.right = [np.flatnonzero(column) for column in right.T]

    def average_precision(self, weights):
        """AP at each of IOUS, [10], each query counted `weights` times, [queries] int; nan without a target."""
        total = weights @ self.targets
        if not total:
            return np.full(len(IOUS), np.nan)
        return np.array([precision @ hits / total for hits, precision in self._right_ones(weights)])

    def curve(self, iou):
        """(recall [R], precision [R]) at each of the R right predictions, at one of IOUS."""
        hits, precision = self._right_ones(self.once())[IOUS.index(iou)]
        return hits.cumsum() / max(self.targets.sum(), 1), precision

    def once(self):
        """The weights of queries that count once each."""
        return np.ones(len(self.targets), dtype=np.int64)

    def _right_ones(self, weights):
        """For each of IOUS, how often each right prediction counts, [R], and the precision there or beyond, [R]."""
        each = weights[self.owner]
        ranked, found = each.cumsum(), []
        for right in self.right:
            hits = each[right]
            precision = hits.cumsum() / np.maximum(ranked[right], 1)
            found.append((hits, np.maximum.accumulate(precision[::-1])[::-1]))
        return found


def union_ious(queries, empty=1.0):
    """IoU of the unions of each query, [queries]."""
    return np.array([query.iou(empty) for query in queries], dtype=np.float64)


def giou(queries, empty=1.0):
    """Mean IoU of unions; `empty` where neither has a pixel: 1 on Inst2Seg, gRefCOCO, 0 on ReasonSeg, RoboRefIt."""
    return float(union_ious(queries, empty).mean()) if queries else np.nan


def ciou(queries, empty=1.0):
    """All intersections over all unions; `empty` where there is no pixel in any."""
    if not queries:
        return np.nan
    union = sum(query.union for query in queries)
    return sum(query.intersection for query in queries) / union if union else empty


def no_target_accuracy(queries):
    """N-acc: of the queries without a target, the share for which nothing scores above the threshold."""
    silent = [not query.found for query in queries if not query.targets]
    return float(np.mean(silent)) if silent else np.nan


def target_accuracy(queries):
    """T-acc: of the queries with a target, the share for which something scores above the threshold."""
    found = [query.found > 0 for query in queries if query.targets]
    return float(np.mean(found)) if found else np.nan


def figures(queries, empty=1.0):
    """All of them, name -> share: mAP (mean over IoU 0.50, 0.55 ... 0.95), AP50 ... P@0.9"""
    pooled = Pooled(queries)
    by_iou, of_unions = pooled.average_precision(pooled.once()), union_ious(queries, empty)
    return {
        'mAP': float(by_iou.mean()),
        'AP50': float(by_iou[0]),
        'AP75': float(by_iou[IOUS.index(0.75)]),
        'gIoU': float(of_unions.mean()) if queries else np.nan,
        'cIoU': ciou(queries, empty),
        'no_target_accuracy': no_target_accuracy(queries),
        'target_accuracy': target_accuracy(queries),
        **{f'P@{iou}': float((of_unions >= iou).mean()) if queries else np.nan for iou in PRECISIONS},
    }

"""Metrics of predicted against ground-truth masks, as the benchmarks' authors compute them.

`match_masks` reduces one query to a few numbers; all metrics take a sequence of these: pooled AP, gIoU, cIoU and the
accuracy of finding nothing or something. Figures are shares from 0 to 1, and nan where there is nothing to measure.
They are tested against recordings of the authors' code (test/train/evaluation/test_evaluation_reference.py).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from instructsam.core.rle import Rle, ious

IOUS = tuple(np.arange(50, 100, 5) / 100)
"""IoU thresholds that mAP averages over."""

NUM_TARGETS_GROUPS = ('0', '1', '2+')
PRECISIONS = (0.5, 0.6, 0.7, 0.8, 0.9)
"""Union IoUs for which the share of queries that reach them is given."""


@dataclass(frozen=True, eq=False)
class MaskMatch:
    """One query with P predicted and T ground-truth masks.

    `intersection`, `union` and `num_found` count only predictions above the threshold.
    """

    scores: np.ndarray  # [P]
    ious: np.ndarray  # [P, T]
    intersection: int  # px that the unions of predicted and of ground-truth masks have in common
    union: int  # px that either of the unions has
    num_found: int  # number of predictions above the threshold

    @property
    def num_targets(self) -> int:
        """Number of ground-truth masks, T."""
        return self.ious.shape[1]

    @property
    def num_recalled(self) -> int:
        """Number of ground-truth masks that a prediction above the threshold matches with an IoU of 0.5 or more."""
        above = np.argsort(-self.scores, kind='stable')[: self.num_found]
        return int(self.true_positives[above, 0].sum())

    @property
    def num_targets_group(self) -> str:
        """Group by number of targets, one of NUM_TARGETS_GROUPS."""
        return NUM_TARGETS_GROUPS[min(self.num_targets, 2)]

    @cached_property
    def true_positives(self) -> np.ndarray:
        """[P, 10] bool: predictions that are matched with a ground-truth mask, at each of IOUS.

        Matching is greedy by score: each prediction takes the free ground-truth mask that it overlaps most.
        """
        true_positives = np.zeros((len(self.scores), len(IOUS)), dtype=bool)
        free = np.ones((len(IOUS), self.num_targets), dtype=bool)
        if self.num_targets:
            each = np.arange(len(IOUS))
            for index in np.argsort(-self.scores, kind='stable'):
                overlaps = np.where(free, self.ious[index], -1.0)
                best = overlaps.argmax(axis=1)
                true_positives[index] = overlaps[each, best] >= IOUS
                free[each, best] &= ~true_positives[index]
        return true_positives

    def union_iou(self, empty: float) -> float:
        """Return the IoU of the union of predictions and the union of targets; `empty` if neither has a pixel."""
        return self.intersection / self.union if self.union else empty


def match_masks(
    masks: Sequence[Rle],
    scores: Sequence[float] | np.ndarray,
    ground_truth: Sequence[Rle],
    threshold: float,
    ignore: Rle | None = None,
) -> MaskMatch:
    """Compare the predictions for one query with its ground truth.

    Args:
        masks: P predicted masks. All take part in AP, those that score above the threshold in the other metrics.
        scores: Their P scores. They are compared with the threshold in float32, as the models give them.
        ground_truth: T masks of the same size.
        threshold: Score above which a prediction counts as found.
        ignore: Pixels excluded from intersection and union, in gIoU and cIoU (ReasonSeg).
    """
    is_above = np.asarray(scores, dtype=np.float32) > np.float32(threshold)
    found = [mask for mask, above in zip(masks, is_above, strict=True) if above]
    predicted, true = _counted_union(found, ignore), _counted_union(ground_truth, ignore)
    intersection = predicted.intersection_area(true) if predicted is not None and true is not None else 0
    area = sum(mask.area for mask in (predicted, true) if mask is not None)
    return MaskMatch(
        scores=np.asarray(scores, dtype=np.float64),
        ious=ious(masks, ground_truth),
        intersection=intersection,
        union=area - intersection,
        num_found=len(found),
    )


def _counted_union(masks: Sequence[Rle], ignore: Rle | None) -> Rle | None:
    """Return the union of masks without the ignored pixels; None for no masks."""
    if not masks:
        return None
    union = Rle.merge(masks)
    return union if ignore is None else Rle.merge([union, ignore.inverse()], intersect=True)


def average_precision(matches: Sequence[MaskMatch], iou: float) -> float:
    """Return the pooled AP at one of IOUS: the area under the precision-recall curve of all predictions in one list.

    In order of descending score (of equal scores the earlier first), each prediction takes the free ground-truth mask
    of its query that it overlaps most, and is a true positive if their IoU is at least `iou`. The precision at a
    recall is the maximum at that recall or beyond.
    """
    pooled = PooledPredictions(matches)
    return float(pooled.average_precision(pooled.unit_weights())[IOUS.index(iou)])


class PooledPredictions:
    """The predictions of all queries in order of descending score, for AP at all IOUS and with weighted queries."""

    def __init__(self, matches: Sequence[MaskMatch]):
        scores = np.concatenate([match.scores for match in matches]) if matches else np.zeros(0)
        order = np.argsort(-scores, kind='stable')
        self.query_index = np.repeat(np.arange(len(matches)), [len(match.scores) for match in matches])[order]
        self.num_targets = np.array([match.num_targets for match in matches], dtype=np.int64)
        hits = [match.true_positives for match in matches] or [np.zeros((0, len(IOUS)), dtype=bool)]
        self.true_positive_ranks = [np.flatnonzero(column) for column in np.concatenate(hits)[order].T]

    def average_precision(self, weights: np.ndarray) -> np.ndarray:
        """Return AP at each of IOUS, [10]; nan if no query has a target.

        weights: [queries] int, how many times each query counts.
        """
        total = weights @ self.num_targets
        if not total:
            return np.full(len(IOUS), np.nan)
        return np.array([precision @ hits / total for hits, precision in self._hits_and_precision(weights)])

    def precision_recall(self, iou: float) -> tuple[np.ndarray, np.ndarray]:
        """Return recall [R] and precision [R] at each of the R true positives, for one of IOUS."""
        hits, precision = list(self._hits_and_precision(self.unit_weights()))[IOUS.index(iou)]
        return hits.cumsum() / max(self.num_targets.sum(), 1), precision

    def unit_weights(self) -> np.ndarray:
        """Return weights, [queries], that count each query once."""
        return np.ones(len(self.num_targets), dtype=np.int64)

    def _hits_and_precision(self, weights: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yield for each of IOUS the weight of each true positive, [R], and the best precision from there on, [R]."""
        prediction_weights = weights[self.query_index]
        num_ranked = prediction_weights.cumsum()
        for ranks in self.true_positive_ranks:
            hits = prediction_weights[ranks]
            precision = hits.cumsum() / np.maximum(num_ranked[ranks], 1)
            yield hits, np.maximum.accumulate(precision[::-1])[::-1]


def union_ious(matches: Sequence[MaskMatch], empty: float = 1.0) -> np.ndarray:
    """Return the IoU of the unions of each query, [queries]."""
    return np.array([match.union_iou(empty) for match in matches], dtype=np.float64)


def giou(matches: Sequence[MaskMatch], empty: float = 1.0) -> float:
    """Return the mean IoU of the unions (generalized IoU of gRefCOCO).

    empty: IoU where neither has a pixel: 1 on Inst2Seg and gRefCOCO, 0 on ReasonSeg and RoboRefIt.
    """
    return float(union_ious(matches, empty).mean()) if matches else np.nan


def ciou(matches: Sequence[MaskMatch], empty: float = 1.0) -> float:
    """Return the cumulative IoU: the sum of intersections over the sum of unions; `empty` if no union has a pixel."""
    if not matches:
        return np.nan
    union = sum(match.union for match in matches)
    return sum(match.intersection for match in matches) / union if union else empty


def no_target_accuracy(matches: Sequence[MaskMatch]) -> float:
    """Return N-acc: the share of queries without a target for which nothing scores above the threshold."""
    is_silent = [not match.num_found for match in matches if not match.num_targets]
    return float(np.mean(is_silent)) if is_silent else np.nan


def target_accuracy(matches: Sequence[MaskMatch]) -> float:
    """Return T-acc: the share of queries with a target for which something scores above the threshold."""
    is_found = [match.num_found > 0 for match in matches if match.num_targets]
    return float(np.mean(is_found)) if is_found else np.nan


def recall(matches: Sequence[MaskMatch]) -> float:
    """Return the share of the ground-truth masks that predictions above the threshold match at an IoU of 0.5."""
    num_targets = sum(match.num_targets for match in matches)
    return sum(match.num_recalled for match in matches) / num_targets if num_targets else np.nan


def compute_metrics(matches: Sequence[MaskMatch], empty: float = 1.0) -> dict[str, float]:
    """Return all metrics by name: mAP (mean over IOUS), AP50, AP75, recall, gIoU, cIoU, N-acc, T-acc, P@0.5 ..."""
    pooled = PooledPredictions(matches)
    by_iou, of_unions = pooled.average_precision(pooled.unit_weights()), union_ious(matches, empty)
    return {
        'mAP': float(by_iou.mean()),
        'AP50': float(by_iou[0]),
        'AP75': float(by_iou[IOUS.index(0.75)]),
        'recall': recall(matches),
        'gIoU': giou(matches, empty),
        'cIoU': ciou(matches, empty),
        'no_target_accuracy': no_target_accuracy(matches),
        'target_accuracy': target_accuracy(matches),
        **{f'P@{iou}': float((of_unions >= iou).mean()) if matches else np.nan for iou in PRECISIONS},
    }

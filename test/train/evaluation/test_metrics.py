"""Metrics on hand-made cases; test_evaluation_reference.py has recordings of the authors' code."""

import numpy as np

from instructsam.core.rle import Rle
from instructsam.train.evaluation.figures import metrics


def square(x, side=10):
    mask = np.zeros((40, 60), bool)
    mask[5 : 5 + side, x : x + side] = True
    return Rle.encode(mask)


def query(predictions, ground_truth, threshold=0.5):
    """The match of one query; predictions: (mask, score) pairs."""
    masks, scores = [mask for mask, _ in predictions], [score for _, score in predictions]
    return metrics.match_masks(masks, scores, ground_truth, threshold)


def test_a_target_is_matched_once_by_the_highest_score():
    twice = query([(square(0), 0.6), (square(0), 0.9)], [square(0), square(20)])
    assert metrics.average_precision([twice], 0.5) == 0.5  # a true and a false positive; one of two targets is missed


def test_the_best_free_target_is_matched():
    near = query([(square(0), 0.9), (square(1), 0.8)], [square(0), square(2)])
    assert metrics.average_precision([near], 0.5) == 1


def test_predictions_of_all_queries_compete():
    right, wrong = query([(square(0), 0.6)], [square(0)]), query([(square(0), 0.9)], [])
    assert metrics.average_precision([right, wrong], 0.5) == 0.5
    assert metrics.average_precision([query([(square(0), 0.95)], [square(0)]), wrong], 0.5) == 1


def test_a_missed_target_costs_recall():
    found, missed = query([(square(0), 0.6)], [square(0)]), query([], [square(0)])
    assert metrics.average_precision([found, missed], 0.5) == 0.5
    assert metrics.average_precision([missed], 0.5) == 0


def test_ap_ranks_predictions_below_the_threshold():
    low = query([(square(0), 0.2)], [square(0)])
    assert metrics.average_precision([low], 0.5) == 1
    assert metrics.giou([low]) == 0
    assert low.num_found == 0
    assert (low.intersection, low.union) == (0, 100)


def test_no_target_accuracy_and_the_iou_of_nothing():
    silent, wrong, other = query([(square(0), 0.4)], []), query([(square(0), 0.9)], []), query([], [square(0)])
    assert metrics.no_target_accuracy([silent, wrong, other]) == 0.5
    assert metrics.giou([silent, wrong]) == 0.5
    assert metrics.giou([silent, wrong], empty=0) == 0
    assert metrics.ciou([silent]) == 1
    assert metrics.ciou([silent], empty=0) == 0
    assert np.isnan(metrics.no_target_accuracy([other]))
    assert np.isnan(metrics.giou([]))
    assert np.isnan(metrics.ciou([]))


def test_ignored_pixels_are_excluded():
    match = metrics.match_masks([square(0)], [0.9], [square(5)], 0.5, ignore=square(0, side=5))
    assert (match.intersection, match.union) == (50, 125)


def test_a_score_at_the_threshold_is_not_above_it():
    assert query([(square(0), np.float32(0.3))], [], threshold=0.3).num_found == 0
    assert query([(square(0), float(np.float32(0.3)))], [], threshold=0.3).num_found == 0

"""The metrics on hand-made cases; test/core/test_evaluation_reference.py has the authors' recordings."""

import numpy as np

from instructsam.core.rle import Rle
from instructsam.train.evaluation.figures import metrics


def square(x, side=10):
    mask = np.zeros((40, 60), bool)
    mask[5 : 5 + side, x : x + side] = True
    return Rle.encode(mask)


def query(predictions, truth, threshold=0.5):
    """predictions: (mask, score) pairs."""
    return metrics.compare([mask for mask, _ in predictions], [score for _, score in predictions], truth, threshold)


def test_a_true_mask_is_taken_once_by_the_best_scored():
    twice = query([(square(0), 0.6), (square(0), 0.9)], [square(0), square(20)])
    assert metrics.average_precision([twice], 0.5) == 0.5  # right, wrong; one of two is never found


def test_the_best_that_is_free_is_taken():
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


def test_ap_ranks_what_the_threshold_leaves_out():
    low = query([(square(0), 0.2)], [square(0)])
    assert metrics.average_precision([low], 0.5) == 1
    assert metrics.giou([low]) == 0
    assert low.found == 0
    assert (low.intersection, low.union) == (0, 100)


def test_no_target_accuracy_and_the_rule_for_nothing():
    silent, talks, other = query([(square(0), 0.4)], []), query([(square(0), 0.9)], []), query([], [square(0)])
    assert metrics.no_target_accuracy([silent, talks, other]) == 0.5
    assert metrics.giou([silent, talks]) == 0.5
    assert metrics.giou([silent, talks], empty=0) == 0
    assert metrics.ciou([silent]) == 1
    assert metrics.ciou([silent], empty=0) == 0
    assert np.isnan(metrics.no_target_accuracy([other]))
    assert np.isnan(metrics.giou([]))
    assert np.isnan(metrics.ciou([]))


def test_what_is_ignored_counts_neither_way():
    compared = metrics.compare([square(0)], [0.9], [square(5)], 0.5, ignore=square(0, side=5))
    assert (compared.intersection, compared.union) == (50, 125)


def test_a_score_at_the_threshold_is_not_above_it():
    assert query([(square(0), np.float32(0.3))], [], threshold=0.3).found == 0
    assert query([(square(0), float(np.float32(0.3)))], [], threshold=0.3).found == 0

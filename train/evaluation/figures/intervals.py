"""95 % confidence intervals of the figures by the bootstrap: images are drawn with replacement, with all their queries.

The matching of predictions with targets within a query does not depend on the other queries, so that a draw only
weights queries, and the predictions of the whole set are sorted once.
"""

import os
from collections.abc import Hashable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from instructsam.train.evaluation.figures.metrics import IOUS, MaskMatch, PooledPredictions, union_ious

NUM_DRAWS, LEVEL = 1000, 0.95

Bounds = dict[str, tuple[float, float]]
"""Figure -> (lower, upper) bound, shares."""


def bootstrap_intervals(
    matches: Sequence[MaskMatch],
    images: Sequence[Hashable],
    empty: float = 1.0,
    num_draws: int = NUM_DRAWS,
    seed: int = 0,
) -> Bounds:
    """Return the bounds of mAP, AP50, AP75, gIoU, cIoU, recall, no_target_accuracy and target_accuracy.

    A figure is left out if there is nothing to measure in most draws. The result is the same on every machine.

    Args:
        matches: The queries.
        images: The image of each query.
        empty: IoU of a query with neither a target nor a prediction.
        num_draws: Number of bootstrap draws.
        seed: Seed of the draws.
    """
    return _bounds(next(_draws([matches], images, empty, num_draws, seed))) if matches else {}


def paired_bootstrap_intervals(
    first: Sequence[MaskMatch],
    second: Sequence[MaskMatch],
    images: Sequence[Hashable],
    empty: float = 1.0,
    num_draws: int = NUM_DRAWS,
    seed: int = 0,
) -> Bounds:
    """Return the bounds of the differences `second` - `first`: the same queries in two runs, drawn together.

    For the other arguments see `bootstrap_intervals`.
    """
    if not first:
        return {}
    a, b = _draws([first, second], images, empty, num_draws, seed)
    return _bounds({name: b[name] - a[name] for name in a})


def _draws(
    runs: Sequence[Sequence[MaskMatch]], images: Sequence[Hashable], empty: float, num_draws: int, seed: int
) -> Iterator[dict[str, np.ndarray]]:
    """Yield {figure: [draws]} for each of `runs`, lists of the same queries drawn alike; nan: nothing to measure."""
    _, image_index = np.unique(np.array(images, dtype=object).astype(str), return_inverse=True)
    for matches in runs:
        sampler = _Sampler(matches, image_index, empty, seed)
        with ThreadPoolExecutor(os.cpu_count()) as threads:  # NumPy releases the GIL
            drawn = list(threads.map(sampler.draw, range(num_draws)))
        yield {name: np.array([figures[name] for figures in drawn]) for name in drawn[0]}


class _Sampler:
    """Figures of bootstrap draws from one run."""

    def __init__(self, matches: Sequence[MaskMatch], image_index: np.ndarray, empty: float, seed: int):
        """image_index: [queries] int, the image of each query."""
        self.image_index, self.num_images, self.seed = image_index, image_index.max() + 1, seed
        self.pooled, self.terms = PooledPredictions(matches), _terms(matches, empty)

    def draw(self, number: int) -> dict[str, float]:
        """Return the figures of draw `number`; equal numbers draw equal images in every run."""
        rng = np.random.default_rng((self.seed, number))
        drawn = rng.integers(self.num_images, size=self.num_images)
        weights = np.bincount(drawn, minlength=self.num_images)[self.image_index]
        by_iou = self.pooled.average_precision(weights)
        figures = {'mAP': by_iou.mean(), 'AP50': by_iou[0], 'AP75': by_iou[IOUS.index(0.75)]}
        for name, (numerator, denominator) in self.terms.items():
            total = weights @ denominator
            figures[name] = weights @ numerator / total if total else np.nan
        return figures


def _terms(matches: Sequence[MaskMatch], empty: float) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Return {figure: what each query adds to its numerator and to its denominator}, both [queries]."""
    num_found = np.array([match.num_found for match in matches])
    has_target = np.array([match.num_targets > 0 for match in matches])
    intersections = np.array([match.intersection for match in matches], dtype=np.float64)
    unions = np.array([match.union for match in matches], dtype=np.float64)
    return {
        'gIoU': (union_ious(matches, empty), np.ones(len(matches))),
        'cIoU': (intersections, unions),
        'recall': (
            np.array([match.num_recalled for match in matches], dtype=np.float64),
            np.array([match.num_targets for match in matches], dtype=np.float64),
        ),
        'no_target_accuracy': _share(num_found == 0, ~has_target),
        'target_accuracy': _share(num_found > 0, has_target),
    }


def _share(is_hit: np.ndarray, is_counted: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    counted = is_counted.astype(np.float64)
    return is_hit * counted, counted


def _bounds(draws: dict[str, np.ndarray]) -> Bounds:
    """Return the bounds of {figure: [draws]}; a figure that most draws could not measure is left out."""
    bounds = {}
    for name, values in draws.items():
        measured = values[~np.isnan(values)]
        if 2 * len(measured) > len(values):
            low, high = np.quantile(measured, [(1 - LEVEL) / 2, (1 + LEVEL) / 2]).tolist()
            bounds[name] = (low, high)
    return bounds

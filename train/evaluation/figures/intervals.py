"""95 % intervals of the figures by the bootstrap: images are drawn with replacement, each with all that is asked of it.

The predictions of a query take their true masks whatever else is drawn, so that a draw only weighs queries, and the
whole set is sorted once.
"""

import os
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from instructsam.train.evaluation.figures.metrics import IOUS, Pooled, union_ious

DRAWS, LEVEL = 1000, 0.95


def intervals(queries, images, empty=1.0, draws=DRAWS, seed=0):
    """{figure: (low, high)} of mAP, AP50, AP75, gIoU, cIoU, no_target_accuracy and target_accuracy, shares.

    queries: metrics.Compared; images: whose each is, any hashable. A figure is left out where there is nothing to
    measure in most draws. The same for the same input, whatever machine.
    """
    return _bounds(next(_drawn([queries], images, empty, draws, seed))) if queries else {}


def paired_intervals(queries, others, images, empty=1.0, draws=DRAWS, seed=0):
    """As `intervals`, of the differences `others` - `queries`: the same samples in two runs, drawn together."""
    if not queries:
        return {}
    first, second = _drawn([queries, others], images, empty, draws, seed)
    return _bounds({name: second[name] - first[name] for name in first})


def _drawn(runs, images, empty, draws, seed):
    """Yields {figure: [draws]} for each of `runs`, lists of the same samples, drawn alike; nan: nothing to measure."""
    _, owner = np.unique(np.array(images, dtype=object).astype(str), return_inverse=True)
    count = owner.max() + 1
    for queries in runs:
        pooled, of_query = Pooled(queries), _parts(queries, empty)

        def draw(number):
            rng = np.random.default_rng((seed, number))
            weights = np.bincount(rng.integers(count, size=count), minlength=count)[owner]
            by_iou = pooled.average_precision(weights)
            drawn = {'mAP': by_iou.mean(), 'AP50': by_iou[0], 'AP75': by_iou[IOUS.index(0.75)]}
            for name, (part, whole) in of_query.items():
                total = weights @ whole
                drawn[name] = weights @ part / total if total else np.nan
            return drawn

        with ThreadPoolExecutor(os.cpu_count()) as threads:  # NumPy lets the others run
            drawn = list(threads.map(draw, range(draws)))
        yield {name: np.array([one[name] for one in drawn]) for name in drawn[0]}


def _parts(queries, empty):
    """{figure: (what each query adds to its numerator, and to its denominator)}."""
    return {
        'gIoU': (union_ious(queries, empty), np.ones(len(queries))),
        'cIoU': tuple(np.array([(query.intersection, query.union) for query in queries], dtype=np.float64).T),
        'no_target_accuracy': _share([not query.found for query in queries], [not query.targets for query in queries]),
        'target_accuracy': _share([query.found > 0 for query in queries], [query.targets > 0 for query in queries]),
    }


def _share(hit, counted):
    counted = np.array(counted, dtype=np.float64)
    return np.array(hit, dtype=np.float64) * counted, counted


def _bounds(drawn):
    """{figure: (low, high)} of {figure: [draws]}."""
    found = {}
    for name, values in drawn.items():
        measured = values[~np.isnan(values)]
        if 2 * len(measured) > len(values):
            found[name] = tuple(np.quantile(measured, [(1 - LEVEL) / 2, (1 + LEVEL) / 2]).tolist())
    return found

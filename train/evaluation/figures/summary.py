"""From outcomes to figures: of all queries, and of every group of them. Figures in percent, times in ms."""

import statistics

import numpy as np

from instructsam.train.evaluation.figures import metrics
from instructsam.train.evaluation.figures.coco_ap import coco_average_precision
from instructsam.train.evaluation.figures.intervals import intervals
from instructsam.train.evaluation.running.gc_pause import no_collection

SEGMENT, ENCODE = 'segment', 'encode'  # of Outcome.timings_ms: of an instruction, and of its image where it was first


@no_collection()
def summarise(outcomes, threshold, empty=1.0, details=True):
    """Figures of Outcomes; None where there is nothing to measure. Failed ones are counted, and have no part in them.

    details: with 95 % intervals, COCO's AP, and times a stage (seconds more on large sets).
    """
    asked = [one for one in outcomes if not one.error]
    failed = [one for one in outcomes if one.error]
    compared = [compare(one, threshold) for one in asked]
    found = {'all': figures(asked, compared, empty)}
    if details:
        found['all'] |= percent(coco_average_precision(compared))
        bounds = intervals(compared, [one.image for one in asked], empty)
        found['intervals'] = {name: [100 * low, 100 * high] for name, (low, high) in bounds.items()}
        found['times'] = times(asked)
    groups = {}
    for one, measured in zip(asked, compared):
        for group, name in members(one, measured):
            groups.setdefault(f'by_{group}', {}).setdefault(name, []).append((one, measured))
    found |= {
        group: {name: figures(*zip(*those), empty) for name, those in sorted(named.items())}
        for group, named in groups.items()
    }
    found['failed'] = {'queries': len(failed), 'first': [f'{one.query.id}: {one.error}' for one in failed[:10]]}
    return found


def compare(outcome, threshold):
    """metrics.Compared of an Outcome."""
    query = outcome.query
    return metrics.compare(outcome.masks, outcome.scores, query.truth, threshold, query.ignore)


def members(outcome, compared):
    """The (group, member) pairs that an Outcome with its metrics.Compared is counted in."""
    pairs = [('targets', compared.number)]
    for group, names in outcome.query.groups.items():
        pairs += [(group, name) for name in ([names] if isinstance(names, str) else names)]
    return pairs


def figures(outcomes, compared, empty=1.0):
    """Name -> value of some Outcomes and their metrics.Compared."""
    shares = metrics.figures(compared, empty)
    rights = [one.right for one in outcomes if one.right == one.right]
    if any(one.query.phrases for one in outcomes):
        shares['answer_accuracy'] = float(np.mean(rights)) if rights else np.nan
    latencies_ms = [one.timings_ms[SEGMENT] for one in outcomes]
    return {
        'queries': len(outcomes),
        **percent(shares),
        'latency_ms': round(statistics.median(latencies_ms), 2) if latencies_ms else None,
    }


def percent(shares):
    """Name -> share from 0 to 1 as name -> percent, None for nan."""
    return {name: None if share != share else 100 * share for name, share in shares.items()}


def times(outcomes):
    """Mean ms of each stage, and instructions a second of one process, encoding included."""
    stages = dict.fromkeys(name for one in outcomes for name in one.timings_ms)
    total_ms = sum(one.timings_ms.get(SEGMENT, 0) + one.timings_ms.get(ENCODE, 0) for one in outcomes)
    return {
        'stages_ms': {
            stage: statistics.mean(one.timings_ms[stage] for one in outcomes if stage in one.timings_ms)
            for stage in stages
        },
        'instructions_per_s': 1e3 * len(outcomes) / total_ms if total_ms else None,
    }

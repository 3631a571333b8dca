"""Summary of a run: figures of all queries and of every group of them, in percent, and times in ms."""

import math
import statistics
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from instructsam.train.evaluation.figures.coco_ap import coco_average_precision
from instructsam.train.evaluation.figures.intervals import bootstrap_intervals
from instructsam.train.evaluation.figures.metrics import MaskMatch, compute_metrics, match_masks
from instructsam.train.evaluation.query import Outcome
from instructsam.train.evaluation.running.gc_pause import gc_paused

SEGMENT = 'segment'
"""Key of Outcome.timings_ms: the whole answer to one query, without the encoding of its image."""

ENCODE = 'encode'
"""Key of Outcome.timings_ms: the encoding of the image, given with the first query about it."""

FAILURES_LISTED = 10


@gc_paused()
def summarise(
    outcomes: Sequence[Outcome], threshold: float, empty: float = 1.0, *, details: bool = True
) -> dict[str, Any]:
    """Return the figures of a run, ready for JSON; None where there is nothing to measure.

    Failed queries are counted, and excluded from the figures. Of an agent, `failed` also has the figures with failed
    queries as empty answers, and `usage` the mean cost of a query.

    Args:
        outcomes: One outcome per query.
        threshold: Instances that score above it count as found.
        empty: IoU of a query with neither a target nor a prediction.
        details: Add 95 % intervals, COCO's AP, and times per step (seconds more on large sets).
    """
    answered = [outcome for outcome in outcomes if not outcome.error]
    failed = [outcome for outcome in outcomes if outcome.error]
    matches = [match_outcome(outcome, threshold) for outcome in answered]
    summary: dict[str, Any] = {'all': summarise_group(answered, matches, empty)}
    if details:
        summary['all'] |= to_percent(coco_average_precision(matches))
        bounds = bootstrap_intervals(matches, [outcome.image for outcome in answered], empty)
        summary['intervals'] = {name: [100 * low, 100 * high] for name, (low, high) in bounds.items()}
        summary['times'] = mean_times(answered)
    groups: dict[str, dict[str, list[tuple[Outcome, MaskMatch]]]] = {}
    for outcome, match in zip(answered, matches, strict=True):
        for group, member in group_members(outcome, match):
            groups.setdefault(f'by_{group}', {}).setdefault(member, []).append((outcome, match))
    for group, members in groups.items():
        summary[group] = {
            member: summarise_group([outcome for outcome, _ in pairs], [match for _, match in pairs], empty)
            for member, pairs in sorted(members.items())
        }
    first = [f'{outcome.query.id}: {outcome.error}' for outcome in failed[:FAILURES_LISTED]]
    summary['failed'] = {'queries': len(failed), 'first': first}
    # Queries that reached the model of an agent: their failure is that of the system, not of the data.
    asked = [outcome for outcome in failed if outcome.usage]
    if asked:
        unmatched = [match_outcome(outcome, threshold) for outcome in asked]
        summary['failed']['as_empty'] = summarise_group([*answered, *asked], [*matches, *unmatched], empty)
    if any(outcome.usage for outcome in outcomes):
        summary['usage'] = mean_cost([*answered, *asked])
    return summary


def match_outcome(outcome: Outcome, threshold: float) -> MaskMatch:
    """Compare the predictions of one outcome with its ground truth."""
    query = outcome.query
    return match_masks(outcome.masks, outcome.scores, query.ground_truth, threshold, query.ignore)


def group_members(outcome: Outcome, match: MaskMatch) -> Iterator[tuple[str, str]]:
    """Yield the (group, member) pairs that an outcome is counted in, e.g. ('targets', '2+')."""
    yield 'targets', match.num_targets_group
    for group, members in outcome.query.groups.items():
        for member in [members] if isinstance(members, str) else members:
            yield group, member


def summarise_group(
    outcomes: Sequence[Outcome], matches: Sequence[MaskMatch], empty: float = 1.0
) -> dict[str, float | int | None]:
    """Return the figures of some outcomes and their matches, by name."""
    shares = compute_metrics(matches, empty)
    if any(outcome.query.phrases for outcome in outcomes):
        known = [value for outcome in outcomes if not math.isnan(value := outcome.answer_accuracy)]
        shares['answer_accuracy'] = float(np.mean(known)) if known else np.nan
    latencies_ms = [outcome.timings_ms[SEGMENT] for outcome in outcomes]
    return {
        'queries': len(outcomes),
        **to_percent(shares),
        'latency_ms': round(statistics.median(latencies_ms), 2) if latencies_ms else None,
    }


def to_percent(shares: dict[str, float]) -> dict[str, float | None]:
    """Convert shares from 0 to 1 to percent, and nan to None."""
    return {name: None if math.isnan(share) else 100 * share for name, share in shares.items()}


def mean_times(outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """Return the mean ms of each step, and instructions per second of one process, encoding included."""
    steps = dict.fromkeys(name for outcome in outcomes for name in outcome.timings_ms)
    total_ms = sum(outcome.timings_ms.get(SEGMENT, 0) + outcome.timings_ms.get(ENCODE, 0) for outcome in outcomes)
    return {
        'stages_ms': {
            step: statistics.mean(outcome.timings_ms[step] for outcome in outcomes if step in outcome.timings_ms)
            for step in steps
        },
        'instructions_per_s': 1e3 * len(outcomes) / total_ms if total_ms else None,
    }


def mean_cost(outcomes: Sequence[Outcome]) -> dict[str, float]:
    """Return the mean cost of a query: seconds with the encoding of its image, and an agent's calls and tokens."""
    total_ms = sum(outcome.timings_ms.get(SEGMENT, 0) + outcome.timings_ms.get(ENCODE, 0) for outcome in outcomes)
    names = dict.fromkeys(name for outcome in outcomes for name in outcome.usage)
    return {
        'seconds': total_ms / 1e3 / len(outcomes),
        **{name: statistics.mean(outcome.usage.get(name, 0) for outcome in outcomes) for name in names},
    }

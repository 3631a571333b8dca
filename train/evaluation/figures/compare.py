"""Comparison of two runs of one benchmark, sample by sample: which differences exceed chance."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from instructsam.train.evaluation import paper_systems
from instructsam.train.evaluation.benchmarks import BENCHMARKS, Benchmark
from instructsam.train.evaluation.figures.intervals import paired_bootstrap_intervals
from instructsam.train.evaluation.figures.metrics import MaskMatch, compute_metrics
from instructsam.train.evaluation.figures.summary import group_members, match_outcome, mean_cost, to_percent
from instructsam.train.evaluation.query import Outcome, Query
from instructsam.train.evaluation.running.run_folder import Run, RunError

FIGURES = ('recall', 'mAP', 'AP50', 'gIoU', 'cIoU', 'no_target_accuracy', 'target_accuracy')
SAMPLES_LISTED = 10
"""Number of gains, and of losses, that are listed."""

TIE = 1e-9
"""Difference in IoU up to which a sample is a tie."""


class _Sample(NamedTuple):
    """One query that both runs answered."""

    outcome: Outcome  # outcome of the first run
    a: MaskMatch
    b: MaskMatch

    def gain(self, empty: float) -> float:
        """Return the IoU of the second run minus that of the first."""
        return self.b.union_iou(empty) - self.a.union_iou(empty)


def compare_runs(first: Run, second: Run) -> dict[str, Any]:
    """Return how `second` differs from `first`, ready for JSON; figures in percent.

    Raises:
        RunError: The runs are not of the same samples, or a header is incomplete.
    """
    for run in (first, second):
        benchmark_of(run)
    empty = first.header['empty']
    pairing = _pair(first, second)
    samples = [
        _Sample(a, match_outcome(a, first.header['threshold']), match_outcome(b, second.header['threshold']))
        for a, b in pairing.pairs
    ]
    groups: dict[str, dict[str, list[_Sample]]] = {}
    for sample in samples:
        for group, member in group_members(sample.outcome, sample.a):
            groups.setdefault(f'by_{group}', {}).setdefault(member, []).append(sample)
    changes = [
        {
            'id': sample.outcome.query.id,
            'text': sample.outcome.query.text,
            'a': sample.a.union_iou(empty),
            'b': sample.b.union_iou(empty),
            'gain': sample.gain(empty),
        }
        for sample in samples
    ]
    return {
        'benchmark': first.header['benchmark'],
        'split': first.header['split'],
        'a': str(first.folder),
        'b': str(second.folder),
        'settings': _different_settings(first.header, second.header),
        'samples': len(samples),
        **pairing.counts,
        'cost': {letter: mean_cost([pair[index] for pair in pairing.pairs]) for index, letter in enumerate(('a', 'b'))},
        'paper': paper_systems.rows(first.header['benchmark'], first.header['split'], benchmark_of(first).paper),
        'all': _differences(samples, empty),
        **{
            group: {member: _differences(members[member], empty) for member in sorted(members)}
            for group, members in groups.items()
        },
        'gains': _largest([change for change in changes if change['gain'] > TIE]),
        'losses': _largest([change for change in changes if change['gain'] < -TIE]),
    }


def benchmark_of(run: Run) -> Benchmark:
    """Return the benchmark of a run.

    Raises:
        RunError: The header lacks entries, or the benchmark is unknown.
    """
    missing = {'benchmark', 'split', 'threshold', 'empty'} - run.header.keys()
    if missing:
        raise RunError(f'{run.folder}: its header lacks {", ".join(sorted(missing))}. `instructsam eval` writes them')
    if run.header['benchmark'] not in BENCHMARKS:
        raise RunError(
            f'{run.folder} is of the benchmark {run.header["benchmark"]!r}, expected one of {", ".join(BENCHMARKS)}'
        )
    return BENCHMARKS[run.header['benchmark']]


@dataclass(frozen=True)
class _Pairing:
    """The samples that both runs answered, and how many are left out for which reason."""

    pairs: list[tuple[Outcome, Outcome]]
    counts: dict[str, int]


def _pair(first: Run, second: Run) -> _Pairing:
    """Pair the outcomes of two runs by the ids of their queries.

    Raises:
        RunError: The runs have different benchmarks, splits or data, or no sample that both answered.
    """
    for key in ('benchmark', 'split'):
        if first.header[key] != second.header[key]:
            raise RunError(
                f'{first.folder} is of {key} {first.header[key]!r}, {second.folder} of {second.header[key]!r}: only '
                'runs of the same samples can be compared'
            )
    others = {outcome.query.id: outcome for outcome in second.outcomes}
    common = [(outcome, others[outcome.query.id]) for outcome in first.outcomes if outcome.query.id in others]
    if not common:
        raise RunError(f'{first.folder} and {second.folder} have no sample in common')
    for a, b in common:
        different = next((name for name, part in _CONTENT.items() if part(a.query) != part(b.query)), None)
        if different:
            raise RunError(
                f'sample {a.query.id} has a different {different} in {first.folder} than in {second.folder}: the runs '
                'used different data and cannot be compared'
            )
    pairs = [(a, b) for a, b in common if not a.error and not b.error]
    if not pairs:
        raise RunError(f'all samples that {first.folder} and {second.folder} have in common failed in one of them')
    counts = {
        'only_a': len(first.outcomes) - len(common),
        'only_b': len(second.outcomes) - len(common),
        'failed_a': sum(bool(a.error) for a, _ in common),
        'failed_b': sum(bool(b.error) for _, b in common),
    }
    return _Pairing(pairs, counts)


_CONTENT: dict[str, Callable[[Query], Any]] = {  # parts of a query that must be equal in both runs
    'text': lambda query: query.text,
    'ground truth': lambda query: [mask.to_coco() for mask in query.ground_truth],
    'region to ignore': lambda query: query.ignore and query.ignore.to_coco(),
}


def _different_settings(first: dict[str, Any], second: dict[str, Any]) -> dict[str, list[Any]]:
    """Return {key: [value of A, value of B]} for the keys in which two headers differ."""
    keys = [key for key in {**first, **second} if first.get(key) != second.get(key)]
    return {key: [first.get(key), second.get(key)] for key in keys}


def _largest(changes: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return sorted(changes, key=lambda change: -abs(change['gain']))[:SAMPLES_LISTED]


def _differences(samples: Sequence[_Sample], empty: float) -> dict[str, Any]:
    """Return the figures of both runs with differences and intervals, and the wins, losses and ties of B."""
    first, second = [sample.a for sample in samples], [sample.b for sample in samples]
    a, b = to_percent(compute_metrics(first, empty)), to_percent(compute_metrics(second, empty))
    bounds = paired_bootstrap_intervals(first, second, [sample.outcome.image for sample in samples], empty)
    figures = {}
    for name in FIGURES:
        value_a, value_b = a[name], b[name]
        if value_a is not None and value_b is not None:
            figures[name] = {
                'a': value_a,
                'b': value_b,
                'difference': value_b - value_a,
                'interval': [100 * bound for bound in bounds[name]] if name in bounds else None,
            }
    gains = [sample.gain(empty) for sample in samples]
    wins, losses = sum(gain > TIE for gain in gains), sum(gain < -TIE for gain in gains)
    return {
        'samples': len(samples),
        'wins': wins,
        'losses': losses,
        'ties': len(gains) - wins - losses,
        'figures': figures,
    }

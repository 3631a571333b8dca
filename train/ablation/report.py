"""The figures of all seeds: the difference of each variant from the full model, beside that of the paper."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from instructsam.train.ablation.plan import Plan
from instructsam.train.ablation.study import read_figures
from instructsam.train.ablation.variants import REFERENCE, VARIANTS

COLUMNS = {'mAP': 'mAP', 'cIoU': 'cIoU', 'gIoU': 'gIoU', 'no_target_accuracy': 'no target', 'answer_accuracy': 'answer'}
COMPARED = ('mAP', 'cIoU')  # metrics that the paper reports for the variants
CAPTION = (
    'Percent, mean ± half the range over seeds. To full: the difference from the full model with the same seed. Paper: '
    'the difference of its 2 B model, mAP on Inst2Seg, cIoU on ReasonSeg. Sign: same if the difference of every seed '
    "has the paper's sign, opposite, or mixed. test/bench/bench_slots.py measures the time that K costs."
)

Figures = Mapping[int, Mapping[str, Any]]
"""Seed -> the figures of one variant, as study.read_figures returns them."""


def results(plan: Plan, seeds: Iterable[int]) -> dict[str, Any]:
    """Return all that was measured, for results.json: figures by variant and seed, means and differences."""
    seeds = list(seeds)
    figures: dict[str, dict[int, dict[str, Any]]] = {}
    for name in VARIANTS:
        measured = {seed: read_figures(plan, name, seed) for seed in seeds}
        figures[name] = {seed: document for seed, document in measured.items() if document}
    rows = {name: _row(name, of_seeds, figures[REFERENCE]) for name, of_seeds in figures.items() if of_seeds}
    return {'plan': asdict(plan), 'rows': rows, 'figures': figures}


def _row(name: str, figures: Figures, full: Figures) -> dict[str, Any]:
    """Return the row of one variant: {metric: [mean, half the range]}, and its comparison with the full model."""
    variant = VARIANTS[name]
    seeds = [seed for seed in figures if seed in full]
    differences = {
        metric: _differences(figures, full, seeds, metric) for metric in COMPARED if name != REFERENCE and seeds
    }
    paper = {'mAP': variant.paper_map, 'cIoU': variant.paper_ciou}
    return {
        'summary': variant.summary,
        'seeds': list(figures),
        **{metric: _mean([_value(one, metric) for one in figures.values()]) for metric in COLUMNS},
        'difference': {metric: _mean(values) for metric, values in differences.items()},
        'paper': paper,
        'sign': {metric: _sign(differences.get(metric), paper[metric]) for metric in paper},
    }


def _differences(figures: Figures, full: Figures, seeds: Sequence[int], metric: str) -> list[float]:
    pairs = [(_value(figures[seed], metric), _value(full[seed], metric)) for seed in seeds]
    return [a - b for a, b in pairs if a is not None and b is not None]


def _value(document: Mapping[str, Any], metric: str) -> float | None:
    return document['all'][metric]


def _mean(values: Iterable[float | None]) -> list[float] | None:
    """Return [mean, half the range] of the values that are not None; None if there are none."""
    known = [value for value in values if value is not None]
    return [sum(known) / len(known), (max(known) - min(known)) / 2] if known else None


def _sign(differences: Sequence[float] | None, paper: float | None) -> str | None:
    """Return 'same' if every difference has the sign of the paper's, 'opposite' if none has or is 0, else 'mixed'."""
    if not differences or paper is None:
        return None
    products = [difference * paper for difference in differences]
    if all(product > 0 for product in products):
        return 'same'
    return 'opposite' if all(product < 0 for product in products) else 'mixed'


def table(results: Mapping[str, Any]) -> list[str]:
    """Return the rows of `results` as the lines of a Markdown table with aligned columns."""
    header = ['variant', 'seeds', 'mAP', 'to full', 'paper', 'sign', 'cIoU', 'to full', 'paper', 'sign']
    header += [title for metric, title in COLUMNS.items() if metric not in COMPARED]
    rows = [_cells(name, row) for name, row in results['rows'].items()]
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    lines = [header, ['-' * width for width in widths], *rows]
    return [f'| {" | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True))} |' for line in lines]


def _cells(name: str, row: Mapping[str, Any]) -> list[str]:
    cells = [f'`{name}`', str(len(row['seeds']))]
    for metric in COMPARED:
        paper = row['paper'][metric]
        cells += [_cell(row[metric]), _cell(row['difference'].get(metric), '+.1f')]
        cells += ['-' if paper is None else f'{paper:+.1f}', row['sign'][metric] or '-']
    return [*cells, *(_cell(row[metric]) for metric in COLUMNS if metric not in COMPARED)]


def _cell(value: Sequence[float] | None, form: str = '.1f') -> str:
    return '-' if value is None else f'{value[0]:{form}} ± {value[1]:{form.lstrip("+")}}'


def markdown(results: Mapping[str, Any]) -> str:
    """Return the table with its caption and the summary of each variant, for the README or docs."""
    names = [f'- `{name}`: {row["summary"]}' for name, row in results['rows'].items()]
    return '\n'.join([*table(results), '', CAPTION, '', *names]) + '\n'

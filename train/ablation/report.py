"""The figures of all seeds: what each variant loses against the full model, beside what the paper's lost."""

from dataclasses import asdict

from instructsam.train.ablation.study import read_figures
from instructsam.train.ablation.variants import REFERENCE, VARIANTS

SHOWN = {'mAP': 'mAP', 'cIoU': 'cIoU', 'gIoU': 'gIoU', 'no_target_accuracy': 'no target', 'answer_accuracy': 'answer'}
CAPTION = (
    'Percent, mean ± half the range over seeds. To full: the difference, seed by seed. Paper: that of its 2 B model, '
    'mAP on Inst2Seg, cIoU on ReasonSeg. Sign: same where every seed lost as the paper did, opposite, or mixed. What K '
    'costs in time: test/bench/bench_slots.py.'
)


def results(plan, seeds):
    """Everything there is of a Plan: figures by variant and seed, means, differences. For results.json."""
    found = {name: {seed: read_figures(plan, name, seed) for seed in seeds} for name in VARIANTS}
    found = {name: {seed: one for seed, one in of.items() if one} for name, of in found.items()}
    rows = {name: _row(name, of, found[REFERENCE]) for name, of in found.items() if of}
    return {'plan': asdict(plan), 'rows': rows, 'figures': found}


def _row(name, found, full):
    """Of one variant: {metric: [mean, spread]}, and what it is compared with."""
    variant = VARIANTS[name]
    both = [seed for seed in found if seed in full]
    differences = {
        metric: _differences(found, full, both, metric) for metric in ('mAP', 'cIoU') if name != REFERENCE and both
    }
    paper = {'mAP': variant.paper_map, 'cIoU': variant.paper_ciou}
    return {
        'summary': variant.summary,
        'seeds': list(found),
        **{metric: _mean([_value(one, metric) for one in found.values()]) for metric in SHOWN},
        'difference': {metric: _mean(values) for metric, values in differences.items()},
        'paper': paper,
        'sign': {metric: _sign(differences.get(metric), paper[metric]) for metric in paper},
    }


def _differences(found, full, seeds, metric):
    pairs = [(_value(found[seed], metric), _value(full[seed], metric)) for seed in seeds]
    return [a - b for a, b in pairs if a is not None and b is not None]


def _value(document, metric):
    return document['all'][metric]


def _mean(values):
    """[mean, half the range], None where there is nothing."""
    values = [value for value in values if value is not None]
    return [sum(values) / len(values), (max(values) - min(values)) / 2] if values else None


def _sign(differences, paper):
    """Whether each of `differences` has the sign of the paper's."""
    if not differences or paper is None:
        return None
    same = [difference * paper > 0 for difference in differences]
    return 'same' if all(same) else 'mixed' if any(same) else 'opposite'


def table(results):
    """The rows of `results` as a Markdown table, its columns aligned."""
    header = ['variant', 'seeds', 'mAP', 'to full', 'paper', 'sign', 'cIoU', 'to full', 'paper', 'sign']
    header += list(SHOWN.values())[2:]
    lines = [header, None]
    for name, row in results['rows'].items():
        cells = [f'`{name}`', str(len(row['seeds']))]
        for metric in ('mAP', 'cIoU'):
            paper = row['paper'][metric]
            cells += [_cell(row[metric]), _cell(row['difference'].get(metric), '+.1f')]
            cells += ['-' if paper is None else f'{paper:+.1f}', row['sign'][metric] or '-']
        lines.append([*cells, *(_cell(row[metric]) for metric in list(SHOWN)[2:])])
    widths = [max(len(line[column]) for line in lines if line) for column in range(len(header))]
    lines[1] = ['-' * width for width in widths]
    return [f'| {" | ".join(cell.ljust(width) for cell, width in zip(line, widths))} |' for line in lines]


def _cell(value, form='.1f'):
    return '-' if value is None else f'{value[0]:{form}} ± {value[1]:{form.lstrip("+")}}'


def markdown(results):
    """The table with what its rows are, as a file for the README or docs."""
    names = [f'- `{name}`: {row["summary"]}' for name, row in results['rows'].items()]
    return '\n'.join([*table(results), '', CAPTION, '', *names]) + '\n'

"""Console tables of a comparison of two runs, see figures.compare."""

from collections.abc import Iterator
from typing import Any

from rich.console import RenderableType
from rich.table import Table

from instructsam.train.evaluation.reporting.console_table import HEADERS, open_table, paper_table, print_all, shown


def print_comparison(document: dict[str, Any], *, to_stderr: bool) -> None:
    """Print the result of `compare_runs`: figures with differences, groups, and the largest gains and losses."""
    print_all(
        [
            *map(shown, _heading(document)),
            _figures_table(document['all']),
            '',
            _groups_table(document),
            *_cost_tables(document),
            *map(shown, _notes(document)),
        ],
        to_stderr=to_stderr,
    )


def _heading(document: dict[str, Any]) -> Iterator[str]:
    yield f'{document["benchmark"]} {document["split"]}, {document["samples"]} samples that both runs answered'
    for letter in 'ab':
        yield f'{letter.upper()}: {document[letter]}'
        alone, failed = document[f'only_{letter}'], document[f'failed_{letter}']
        if alone:
            yield f'   {alone} samples that only {letter.upper()} has are left out'
        if failed:
            yield f'   {failed} samples that FAILED in {letter.upper()} are left out'
    for key, (a, b) in document['settings'].items():
        yield f'{key}: {a} -> {b}'


def _figures_table(differences: dict[str, Any]) -> Table:
    """Return a table with one row per figure."""
    table = open_table(['A', 'B', 'B - A', '95 %'])
    for name, figure in differences['figures'].items():
        table.add_row(HEADERS[name], f'{figure["a"]:.1f}', f'{figure["b"]:.1f}', *_change_cells(figure))
    return table


def _groups_table(document: dict[str, Any]) -> Table:
    """Return a table with one row per member of a group: differences of mAP and gIoU, and samples won and lost."""
    table = open_table(['n', 'mAP', '95 %', 'gIoU', '95 %', 'won', 'lost', 'tied'])
    for group, members in document.items():
        if group.startswith('by_'):
            for member, differences in members.items():
                figures = [cell for key in ('mAP', 'gIoU') for cell in _change_cells(differences['figures'].get(key))]
                counts = [str(differences[key]) for key in ('wins', 'losses', 'ties')]
                label = shown(f'{group.removeprefix("by_")} {member}')
                table.add_row(label, str(differences['samples']), *figures, *counts)
            table.add_row()
    return table


def _cost_tables(document: dict[str, Any]) -> Iterator[RenderableType]:
    """Yield a table of the mean cost per sample, and one of the paper's rows if an agent took part."""
    a, b = document['cost']['a'], document['cost']['b']
    names = list({**a, **b})
    table = open_table(['A', 'B', 'B / A'], caption='mean per sample; seconds include the encoding of the image')
    for name in names:
        cells = [f'{cost[name]:.3g}' if name in cost else '-' for cost in (a, b)]
        ratio = f'{b[name] / a[name]:.3g}' if a.get(name) and name in b else '-'
        table.add_row(name.replace('_', ' '), *cells, ratio)
    yield table
    yield ''
    if len(names) > 1 and document['paper']:
        yield paper_table(document['paper'])
        yield ''


def _notes(document: dict[str, Any]) -> Iterator[str]:
    won, lost, tied = (document['all'][key] for key in ('wins', 'losses', 'ties'))
    yield f'B - A in percent; *: the interval excludes 0. By IoU per sample, B won {won}, lost {lost}, tied {tied}.'
    for key in ('gains', 'losses'):
        if document[key]:
            yield f'largest {key}, IoU A -> B:'
        for change in document[key]:
            yield f'  {change["a"]:.2f} -> {change["b"]:.2f} {change["id"]}: {change["text"]}'


def _change_cells(figure: dict[str, Any] | None) -> tuple[str, str]:
    """Return the difference and its interval as text; a star marks a difference that exceeds chance."""
    if figure is None:
        return '-', ''
    if figure['interval'] is None:
        return f'{figure["difference"]:+.1f}', ''
    low, high = figure['interval']
    return f'{figure["difference"]:+.1f}{"" if low <= 0 <= high else "*"}', f'{low:+.1f}..{high:+.1f}'

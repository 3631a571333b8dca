"""Console table of a run's figures, in percent.

The document holds the settings, the figures of 'all' queries, and those of groups of them: 'by_kind', 'by_targets' ...
"""

import sys
from collections.abc import Iterable, Iterator
from typing import Any

from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

from instructsam.core.text import one_line
from instructsam.train.evaluation import paper_systems
from instructsam.train.evaluation.benchmarks import Benchmark

HEADERS = {  # figures of the table in order, and their column headers
    'queries': 'n', 'mAP': 'mAP', 'AP50': 'AP50', 'AP75': 'AP75', 'recall': 'recall', 'gIoU': 'gIoU', 'cIoU': 'cIoU',
    'no_target_accuracy': 'N-acc', 'target_accuracy': 'T-acc', 'answer_accuracy': 'answer', 'latency_ms': 'ms',
}  # fmt: skip


def print_table(title: str, document: dict[str, Any], benchmark: Benchmark, *, to_stderr: bool = False) -> None:
    """Print the figures of a run: one row per group, then intervals, failed queries and the model's warning."""
    warning = document.get('warning')
    paper = paper_systems.rows(document['benchmark'], document['split'], benchmark.paper) if _is_agent(document) else {}
    print_all(
        [
            shown(title),
            _table(document),
            *([paper_table(paper), ''] if paper else []),
            *map(shown, _notes(document, benchmark)),
            *([Text(one_line(f'WARNING: {warning}'), style='bold yellow')] if warning else []),
        ],
        to_stderr=to_stderr,
    )


def shown(line: str) -> Text:
    """Return a line of text, indented as it is, without what would command a terminal or be read as rich's markup."""
    return Text(' ' * (len(line) - len(line.lstrip(' '))) + one_line(line))


def print_all(items: Iterable[RenderableType], *, to_stderr: bool) -> None:
    """Print texts and tables of rich.

    They are rendered first and written by `print`: rich itself would end the process on a broken pipe, which the
    command line handles.
    """
    console = Console(stderr=to_stderr, highlight=False)
    with console.capture() as captured:
        for item in items:
            console.print(item, soft_wrap=isinstance(item, Text))
    print(captured.get(), end='', file=sys.stderr if to_stderr else sys.stdout)


def open_table(headers: Iterable[str], *, caption: str | None = None) -> Table:
    """Return a table without lines: a column of names, then right-aligned columns with these headers."""
    table = Table(box=None, padding=(0, 1, 0, 0), caption=caption, caption_justify='left')
    table.add_column()
    for header in headers:
        table.add_column(header, justify='right', vertical='bottom')
    return table


def paper_table(rows: dict[str, dict[str, float]]) -> Table:
    """Return a table of the paper's figures, one row per system, see `paper_systems.rows`."""
    names = list(dict.fromkeys(name for figures in rows.values() for name in figures))
    table = open_table([HEADERS.get(name, 's') for name in names], caption='percent; s: mean per instruction')
    for system, figures in rows.items():
        table.add_row(f'paper: {system}', *(f'{figures[name]:.1f}' if name in figures else '' for name in names))
    return table


def _is_agent(document: dict[str, Any]) -> bool:
    return document.get('engine') == 'agent'


def _notes(document: dict[str, Any], benchmark: Benchmark) -> Iterator[str]:
    intervals, times = document['intervals'], document['times']
    paper = {} if _is_agent(document) else benchmark.paper.get(document['split'], {})
    for name in benchmark.headline:
        if name in intervals:
            low, high = intervals[name]
            reported = f'; the paper reports {paper[name]:.1f} for InstructSAM-2B' if name in paper else ''
            yield f'{HEADERS[name]} {document["all"][name]:.1f}, 95 % interval {low:.1f} to {high:.1f}{reported}'
    if times['instructions_per_s']:
        yield f'{times["instructions_per_s"]:.1f} instructions/s per process'
    if 'usage' in document:
        usage = document['usage']
        parts = ', '.join(f'{value:.1f} {name.replace("_", " ")}' for name, value in usage.items())
        yield f'a sample takes {parts} (means)'
    failed = document['failed']
    if failed['queries']:
        yield f'{failed["queries"]} samples FAILED and are not in the figures:'
        yield from (f'  {line}' for line in failed['first'])
    if 'as_empty' in failed:
        known = {name: failed['as_empty'][name] for name in benchmark.headline}
        figures = ', '.join(f'{HEADERS[name]} {value:.1f}' for name, value in known.items() if value is not None)
        yield f'with failed samples as empty answers: n {failed["as_empty"]["queries"]}, {figures}'
    yield f'results: {document["run"]}'


def _table(document: dict[str, Any]) -> Table:
    names = [name for name in HEADERS if name in document['all']]
    table = open_table([HEADERS[name] for name in names], caption='percent; ms: median')
    table.add_row('all', *_cells(document['all'], names))
    for group, members in document.items():
        if group.startswith('by_'):
            table.add_row()
            for member, figures in members.items():
                table.add_row(shown(f'{group.removeprefix("by_")} {member}'), *_cells(figures, names))
    return table


def _cells(figures: dict[str, Any], names: Iterable[str]) -> Iterator[str]:
    for value in map(figures.get, names):
        yield '-' if value is None else str(value) if isinstance(value, int) else f'{value:.1f}'

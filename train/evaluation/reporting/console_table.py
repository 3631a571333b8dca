"""What an evaluation found: figures in percent, as JSON for programs and as a table for people.

A document holds the settings, the figures of 'all' queries, and those of groups of them: 'by_kind', 'by_targets' ...
"""

import sys

from rich.console import Console
from rich.table import Table
from rich.text import Text

HEADERS = {  # the figures of the table, and what stands above them
    'queries': 'n', 'mAP': 'mAP', 'AP50': 'AP50', 'AP75': 'AP75', 'gIoU': 'gIoU', 'cIoU': 'cIoU',
    'no_target_accuracy': 'N-acc', 'target_accuracy': 'T-acc', 'answer_accuracy': 'answer', 'latency_ms': 'ms',
}  # fmt: skip


def print_table(title, document, benchmark, to_stderr=False):
    """Prints the figures of `document`, a row a group, below `title`; intervals, failed samples, and its warning."""
    console = Console(stderr=to_stderr, highlight=False)
    with console.capture() as shown:  # written by print, which leaves a broken pipe to the command line
        console.print(Text(title), soft_wrap=True)
        console.print(_table(document))
        for line in _notes(document, benchmark):
            console.print(Text(line), soft_wrap=True)
        if document.get('warning'):
            console.print(Text(f'WARNING: {document["warning"]}', style='bold yellow'))
    print(shown.get(), end='', file=sys.stderr if to_stderr else sys.stdout)


def _notes(document, benchmark):
    intervals, times, paper = document['intervals'], document['times'], benchmark.paper.get(document['split'], {})
    for name in benchmark.headline:
        if name in intervals:
            low, high = intervals[name]
            reported = f'; the paper has {paper[name]:.1f} for InstructSAM-2B' if name in paper else ''
            yield f'{HEADERS[name]} {document["all"][name]:.1f}, 95 % interval {low:.1f} to {high:.1f}{reported}'
    if times['instructions_per_s']:
        yield f'{times["instructions_per_s"]:.1f} instructions/s of one process'
    failed = document['failed']
    if failed['queries']:
        yield f'{failed["queries"]} samples FAILED and are not in the figures:'
        yield from (f'  {line}' for line in failed['first'])
    yield f'results: {document["run"]}'


def _table(document):
    shown = [name for name in HEADERS if name in document['all']]
    table = Table(box=None, padding=(0, 1, 0, 0), caption='percent; ms: median', caption_justify='left')
    table.add_column()
    for name in shown:
        table.add_column(HEADERS[name], justify='right', vertical='bottom')
    table.add_row('all', *_cells(document['all'], shown))
    for group, members in document.items():
        if group.startswith('by_'):
            table.add_row()
            for member, figures in members.items():
                table.add_row(f'{group.removeprefix("by_")} {member}', *_cells(figures, shown))
    return table


def _cells(figures, shown):
    for value in map(figures.get, shown):
        yield '-' if value is None else str(value) if isinstance(value, int) else f'{value:.1f}'

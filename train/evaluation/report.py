"""What an evaluation found: figures in percent, as JSON for programs and as a table for people.

A document holds the settings, the figures of 'all' queries, and those of groups of them: 'by_kind', 'by_targets' ...
"""

import sys

from rich.console import Console
from rich.table import Table
from rich.text import Text

HEADERS = {'queries': 'n', 'no_target_accuracy': 'no\ntarget', 'answer_accuracy': 'answer', 'latency_ms': 'ms'}


def percent(shares):
    """name -> share from 0 to 1 as name -> percent, None for nan."""
    return {name: None if share != share else round(100 * share, 2) for name, share in shares.items()}


def print_table(title, document, to_stderr=False):
    """Prints the figures of `document`, a row a group, below `title`; and its warning."""
    console = Console(stderr=to_stderr, highlight=False)
    with console.capture() as shown:  # written by print, which leaves a broken pipe to the command line
        console.print(Text(title), soft_wrap=True)
        console.print(_table(document))
        if document.get('warning'):
            console.print(Text(f'WARNING: {document["warning"]}', style='bold yellow'))
    print(shown.get(), end='', file=sys.stderr if to_stderr else sys.stdout)


def _table(document):
    table = Table(box=None, padding=(0, 1, 0, 0), caption='percent; ms: median', caption_justify='left')
    table.add_column()
    for name in document['all']:
        table.add_column(HEADERS.get(name, name), justify='right', vertical='bottom')
    table.add_row('all', *_cells(document['all']))
    for group, members in document.items():
        if group.startswith('by_'):
            table.add_row()
            for member, figures in members.items():
                table.add_row(f'{group.removeprefix("by_")} {member}', *_cells(figures))
    return table


def _cells(figures):
    for value in figures.values():
        yield '-' if value is None else str(value) if isinstance(value, int) else f'{value:.1f}'

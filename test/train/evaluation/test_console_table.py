"""Console tables show what comes from annotation files without letting it command the terminal."""

from instructsam.train.evaluation.benchmarks import BENCHMARKS
from instructsam.train.evaluation.reporting.console_table import print_table

FIGURES = {'queries': 1, 'mAP': None}


def test_text_from_outside(capsys):
    document = {
        'all': FIGURES,
        'by_kind': {'\x9b2J [red]near[/red]': FIGURES},
        'intervals': {},
        'times': {'instructions_per_s': None},
        'failed': {'queries': 1, 'first': ['0-0: cannot read a\x91\x1b[2J\n[b]x[/b]: no such file']},
        'split': 'val',
        'run': 'runs/\x07eval',
        'warning': 'toy\x08',
    }
    print_table('table\x1b[1m', document, next(iter(BENCHMARKS.values())))
    out = capsys.readouterr().out
    assert all(line.isprintable() for line in out.splitlines())
    for shown in (
        r'table\x1b[1m',
        r'kind \x9b2J [red]near[/red]',
        r'  0-0: cannot read a\x91\x1b[2J [b]x[/b]: no such file',
        r'runs/\x07eval',
        r'WARNING: toy\x08',
    ):
        assert shown in out

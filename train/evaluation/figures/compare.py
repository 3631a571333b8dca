"""`instructsam eval compare A B`: two runs of one benchmark, sample by sample, and which differences exceed chance."""

import sys
from pathlib import Path

FIGURES = ('mAP', 'AP50', 'gIoU', 'cIoU', 'no_target_accuracy', 'target_accuracy')
LISTED = 10  # gains, and losses
TIE = 1e-9  # IoU


def add_arguments(parser):
    parser.add_argument('a', metavar='A', type=Path, help="a run's folder")
    parser.add_argument('b', metavar='B', type=Path, help='the folder of another run of the same benchmark and split')
    parser.add_argument(
        '--json', metavar='FILE', help='write the differences as JSON; - is stdout (the tables then go to stderr)'
    )
    parser.epilog = (
        'Differences are B - A, of the samples that both runs have answered, each run with its own threshold. For the '
        'intervals images are drawn with replacement, the same for both runs.'
    )


def run(args):
    """Returns exit code 0. Raises InstructSAMError."""
    from instructsam.core.commands.document import write_json
    from instructsam.core.image_file import check_path
    from instructsam.train.evaluation.running.run_folder import read_run

    if args.json not in (None, '-'):
        check_path(args.json)
    document = compare_runs(read_run(args.a), read_run(args.b))
    if args.json is not None:
        write_json(args.json, document)
    _print(document, to_stderr=args.json == '-')
    return 0


def compare_runs(first, second):
    """How `second` differs from `first` (run_folder.Run), ready for JSON; figures in percent. Raises RunError."""
    from instructsam.train.evaluation.figures.summary import compare, members

    for run in (first, second):
        benchmark_of(run)
    empty = first.header['empty']
    pairs, unpaired = _paired(first, second)
    measured = [
        (one, compare(one, first.header['threshold']), compare(other, second.header['threshold']))
        for one, other in pairs
    ]
    groups = {}
    for each in measured:
        for group, name in members(*each[:2]):
            groups.setdefault(f'by_{group}', {}).setdefault(name, []).append(each)
    changes = [
        {
            'id': one.query.id,
            'text': one.query.text,
            'a': a.iou(empty),
            'b': b.iou(empty),
            'gain': b.iou(empty) - a.iou(empty),
        }
        for one, a, b in measured
    ]
    return {
        'benchmark': first.header['benchmark'],
        'split': first.header['split'],
        'a': str(first.folder),
        'b': str(second.folder),
        'settings': _settings(first.header, second.header),
        'samples': len(pairs),
        **unpaired,
        'all': _differences(measured, empty),
        **{
            group: {name: _differences(those, empty) for name, those in sorted(named.items())}
            for group, named in groups.items()
        },
        'gains': [one for one in sorted(changes, key=lambda one: -one['gain']) if one['gain'] > TIE][:LISTED],
        'losses': [one for one in sorted(changes, key=lambda one: one['gain']) if one['gain'] < -TIE][:LISTED],
    }


def benchmark_of(run):
    """The row of BENCHMARKS that a run_folder.Run is of. Raises RunError: its header does not say, or there is none."""
    from instructsam.train.evaluation.benchmarks import BENCHMARKS
    from instructsam.train.evaluation.running.run_folder import RunError

    missing = {'benchmark', 'split', 'threshold', 'empty'} - run.header.keys()
    if missing:
        raise RunError(f'{run.folder}: its header lacks {", ".join(sorted(missing))}. `instructsam eval` writes them')
    if run.header['benchmark'] not in BENCHMARKS:
        raise RunError(
            f'{run.folder} is of the benchmark {run.header["benchmark"]!r}, expected one of {", ".join(BENCHMARKS)}'
        )
    return BENCHMARKS[run.header['benchmark']]


def _paired(first, second):
    """[(Outcome, Outcome)] of what both have answered, and {what: number} of the rest. Raises RunError."""
    from instructsam.train.evaluation.running.run_folder import RunError

    for key in ('benchmark', 'split'):
        if first.header[key] != second.header[key]:
            raise RunError(
                f'{first.folder} is of {key} {first.header[key]!r}, {second.folder} of {second.header[key]!r}: only '
                'runs of the same samples can be compared'
            )
    others = {one.query.id: one for one in second.outcomes}
    both = [(one, others[one.query.id]) for one in first.outcomes if one.query.id in others]
    if not both:
        raise RunError(f'{first.folder} and {second.folder} have no sample in common')
    for one, other in both:
        what = next((name for name, of in _CONTENT.items() if of(one.query) != of(other.query)), None)
        if what:
            raise RunError(
                f'sample {one.query.id} has another {what} in {first.folder} than in {second.folder}: they are of '
                'different data, and cannot be compared'
            )
    pairs = [(one, other) for one, other in both if not one.error and not other.error]
    if not pairs:
        raise RunError(f'all samples that {first.folder} and {second.folder} have in common failed in one of them')
    return pairs, {
        'only_a': len(first.outcomes) - len(both),
        'only_b': len(second.outcomes) - len(both),
        'failed_a': sum(bool(one.error) for one, _ in both),
        'failed_b': sum(bool(other.error) for _, other in both),
    }


_CONTENT = {  # of a Query: what must be the same in both runs
    'text': lambda query: query.text,
    'truth': lambda query: [mask.to_coco() for mask in query.truth],
    'region to ignore': lambda query: query.ignore and query.ignore.to_coco(),
}


def _settings(first, second):
    """{key: [A's, B's]} where two headers differ."""
    keys = [key for key in {**first, **second} if first.get(key) != second.get(key)]
    return {key: [first.get(key), second.get(key)] for key in keys}


def _differences(measured, empty):
    """Of some (Outcome, Compared, Compared): figures with differences and intervals, and wins, losses, ties of B."""
    from instructsam.train.evaluation.figures import metrics
    from instructsam.train.evaluation.figures.intervals import paired_intervals
    from instructsam.train.evaluation.figures.summary import percent

    outcomes, first, second = zip(*measured)
    a, b = (percent(metrics.figures(compared, empty)) for compared in (first, second))
    bounds = paired_intervals(first, second, [one.image for one in outcomes], empty)
    gains = [other.iou(empty) - one.iou(empty) for one, other in zip(first, second)]
    wins, losses = sum(gain > TIE for gain in gains), sum(gain < -TIE for gain in gains)
    return {
        'samples': len(measured),
        'wins': wins,
        'losses': losses,
        'ties': len(gains) - wins - losses,
        'figures': {
            name: {
                'a': a[name],
                'b': b[name],
                'difference': b[name] - a[name],
                'interval': [100 * bound for bound in bounds[name]] if name in bounds else None,
            }
            for name in FIGURES
            if a[name] is not None
        },
    }


def _print(document, to_stderr):
    from rich.console import Console
    from rich.text import Text

    console = Console(stderr=to_stderr, highlight=False)
    with console.capture() as shown:  # written by print, which leaves a broken pipe to the command line
        for line in _heading(document):
            console.print(Text(_plain(line)), soft_wrap=True)
        console.print(_figures_table(document['all']), '', _groups_table(document))
        for line in _notes(document):
            console.print(Text(_plain(line)), soft_wrap=True)
    print(shown.get(), end='', file=sys.stderr if to_stderr else sys.stdout)


def _plain(text):
    """Without what would steer a terminal, or break the line."""
    return ''.join(letter if letter.isprintable() else ' ' for letter in text)


def _heading(document):
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


def _figures_table(found):
    from instructsam.train.evaluation.reporting.console_table import HEADERS

    table = _table('A', 'B', 'B - A', '95 %')
    for name, figure in found['figures'].items():
        table.add_row(HEADERS[name], f'{figure["a"]:.1f}', f'{figure["b"]:.1f}', *_change(figure))
    return table


def _groups_table(document):
    """A row a member of a group: the differences of mAP and gIoU."""
    from rich.text import Text

    table = _table('n', 'mAP', '95 %', 'gIoU', '95 %', 'won', 'lost', 'tied')
    for group, named in document.items():
        if group.startswith('by_'):
            for name, found in named.items():
                figures = (cell for key in ('mAP', 'gIoU') for cell in _change(found['figures'].get(key)))
                counts = (str(found[key]) for key in ('wins', 'losses', 'ties'))
                label = _plain(f'{group.removeprefix("by_")} {name}')
                table.add_row(Text(label), str(found['samples']), *figures, *counts)
            table.add_row()
    return table


def _table(*columns):
    from rich.table import Table

    table = Table(box=None, padding=(0, 1, 0, 0))
    table.add_column()
    for name in columns:
        table.add_column(name, justify='right')
    return table


def _notes(document):
    won, lost, tied = (document['all'][key] for key in ('wins', 'losses', 'ties'))
    yield f'B - A in percent; *: the interval excludes 0. By IoU of a sample, B won {won}, lost {lost}, tied {tied}.'
    for what in ('gains', 'losses'):
        if document[what]:
            yield f'largest {what}, IoU A -> B:'
        for one in document[what]:
            yield f'  {one["a"]:.2f} -> {one["b"]:.2f}  {one["id"]}: {one["text"]}'


def _change(figure):
    """Cells: the difference and its interval."""
    if figure is None:
        return '-', ''
    if figure['interval'] is None:
        return f'{figure["difference"]:+.1f}', ''
    low, high = figure['interval']
    return f'{figure["difference"]:+.1f}{"" if low <= 0 <= high else "*"}', f'{low:+.1f}..{high:+.1f}'

"""HTML report on one or more runs in one self-contained file: figures, plots and cases with images.

The layout is in page.html.jinja, where everything that came from data is escaped.
"""

import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

import jinja2
from rich.console import Console

from instructsam.core import builtin
from instructsam.core.atomic_write import check_path, replaced
from instructsam.train.evaluation import paper_systems
from instructsam.train.evaluation.figures.compare import benchmark_of
from instructsam.train.evaluation.figures.metrics import MaskMatch, PooledPredictions
from instructsam.train.evaluation.figures.summary import match_outcome, summarise
from instructsam.train.evaluation.reporting.cases import (
    GROUND_TRUTH_RGB,
    PREDICTION_RGB,
    Case,
    choose_cases,
    draw_cases,
)
from instructsam.train.evaluation.reporting.console_table import HEADERS
from instructsam.train.evaluation.reporting.svg import (
    calibration_bins,
    calibration_error,
    calibration_svg,
    precision_recall_svg,
)
from instructsam.train.evaluation.running.run_folder import Run, read_run, result_files

FAILURES_LISTED = 100
TEMPLATE = Path(__file__).with_name('page.html.jinja')


def write_report(folders: Iterable[Path], out: str) -> None:
    """Write the report on the runs in `folders` to the file `out`, and print its size.

    Raises:
        InstructSAMError: A run cannot be read.
        StorageError: The file cannot be written.
    """
    folders = list(dict.fromkeys(folders))
    check_path(out, result_files(*folders))
    with Console(stderr=True).status('reading') as status:  # the status is shown on terminals only
        runs = [read_run(folder) for folder in folders]
        text = render_report(runs, show_status=status.update)
    with replaced(out) as part:
        part.write_bytes(text.encode('utf-8', 'replace'))  # a model may have generated a lone surrogate
    print(f'{out}: {len(runs)} run{"s" * (len(runs) > 1)}, {len(text) / 1e6:.1f} MB')


def render_report(runs: Sequence[Run], show_status: Callable[[str], object] = lambda status: None) -> str:
    """Return the HTML report on some runs.

    Args:
        runs: The runs, of any benchmarks.
        show_status: Called with the step that begins.

    Raises:
        RunError: A run is of an unknown benchmark.
    """
    names = [run.folder.resolve().name for run in runs]
    if len(set(names)) < len(names):
        names = [str(run.folder) for run in runs]
    reports = [
        _report(run, f'run-{number}', name, show_status)
        for number, (run, name) in enumerate(zip(runs, names, strict=True), start=1)
    ]
    groups: dict[str, set[str]] = {}
    for report in reports:
        for group, members in report['groups'].items():
            groups.setdefault(group, set()).update(members)
    tables: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for report in reports:
        tables.setdefault((report['header']['benchmark'], report['header']['split']), []).append(report)
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters['link'] = lambda member: '#filter=' + quote(member, safe=':+', errors='replace')
    template = environment.from_string(TEMPLATE.read_text(encoding='utf-8'))
    return template.render(
        reports=reports,
        tables=tables,
        columns=_columns,
        groups={group: sorted(members) for group, members in groups.items()},
        ground_truth_rgb=GROUND_TRUTH_RGB,
        prediction_rgb=PREDICTION_RGB,
        failures_listed=FAILURES_LISTED,
    )


def _report(run: Run, anchor: str, name: str, show_status: Callable[[str], object]) -> dict[str, Any]:
    """Return the template's variables for one run."""
    benchmark, split = benchmark_of(run), run.header['split']
    is_agent = run.header.get('engine') == 'agent'
    of_groups = {} if is_agent else benchmark.paper  # the paper's figures are those of InstructSAM
    show_status(f'{anchor}: figures')
    threshold, empty = run.header['threshold'], run.header['empty']
    document = summarise(run.outcomes, threshold, empty)
    answered = [outcome for outcome in run.outcomes if not outcome.error]
    matches = [match_outcome(outcome, threshold) for outcome in answered]
    columns = _columns([document])
    groups = {key.removeprefix('by_'): document[key] for key in document if key.startswith('by_')}
    chosen = choose_cases([Case.create(*pair, empty) for pair in zip(answered, matches, strict=True)])
    show_status(f'{anchor}: images')
    images = draw_cases([case for cases in chosen.values() for case in cases], run.header)
    return {
        'anchor': anchor,
        'name': name,
        'folder': str(run.folder),
        'header': run.header,
        'settings': {key: value if isinstance(value, str) else json.dumps(value) for key, value in run.header.items()},
        'warning': builtin.warning(run.header.get('model', '')),
        'headline': benchmark.headline,
        'columns': columns,
        'paper': paper_systems.rows(run.header['benchmark'], split, benchmark.paper),
        'is_agent': is_agent,
        'usage': document.get('usage', {}),
        'as_empty': _as_empty(document, columns),
        'all': _cells(document['all'], columns, document['intervals'], {}),
        'more': {key: _format(value) for key, value in document['all'].items() if key not in columns},
        'times': document['times'],
        'groups': {
            group: {
                member: _cells(figures, columns, {}, of_groups.get(f'{split}/{group} {member}', {}))
                for member, figures in members.items()
            }
            for group, members in groups.items()
        },
        'plots': _plots(matches, document['all']),
        'failed': [(outcome.query.id, outcome.error) for outcome in run.outcomes if outcome.error],
        'cases': {kind: [(case, images[case.outcome.query.id]) for case in cases] for kind, cases in chosen.items()},
    }


def _as_empty(document: dict[str, Any], columns: Iterable[str]) -> dict[str, str]:
    """Return {figure: value} with failed queries as empty answers; empty if there are none."""
    figures = document['failed'].get('as_empty', {})
    return {name: _format(figures[name]) for name in columns if name in figures}


def _columns(documents: Iterable[dict[str, Any]]) -> dict[str, str]:
    """Return {figure: header} for the figures that any of `documents` has under 'all'."""
    documents = list(documents)
    return {name: header for name, header in HEADERS.items() if any(name in one['all'] for one in documents)}


def _cells(
    figures: dict[str, Any], columns: Iterable[str], intervals: dict[str, list[float]], paper: dict[str, float]
) -> dict[str, tuple[str, str, str]]:
    """Return {figure: (value, its interval, the paper's value)} as text; empty where there is none."""
    return {
        name: (
            _format(figures[name]),
            '{:.1f} \N{EN DASH} {:.1f}'.format(*intervals[name]) if name in intervals else '',
            _format(paper[name]) if name in paper else '',
        )
        for name in columns
    }


def _format(value: float | None) -> str:
    return '\N{EN DASH}' if value is None else str(value) if isinstance(value, int) else f'{value:.1f}'


def _plots(matches: Sequence[MaskMatch], figures: dict[str, Any]) -> dict[str, Any] | None:
    """Return the plots and their captions' numbers; None if there is no prediction."""
    if not any(len(match.scores) for match in matches):
        return None
    bins, pooled = calibration_bins(matches), PooledPredictions(matches)
    curves = {
        f'IoU {iou}: AP {_format(figures[name])}': pooled.precision_recall(iou)
        for iou, name in ((0.5, 'AP50'), (0.75, 'AP75'))
        if figures[name] is not None
    }
    return {
        'bins': bins,
        'calibration_error': calibration_error(bins),
        'calibration': calibration_svg(bins),
        'curves': precision_recall_svg(curves) if curves else '',
        'num_targets': sum(match.num_targets for match in matches),
    }

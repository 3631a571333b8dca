"""`instructsam eval report RUN...`: one HTML file about one or more runs: figures, plots, and cases with pictures.

The file needs nothing but itself. How it looks is in page.html.jinja, where everything that came from data is escaped.
"""

import base64
import json
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

SHOWN, SHOWN_OF_MEMBER, FAILED_SHOWN = 12, 4, 100
SIDE_PX, QUALITY = 320, 80  # of pictures: the longest side, and JPEG's
TRUTH, FOUND, RIM = (86, 180, 233), (230, 159, 0), (20, 20, 20)  # RGB
FILL, IGNORED = 0.35, 0.7  # opacity of what was found, and of what counts neither way


def add_arguments(parser):
    parser.add_argument('runs', nargs='+', metavar='RUN', type=Path, help="a run's folder")
    parser.add_argument('--out', default='report.html', metavar='FILE', help='file to write (default: %(default)s)')


def run(args):
    """Returns exit code 0. Raises InstructSAMError."""
    from rich.console import Console

    from instructsam.core.errors import InstructSAMError
    from instructsam.core.image_file import check_path
    from instructsam.train.evaluation.running.run_folder import read_run

    check_path(args.out)
    with Console(stderr=True).status('reading') as status:  # seen on a terminal only
        runs = [read_run(folder) for folder in dict.fromkeys(args.runs)]
        text = page(runs, tell=status.update)
    try:
        Path(args.out).write_bytes(text.encode('utf-8', 'replace'))  # a model may have written half a character
    except OSError as error:
        raise InstructSAMError(f'cannot write {args.out}: {error.strerror}') from error
    print(f'{args.out}: {len(runs)} run{"s" * (len(runs) > 1)}, {len(text) / 1e6:.1f} MB')
    return 0


def page(runs, tell=lambda what: None):
    """The HTML of some run_folder.Run. tell: gets what is being done. Raises RunError: of no known benchmark."""
    import jinja2

    names = [run.folder.resolve().name for run in runs]
    if len(set(names)) < len(names):
        names = [str(run.folder) for run in runs]
    reports = [_report(run, f'run-{i}', name, tell) for i, (run, name) in enumerate(zip(runs, names), start=1)]
    groups = {}
    for report in reports:
        for group, named in report['groups'].items():
            groups.setdefault(group, set()).update(named)
    tables = {}
    for report in reports:
        tables.setdefault((report['header']['benchmark'], report['header']['split']), []).append(report)
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters['link'] = lambda member: '#filter=' + quote(member, safe=':+', errors='replace')
    template = environment.from_string(Path(__file__).with_name('page.html.jinja').read_text(encoding='utf-8'))
    return template.render(
        reports=reports,
        tables=tables,
        columns=_columns,
        groups={name: sorted(groups[name]) for name in groups},
        truth=TRUTH,
        found=FOUND,
        failed_shown=FAILED_SHOWN,
    )


def _report(run, anchor, name, tell):
    """What the template shows of a run_folder.Run."""
    from instructsam.core import builtin
    from instructsam.train.evaluation.figures.compare import benchmark_of
    from instructsam.train.evaluation.figures.summary import compare, summarise

    benchmark, split = benchmark_of(run), run.header['split']
    tell(f'{anchor}: figures')
    empty = run.header['empty']
    document = summarise(run.outcomes, run.header['threshold'], empty)
    asked = [one for one in run.outcomes if not one.error]
    compared = [compare(one, run.header['threshold']) for one in asked]
    columns = _columns([document])
    groups = {name.removeprefix('by_'): document[name] for name in document if name.startswith('by_')}
    chosen = choose([Case.of(*each, empty) for each in zip(asked, compared)])
    tell(f'{anchor}: pictures')
    pictures = _pictures([case for cases in chosen.values() for case in cases], run.header['benchmark'])
    return {
        'anchor': anchor,
        'name': name,
        'folder': str(run.folder),
        'header': run.header,
        'settings': {key: value if isinstance(value, str) else json.dumps(value) for key, value in run.header.items()},
        'warning': builtin.warning(run.header.get('model')),
        'headline': benchmark.headline,
        'columns': columns,
        'paper': benchmark.paper.get(split, {}),
        'all': _cells(document['all'], columns, document['intervals']),
        'more': {name: _shown(value) for name, value in document['all'].items() if name not in columns},
        'times': document['times'],
        'groups': {
            group: {
                member: _cells(figures, columns, {}, benchmark.paper.get(f'{split}/{group} {member}', {}))
                for member, figures in members.items()
            }
            for group, members in groups.items()
        },
        'plots': _plots(compared, document['all']),
        'failed': [(one.query.id, one.error) for one in run.outcomes if one.error],
        'cases': {what: [(case, *pictures[case.outcome.query.id]) for case in cases] for what, cases in chosen.items()},
    }


def _columns(documents):
    """Name -> header of the figures that any of `documents` (with 'all') has."""
    from instructsam.train.evaluation.reporting.console_table import HEADERS

    return {name: header for name, header in HEADERS.items() if any(name in one['all'] for one in documents)}


def _cells(figures, columns, intervals, paper={}):
    """Name -> (figure, its interval, the paper's figure), as text; empty where there is none."""
    return {
        name: (
            _shown(figures[name]),
            '{:.1f} – {:.1f}'.format(*intervals[name]) if name in intervals else '',
            _shown(paper[name]) if name in paper else '',
        )
        for name in columns
    }


def _shown(value):
    return '–' if value is None else str(value) if isinstance(value, int) else f'{value:.1f}'


def _plots(compared, figures):
    """The plots of metrics.Compared, and what they are about; None where nothing was predicted."""
    from instructsam.train.evaluation.figures.metrics import Pooled
    from instructsam.train.evaluation.reporting import svg as plots

    if not any(len(one.scores) for one in compared):
        return None
    bins, pooled = plots.calibration(compared), Pooled(compared)
    curves = {
        f'IoU {iou}: AP {_shown(figures[name])}': pooled.curve(iou)
        for iou, name in ((0.5, 'AP50'), (0.75, 'AP75'))
        if figures[name] is not None
    }
    return {
        'bins': bins,
        'error': plots.calibration_error(bins),
        'calibration': plots.calibration_svg(bins),
        'curves': plots.precision_recall_svg(curves) if curves else '',
        'targets': sum(one.targets for one in compared),
    }


@dataclass(frozen=True, eq=False)
class Case:
    """A query.Outcome that was asked, and its metrics.Compared."""

    outcome: object
    compared: object
    iou: float  # of the unions; as the benchmark counts it where there is no pixel
    members: list[str]  # 'group:member'

    @classmethod
    def of(cls, outcome, compared, empty):
        from instructsam.train.evaluation.figures.summary import members

        named = [f'{group}:{name}' for group, name in members(outcome, compared)]
        return cls(outcome, compared, compared.iou(empty), named)

    @property
    def verdict(self):
        """What was meant and what was found, in words."""
        targets, found = self.compared.targets or 'nothing', self.compared.found or 'nothing'
        return f'{targets} meant, {found} found'

    @property
    def misnamed(self):
        """The phrases that the answer should have named, where it named others."""
        return self.outcome.query.phrases if self.outcome.right == 0 else ()

    def picture(self, image):
        """(`image` [H, W, 3] uint8 RGB with truth and answer drawn in as a data URI, why there is none); one is ''."""
        import cv2

        query, answer = self.outcome.query, self.outcome.masks[: self.compared.found]  # the best come first
        sizes = {(mask.height, mask.width) for mask in (*query.truth, *answer, *filter(None, [query.ignore]))}
        if sizes - {image.shape[:2]}:
            return '', f'its masks are {sorted(sizes)} (height, width), the picture is {image.shape[:2]} now'
        drawn = draw(image, query.truth, answer, query.ignore)
        _, jpeg = cv2.imencode('.jpg', drawn[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, QUALITY])
        return 'data:image/jpeg;base64,' + base64.b64encode(jpeg).decode(), ''


def draw(image, truth, found, ignore=None):
    """`image` [H, W, 3] uint8 RGB at SIDE_PX, with masks (Rle) outlined, found ones filled too, and `ignore` dark."""
    import cv2
    import numpy as np

    height, width = image.shape[:2]
    scale = SIDE_PX / max(height, width)
    size = max(1, round(width * scale)), max(1, round(height * scale))

    def scaled(array):
        return cv2.resize(array, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)

    def fill(inside, color, opacity):
        canvas[inside] = ((1 - opacity) * canvas[inside] + opacity * np.array(color)).astype(np.uint8)

    canvas = scaled(image)
    if ignore is not None:
        fill(scaled(ignore.decode().astype(np.float32)) > 0.5, RIM, IGNORED)
    for masks, color, opacity in ((found, FOUND, FILL), (truth, TRUTH, 0)):
        for mask in masks:
            share = scaled(mask.decode().astype(np.float32))
            inside = share >= min(0.5, share.max() or 1)  # what is thinner than a pixel is seen all the same
            fill(inside, color, opacity)
            contours, _ = cv2.findContours(inside.astype(np.uint8), cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
            for rgb, thickness in ((RIM, 4), (color, 2)):
                cv2.drawContours(canvas, contours, -1, rgb, thickness, cv2.LINE_AA)
    return canvas


def choose(cases):
    """{'worst', 'best', 'more': [Case]} of cases in the order of the split, each once; 'more' has the worst of groups.

    Worst ones come from different images as far as there are any. A sample of which nothing is meant and nothing found
    has no IoU, and is not among the best.
    """
    worst = _worst(cases, SHOWN)
    taken = set(map(id, worst))
    best = sorted((case for case in cases if case.compared.union and id(case) not in taken), key=lambda case: -case.iou)
    best = best[:SHOWN]
    taken |= set(map(id, best))
    more = []
    for member in sorted({member for case in cases for member in case.members}):
        for case in _worst([case for case in cases if member in case.members], SHOWN_OF_MEMBER):
            if id(case) not in taken:
                taken.add(id(case))
                more.append(case)
    return {'worst': worst, 'best': best, 'more': sorted(more, key=lambda case: case.iou)}


def _worst(cases, count):
    ordered = sorted(cases, key=lambda case: case.iou)
    first = {}
    for case in ordered:
        first.setdefault(case.outcome.image, case)
    again = [case for case in ordered if first[case.outcome.image] is not case]
    return sorted([*first.values(), *again][:count], key=lambda case: case.iou)


def _pictures(cases, benchmark):
    """{query id: (data URI, why there is none)}; each image is read or drawn once."""
    from instructsam.core.errors import InstructSAMError

    by_image, found = {}, {}
    for case in cases:
        by_image.setdefault(case.outcome.image, []).append(case)
    for name, those in by_image.items():
        try:
            image = _image(name, benchmark)
        except InstructSAMError as error:
            found |= {case.outcome.query.id: ('', str(error)) for case in those}
            continue
        found |= {case.outcome.query.id: case.picture(image) for case in those}
    return found


def _image(name, benchmark):
    """The picture of this name, [H, W, 3] uint8 RGB. Raises InstructSAMError, with the reason."""
    from instructsam.core.errors import InstructSAMError
    from instructsam.core.image_file import read_image

    if benchmark != 'tabletop':
        return read_image(name)
    try:
        from instructsam.train.tabletop.scenes.scene import render_scene

        split, seed, index = name.rsplit('_', 2)
        return render_scene(split, int(index), int(seed)).rgb
    except (ImportError, RuntimeError, ValueError) as error:
        raise InstructSAMError(f'{name} cannot be drawn: {error}') from error

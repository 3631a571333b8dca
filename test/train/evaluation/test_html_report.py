"""`instructsam eval report`: the page against the figures, its images, and the page in a real browser."""

import base64
import json
import re
import sys
from dataclasses import replace
from html.parser import HTMLParser
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from browser import chromium
from PIL import Image

from instructsam.core import cli, exit_codes
from instructsam.core.rle import Rle
from instructsam.train.evaluation.benchmarks import BENCHMARKS
from instructsam.train.evaluation.figures.metrics import IOUS, MaskMatch, PooledPredictions, average_precision
from instructsam.train.evaluation.figures.summary import match_outcome, summarise
from instructsam.train.evaluation.query import Order, Outcome, Query
from instructsam.train.evaluation.reporting import cases, svg
from instructsam.train.tabletop.scenes import scene as scenes
from instructsam.train.tabletop.scenes.scene import render_scene

HEADER = {
    'benchmark': 'inst2seg',
    'split': 'test',
    'threshold': 0.3,
    'lowest': 0.1,
    'empty': 1,
    'model': 'a/model',
    'prompts': {},
}
HEIGHT, WIDTH = 60, 80
SCRIPT = '<script>document.documentElement.dataset.broken = 1</script>'


def square(x, y, side=12):
    mask = np.zeros((HEIGHT, WIDTH), bool)
    mask[y : y + side, x : x + side] = True
    return Rle.encode(mask)


def made_up(image, order, rng, error=''):
    """An outcome with 0 to 3 targets, some found well, some badly, some not."""
    spots = [(int(x), int(y)) for x, y in zip(rng.integers(0, 66, 3), rng.integers(0, 46, 3), strict=True)]
    targets = spots[: rng.integers(4)]
    found = [square(min(x + int(rng.integers(8)), 66), y) for x, y in targets if rng.random() < 0.8]
    found += [square(*spots[-1])] * int(rng.random() < 0.3)
    kind = ('relation', 'attribute', 'rare')[min(order.query, 1 + (order.image == 0))]
    query = Query(
        f'{order.image}-{order.query}',
        f'the {order.query}. thing & more of {order.image}',
        tuple(square(*spot) for spot in targets),
        groups={'kind': kind, 'novelty': ['a b', 'c'][: order.query]},
        phrases=('thing',),
    )
    if error:
        return Outcome(order, image, query, error=error)
    scores = np.sort(rng.uniform(0.15, 1, len(found)))[::-1].tolist()
    name = 'thing' if order.query else 'stone'
    return Outcome(
        order,
        image,
        query,
        masks=tuple(found),
        scores=tuple(scores),
        answer=f'a {name}',
        phrases=(name,),
        timings_ms={'segment': 100.0 + order.image, 'prefill': 20.0},
    )


@pytest.fixture
def outcomes(tmp_path):
    """Outcomes on 20 images with three queries each; one of them failed, one image is missing."""
    rng, outcomes = np.random.default_rng(3), []
    for position in range(20):
        path = tmp_path / f'{position}.png'
        if position:
            Image.fromarray(rng.integers(60, 200, (HEIGHT, WIDTH, 3), dtype=np.uint8)).save(path)
        for number in range(3):
            error = 'too long' if position == number == 2 else ''
            outcomes.append(made_up(str(path), Order(position, number, 3), rng, error))
    return outcomes


@pytest.fixture
def run(write_run):
    """Return a function that writes a run and returns its folder: (outcomes, name='run', **header)."""
    return lambda outcomes, name='run', **header: write_run(name, outcomes, {**HEADER, **header})


@pytest.fixture
def report(tmp_path, capsys):
    """Return a function of the folders of runs: the page that the command writes, parsed."""

    def make(*folders):
        out = tmp_path / 'report.html'
        assert cli.main(['eval', 'report', *map(str, folders), '--out', str(out)]) == 0
        printed, err = capsys.readouterr()
        assert printed.startswith(f'{out}: {len(folders)} run')
        assert err == ''
        return Page(out.read_text(encoding='utf-8'))

    return make


class Page(HTMLParser):
    """A parsed page: tags (name, attributes), cards, and the rows of its tables (lists of texts)."""

    def __init__(self, text):
        super().__init__()
        self.text, self.tags, self.cards, self.rows, self.scripts, self._card = text, [], [], [], 0, None
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        self.tags.append((tag, attributes))
        self.scripts += tag == 'script'
        if tag == 'article':
            self._card = {'members': json.loads(attributes['data-members']), 'text': '', 'image': ''}
            self.cards.append(self._card)
        elif tag == 'img':
            self._card['image'] = attributes['src']
        elif tag == 'tr':
            self.rows.append([])
        elif tag in ('td', 'th'):
            self.rows[-1].append('')

    def handle_endtag(self, tag):
        if tag == 'article':
            self._card = None

    def handle_data(self, data):
        words = ' '.join(data.split())
        if self._card is not None:
            self._card['text'] += f' {words}' if words else ''
        elif self.rows and self.rows[-1] and words:
            self.rows[-1][-1] = f'{self.rows[-1][-1]} {words}'.strip()

    def row(self, name):
        return next(row for row in self.rows if row and row[0].split(' a/model')[0] == name)

    def ids(self):
        return [card['text'].split()[-1] for card in self.cards]


def test_figures_intervals_and_the_paper(run, report, outcomes):
    found, document = report(run(outcomes)), summarise(outcomes, 0.3, 1.0)
    row, paper = found.row('run'), BENCHMARKS['inst2seg'].paper
    low, high = document['intervals']['gIoU']
    assert row[1] == '59'
    assert f'{document["all"]["gIoU"]:.1f} {low:.1f} \N{EN DASH} {high:.1f}' in row
    for figure in ('mAP', 'AP50', 'AP75', 'cIoU', 'no_target_accuracy', 'target_accuracy'):
        assert any(cell.startswith(f'{document["all"][figure]:.1f} ') for cell in row)
    assert {'31.5', '60.4'} < set(found.row('paper, InstructSAM-2B'))
    for group in ('targets', 'kind', 'novelty'):
        for name, figures in document[f'by_{group}'].items():
            row = found.row(f'{group} {name}')
            reported = paper.get(f'test/{group} {name}', {}).get('gIoU')
            assert row[1] == str(figures['queries'])
            assert f'{figures["gIoU"]:.1f}' + (f' paper {reported}' if reported else '') in row
    assert found.row('model')[1] == 'a/model'
    assert found.row('threshold')[1] == '0.3'
    assert found.row('coco_AP')[1] == f'{document["all"]["coco_AP"]:.1f}'


def test_one_file_for_phones_that_loads_nothing(run, report, outcomes):
    found = report(run(outcomes))
    loaded = [value for _, attributes in found.tags for key, value in attributes.items() if key in ('src', 'href')]
    assert loaded
    assert all(value.startswith(('data:image/jpeg;base64,', '#')) for value in loaded)
    assert not re.search(r'url\(|@import|https?:|fetch\(', found.text)
    meta = {one.get('name', one.get('http-equiv')): one.get('content') for tag, one in found.tags if tag == 'meta'}
    assert meta['viewport'] == 'width=device-width, initial-scale=1'
    assert meta['Content-Security-Policy'].startswith("default-src 'none'")
    assert 'prefers-color-scheme: dark' in found.text


def test_the_cases(run, report, outcomes):
    """The worst of different images, the best, and for each member of a group its four worst, each once."""
    found = report(run(outcomes))
    asked = [one for one in outcomes if not one.error]
    measured = {one.query.id: match_outcome(one, 0.3) for one in asked}

    def worst(some, count):
        ordered = sorted(some, key=lambda one: measured[one.query.id].union_iou(1.0))
        images = dict.fromkeys(one.image for one in ordered)
        firsts = [next(one for one in ordered if one.image == image) for image in images]
        rest = [one for one in ordered if one not in firsts]
        return [one.query.id for one in (firsts + rest)[:count]]

    twelve = worst(asked, 12)
    assert found.ids()[:12] == twelve
    assert len({name.split('-')[0] for name in twelve}) == 12
    filled = [one for one in asked if measured[one.query.id].union and one.query.id not in twelve]
    best = sorted(filled, key=lambda one: -measured[one.query.id].union_iou(1.0))[:12]
    assert found.ids()[12:24] == [one.query.id for one in best]
    assert len(set(found.ids())) == len(found.ids()) > 24
    members = {f'targets:{number}' for number in ('0', '1', '2+')} | {'novelty:a b', 'novelty:c'}
    members |= {f'kind:{name}' for name in ('relation', 'attribute', 'rare')}
    options = {attributes['value'] for tag, attributes in found.tags if tag == 'option'}
    assert options == members | {''}
    for member in members:
        group, name = member.split(':')
        those = [
            one
            for one in asked
            if member == f'targets:{measured[one.query.id].num_targets_group}'
            or name in np.atleast_1d(one.query.groups.get(group, []))
        ]
        shown = {name for name, card in zip(found.ids(), found.cards, strict=True) if member in card['members']}
        assert set(worst(those, 4)) <= shown <= {one.query.id for one in those}
    assert {attributes['data-member'] for _, attributes in found.tags if 'data-member' in attributes} == members


def test_the_text_of_a_card(run, report, outcomes):
    found = report(run(outcomes))
    by_id = {one.query.id: one for one in outcomes}
    for name, card in zip(found.ids(), found.cards, strict=True):
        one, measured = by_id[name], match_outcome(by_id[name], 0.3)
        assert one.query.text in card['text']
        assert one.answer in card['text']
        assert ('expected thing' in card['text']) == (one.answer == 'a stone')
        shown = f'{measured.union_iou(1.0):.2f}' if measured.union else '\N{EN DASH}'
        meant, seen = measured.num_targets or 'nothing', measured.num_found or 'nothing'
        assert f'IoU {shown}, {meant} expected, {seen} found' in card['text'].replace(' ,', ',')
        assert all(f'{score:.2f}' in card['text'] for score in one.scores)
        assert ('no image: cannot read' in card['text']) == ('/0.png' in one.image) == (card['image'] == '')
    assert any('/0.png' in card['text'] for card in found.cards)
    images = [
        cv2.imdecode(np.frombuffer(base64.b64decode(card['image'].partition(',')[2]), np.uint8), 1)
        for card in found.cards
        if card['image']
    ]
    assert {image.shape for image in images} == {(240, 320, 3)}


def test_failed_samples_are_named(run, report, outcomes):
    found = report(run(outcomes))
    assert '1 samples failed' in found.text
    assert '<li><b>2-2</b>: too long</li>' in found.text


def test_nothing_from_data_is_markup(run, report, outcomes):
    query = Query('0-0<', SCRIPT, (square(5, 5),), groups={'kind': f'\'{SCRIPT}"'}, phrases=(SCRIPT,))
    bad = [
        Outcome(
            Order(0, 0, 2),
            f'{SCRIPT}.png',
            query,
            masks=(square(5, 5),),
            scores=(0.9,),
            answer=f'{SCRIPT}\ud800',
            phrases=('x',),
            timings_ms={'segment': 1.0},
        ),
        Outcome(Order(0, 1, 2), 'b', Query('0-1', 'b'), error=SCRIPT),
    ]
    clean, found = report(run(outcomes)), report(run(bad, SCRIPT[:7], model=SCRIPT, seed={'<b>': SCRIPT}))
    assert found.scripts == clean.scripts == 1
    assert '<script>document' not in found.text
    assert found.cards[0]['text'].count(SCRIPT) >= 3
    assert found.cards[0]['members'][1] == f'kind:\'{SCRIPT}"'
    assert {tag for tag, _ in found.tags} <= {tag for tag, _ in clean.tags} | {'p', 'ul', 'li'}
    assert not {key for _, attributes in found.tags for key in attributes if key.startswith('on')}


def test_several_runs_and_benchmarks(run, report, outcomes):
    third = run(outcomes, 'third', benchmark='grefcoco', split='val')
    folders = [run(outcomes), run(outcomes[:30], 'other/run'), third]
    found = report(*folders)
    for folder, count in zip(folders, (59, 29, 59), strict=True):
        assert found.row(str(folder))[1] == str(count)
    assert 'inst2seg test, grefcoco val' in found.text
    assert {'31.5', '57.3'} < {cell for row in found.rows for cell in row}  # mAP that the paper reports
    anchors = {attributes.get('id') for _, attributes in found.tags}
    assert {'#run-1', '#run-2', '#run-3'} < {attributes.get('href') for _, attributes in found.tags}
    assert {'run-1', 'run-2', 'run-3'} < anchors


def test_runs_of_nothing(run, report, outcomes):
    failed = [Outcome(one.order, one.image, one.query, error='no') for one in outcomes]
    silent = [Outcome(one.order, one.image, one.query, timings_ms={'segment': 1.0}) for one in outcomes]
    query, times = Query('a', 'a'), {'segment': 1.0}
    of_nothing = [Outcome(Order(0, 0, 1), 'a', query, masks=(square(1, 1),), scores=(0.5,), timings_ms=times)]
    found = report(run(failed, 'failed'), run(silent, 'silent'), run(of_nothing, 'of_nothing'), run([], 'empty'))
    assert [found.row(name)[1] for name in ('failed', 'silent', 'of_nothing', 'empty')] == ['0', '60', '1', '0']
    assert '60 samples failed' in found.text
    assert found.text.count('<svg') == 1


def test_the_built_in_model_has_a_warning(run, report, outcomes):
    assert 'rendered tables only' in report(run(outcomes[:3], model='tabletop')).text


def test_tabletop_scenes_are_rendered_again(run, report, outcomes, monkeypatch):
    drawn = []

    def scene(split, index, seed):
        drawn.append((split, index, seed))
        if index == 1:
            raise RuntimeError('no OpenGL')
        return SimpleNamespace(rgb=np.full((HEIGHT + (index == 2), WIDTH, 3), 90, np.uint8))

    monkeypatch.setattr(cases, 'render_scene', scene)
    named = [replace(one, image=f'test_7_{one.order.image:06d}') for one in outcomes[:12]]
    found = report(run(named, benchmark='tabletop'))
    assert sorted(drawn) == [('test', index, 7) for index in range(4)]  # each scene is drawn once
    for name, card in zip(found.ids(), found.cards, strict=True):
        one = next(one for one in named if one.query.id == name)
        other_size = name.startswith('2-') and bool(one.query.ground_truth or one.masks)
        assert ('test_7_000001 cannot be drawn: no OpenGL' in card['text']) == name.startswith('1-')
        assert ('the image is (61, 80) now' in card['text']) == other_size
        assert (card['image'] == '') == (name.startswith('1-') or other_size)
    monkeypatch.setitem(sys.modules, 'mujoco', None)
    monkeypatch.setattr(cases, 'render_scene', render_scene)
    monkeypatch.setattr(scenes, '_renderer', scenes._renderer.__wrapped__)  # another test's renderer may be cached
    assert (
        'cannot be drawn: drawing the tabletop world needs MuJoCo'
        in report(run(named, 'more', benchmark='tabletop')).text
    )


def test_masks_in_an_image():
    image = np.full((300, 640, 3), 100, np.uint8)
    masks = {}
    for name, (y, x, height, width) in {
        'target': (40, 40, 80, 80),
        'found': (40, 240, 80, 80),
        'thin': (200, 40, 80, 1),
        'ignore': (200, 400, 80, 80),
    }.items():
        mask = np.zeros(image.shape[:2], bool)
        mask[y : y + height, x : x + width] = True
        masks[name] = Rle.encode(mask)
    drawn = cases.draw_masks(image, (masks['target'], masks['thin']), (masks['found'],), masks['ignore'])
    assert drawn.shape == (150, 320, 3)
    assert (image == 100).all()
    assert tuple(drawn[40, 20]) == cases.GROUND_TRUTH_RGB == tuple(drawn[120, 20])
    assert tuple(drawn[40, 120]) == cases.PREDICTION_RGB
    assert (drawn[40, 40] == 100).all()  # targets are not filled, predictions are
    expected = (1 - cases.PREDICTION_OPACITY) * 100 + cases.PREDICTION_OPACITY * np.array(cases.PREDICTION_RGB)
    assert np.allclose(drawn[40, 140], expected, atol=1)
    assert (drawn[120, 220] < 60).all()
    assert (drawn[75, 300] == 100).all()
    small = cases.draw_masks(image[:30, :40], (), (Rle.encode(np.zeros((30, 40), bool)),))
    assert small.shape == (240, 320, 3)
    assert (small == 100).all()


def made_up_matches(rng, count=40):
    matches = []
    for _ in range(count):
        predicted, targets = rng.integers(0, 5), rng.integers(0, 4)
        scores = np.sort(rng.uniform(0, 1, predicted).round(1))[::-1]
        matches.append(MaskMatch(scores, rng.uniform(0, 1, (predicted, targets)), 0, 1, int(predicted)))
    return matches


def test_calibration():
    matches = made_up_matches(np.random.default_rng(0))
    pairs = [pair for one in matches for pair in zip(one.scores, one.true_positives[:, 0], strict=True)]
    bins, total, error = svg.calibration_bins(matches), 0, 0.0
    for one in bins:
        last = one.high == 1
        those = [(score, right) for score, right in pairs if one.low <= score < one.high or (last and score == 1)]
        total += len(those)
        assert one.count == len(those) > 0
        assert one.high - one.low == pytest.approx(0.1)
        assert one.mean_score == pytest.approx(np.mean([score for score, _ in those]))
        assert one.precision == pytest.approx(np.mean([right for _, right in those]))
        error += len(those) / len(pairs) * abs(one.mean_score - one.precision)
    assert total == len(pairs)
    assert svg.calibration_error(bins) == pytest.approx(error)
    drawn = svg.calibration_svg(bins)
    assert drawn.count('<circle') == drawn.count('class="bar"') == len(bins)
    assert f'>{bins[-1].count}<' in drawn


@pytest.mark.parametrize('iou', [0.5, 0.75])
def test_the_area_under_a_curve_is_ap(iou):
    matches = made_up_matches(np.random.default_rng(1))
    recall, precision = PooledPredictions(matches).precision_recall(iou)
    assert (np.diff(precision) <= 0).all()
    assert (np.diff(recall) > 0).all()
    area = (np.diff(np.append(0, recall)) * precision).sum()
    assert area == pytest.approx(average_precision(matches, iou))
    assert iou in IOUS
    path = re.search('d="M[^"]*"', svg.precision_recall_svg({'a < b': (recall, precision)}))[0]
    assert path.count('H') == len(recall)


def test_plots_of_long_runs_and_of_no_true_positives():
    many = np.linspace(0, 1, 10_000)
    drawn = svg.precision_recall_svg({'a < b': (many, 1 - many), 'none': (np.zeros(0), np.zeros(0))})
    assert len(drawn) < 20_000
    assert 'a &lt; b' in drawn
    assert 'nan' not in drawn
    drawn = svg.calibration_svg([svg.Bin(0, 0.1, 2_000_000, 0, 1), svg.Bin(0.9, 1.0, 12_345, 1.0, 0.5)])
    assert '>2M<' in drawn
    assert '>12k<' in drawn


@pytest.mark.parametrize(
    ('arguments', 'said'),
    [
        ([], 'RUN'),
        (['absent'], 'absent holds no run'),
        (['run', '--out', 'absent/a.html'], 'there is no folder absent'),
        (['run', '--out', '.'], 'cannot write .: it is a folder'),
        (['run', '--out', '/proc/a.html'], 'cannot write /proc/a.html'),
        (['odd'], "odd is of the benchmark 'chess', expected one of roborefit"),
        (['old'], 'old: its header lacks threshold'),
    ],
    ids=ascii,
)
def test_bad_arguments(run, outcomes, arguments, said, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    run(outcomes[:3])
    run([], 'odd', benchmark='chess')
    (tmp_path / 'old').mkdir()
    header = {key: value for key, value in HEADER.items() if key != 'threshold'}
    (tmp_path / 'old' / 'results-00000.jsonl').write_text(json.dumps({'header': header}) + '\n')
    try:
        code = cli.main(['eval', 'report', *arguments])
    except SystemExit as end:  # argparse
        code = end.code
    out, err = capsys.readouterr()
    assert (code, out) == (exit_codes.STORAGE if '/proc' in said else exit_codes.USAGE, '')
    assert said in err
    assert err.count('\n') == 1


def test_in_a_browser(run, report, outcomes, tmp_path):
    """The filter of the link hides cards and marks rows, and a phone shows the page without scrolling sideways."""
    long = {'model': 'a/folder/of_a_model_' * 5, 'prompts': {'': 'x' * 200}}
    report(run(outcomes, 'a_run_with_a_really_long_name_' * 2, **long))
    url = (tmp_path / 'report.html').as_uri()
    with chromium() as browser:
        page = browser.new_page(viewport={'width': 360, 'height': 740})
        page.goto(f'{url}#filter=kind:relation')
        seen = Page(page.content())
        cards = [attributes for tag, attributes in seen.tags if tag == 'article']
        hidden = ['hidden' in one for one in cards]
        assert hidden == ['kind:relation' not in json.loads(one['data-members']) for one in cards]
        assert {*hidden} == {True, False}
        rows = {one['data-member']: one.get('class') for _, one in seen.tags if 'data-member' in one}
        assert rows.pop('kind:relation') == 'chosen'
        assert not any(rows.values())
        root = dict(seen.tags)['html']
        assert root['data-filter'] == 'kind:relation'
        assert 'data-broken' not in root

        page.evaluate("location.hash = 'filter=targets:2%2B'")
        page.wait_for_selector('[data-filter="targets:2+"]')
        assert page.evaluate('document.documentElement.scrollWidth') == 360
        page.screenshot(path=tmp_path / 'shown.png')
    shown = np.asarray(Image.open(tmp_path / 'shown.png').convert('L'))
    assert shown.shape == (740, 360)
    assert shown.std() > 10

"""`instructsam eval compare`: differences, their intervals, and wins and losses, against plain NumPy."""

import json
from dataclasses import replace

import numpy as np
import pytest

from instructsam.core import cli
from instructsam.core.rle import Rle
from instructsam.train.evaluation.figures import metrics
from instructsam.train.evaluation.figures.compare import compare_runs
from instructsam.train.evaluation.figures.intervals import bootstrap_intervals, paired_bootstrap_intervals
from instructsam.train.evaluation.figures.summary import match_outcome, summarise
from instructsam.train.evaluation.query import Order, Outcome, Query
from instructsam.train.evaluation.running.run_folder import read_run

HEADER = {'benchmark': 'inst2seg', 'split': 'test', 'threshold': 0.3, 'empty': 1, 'model': 'one'}
SIDE = 40  # side of the masks, px


def square(x, y, side=10):
    mask = np.zeros((SIDE, SIDE), bool)
    mask[y : y + side, x : x + side] = True
    return mask


def answers(seed, quality):
    """90 outcomes on 30 images: the queries are the same for every seed, the predictions have this `quality`."""
    target_rng, rng, outcomes = np.random.default_rng(0), np.random.default_rng(seed), []
    for number in range(90):
        spots = [
            (int(x), int(y)) for x, y in zip(target_rng.integers(0, 24, 3), target_rng.integers(0, 30, 3), strict=True)
        ]
        targets = spots[: target_rng.integers(4)]
        query = Query(
            f's{number}',
            f'sample {number}',
            tuple(Rle.encode(square(*spot)) for spot in targets),
            groups={'kind': 'far' if number % 4 else 'near', 'novelty': ['pair', 'word'][: number % 3]},
        )
        masks = [Rle.encode(square(x + int(rng.integers(6)), y)) for x, y in targets if rng.random() < quality]
        masks += [Rle.encode(square(*spots[-1]))] * int(rng.random() > quality)
        scores = np.sort(rng.uniform(0.2, 1, len(masks)))[::-1].tolist()
        image = f'{number // 3}.png'
        order = Order(number // 3, number % 3, 3)
        outcomes.append(Outcome(order, image, query, masks=tuple(masks), scores=tuple(scores)))
    return [replace(outcome, timings_ms={'segment': 1.0}) for outcome in outcomes]


@pytest.fixture
def run(write_run):
    """Return a function that writes a run and returns its folder: (name, outcomes, **header)."""
    return lambda name, outcomes, **header: write_run(name, outcomes, {**HEADER, **header})


@pytest.fixture
def compared(run):
    """Return compare_runs as a function of two lists of outcomes, and of header entries of the second."""

    def of(first, second, **header):
        return compare_runs(read_run(run('a', first)), read_run(run('b', second, **header)))

    return of


@pytest.fixture
def pair():
    return answers(1, 0.6), answers(2, 0.9)


def union_parts(outcome, threshold):
    """Intersection and union in px, and the number of predictions, from arrays of pixels."""
    chosen = [mask.decode() for mask, score in zip(outcome.masks, outcome.scores, strict=True) if score > threshold]
    found, true = (
        np.any([np.zeros((SIDE, SIDE), bool), *some], axis=0)
        for some in (chosen, [mask.decode() for mask in outcome.query.ground_truth])
    )
    return (found & true).sum(), (found | true).sum(), len(chosen)


def test_differences_are_those_of_the_figures(compared, pair):
    found = compared(*pair, threshold=0.5)  # each run has its own threshold
    for figure, values in found['all']['figures'].items():
        a, b = (
            summarise(some, threshold, 1.0)['all'][figure] for some, threshold in zip(pair, (0.3, 0.5), strict=True)
        )
        assert values['a'] == pytest.approx(a)
        assert values['b'] == pytest.approx(b)
        assert values['difference'] == pytest.approx(b - a)
        low, high = values['interval']
        assert low < values['difference'] < high
    expected = ['recall', 'mAP', 'AP50', 'gIoU', 'cIoU', 'no_target_accuracy', 'target_accuracy']
    assert list(found['all']['figures']) == expected
    assert found['samples'] == found['all']['samples'] == 90
    assert found['settings'] == {'threshold': [0.3, 0.5]}


def test_against_plain_numpy(compared, pair):
    found = compared(*pair)
    parts = [np.array([union_parts(one, 0.3) for one in some], dtype=float) for some in pair]
    a, b = (np.where(union > 0, shared / np.maximum(union, 1), 1.0) for shared, union, _ in (part.T for part in parts))
    ciou = [100 * part[:, 0].sum() / part[:, 1].sum() for part in parts]
    empty = np.array([not one.query.ground_truth for one in pair[0]])
    figures = found['all']['figures']
    assert figures['gIoU']['difference'] == pytest.approx(100 * (b.mean() - a.mean()))
    assert figures['cIoU']['difference'] == pytest.approx(ciou[1] - ciou[0])
    silent, heard = ([100 * (part[chosen, 2] == 0).mean() for part in parts] for chosen in (empty, ~empty))
    assert figures['no_target_accuracy']['difference'] == pytest.approx(silent[1] - silent[0])
    assert figures['target_accuracy']['difference'] == pytest.approx(heard[0] - heard[1])
    gains = b - a
    assert found['all']['wins'] == (gains > 1e-9).sum() > 0
    assert found['all']['losses'] == (gains < -1e-9).sum() > 0
    assert found['all']['ties'] == (abs(gains) <= 1e-9).sum() > 0
    for what, sign in (('gains', -1), ('losses', 1)):
        order = np.argsort(sign * gains, kind='stable')[:10]
        assert [one['id'] for one in found[what]] == [f's{index}' for index in order]
        assert [(one['a'], one['b']) for one in found[what]] == [pytest.approx((a[index], b[index])) for index in order]
        assert found[what][0]['text'] == f'sample {order[0]}'


def test_by_group(compared, pair):
    found = compared(*pair)
    assert set(found) >= {'by_targets', 'by_kind', 'by_novelty'}
    for group, members in (('kind', {'far', 'near'}), ('novelty', {'pair', 'word'}), ('targets', {'0', '1', '2+'})):
        assert set(found[f'by_{group}']) == members
        both = [summarise(some, 0.3, 1.0)[f'by_{group}'] for some in pair]
        for name, values in found[f'by_{group}'].items():
            a, b = (one[name] for one in both)
            assert values['samples'] == a['queries'] == values['wins'] + values['losses'] + values['ties']
            assert values['figures']['gIoU']['difference'] == pytest.approx(b['gIoU'] - a['gIoU'])
            assert ('mAP' in values['figures']) == (name != '0') == ('target_accuracy' in values['figures'])
    assert sum(one['wins'] for one in found['by_kind'].values()) == found['all']['wins']


def test_intervals_draw_the_same_images_for_both(pair):
    """The figures equal those of queries that are repeated as often as they are drawn."""
    first, second = ([match_outcome(one, 0.3) for one in some] for some in pair)
    images = np.array([one.image for one in pair[0]])
    names = np.unique(images)
    num_draws, plain = 40, []
    for number in range(num_draws):
        rng = np.random.default_rng((0, number))
        drawn = [i for name in names[rng.integers(len(names), size=len(names))] for i in np.flatnonzero(images == name)]
        a, b = (metrics.compute_metrics([some[i] for i in drawn]) for some in (first, second))
        plain.append({name: b[name] - a[name] for name in a})
    found = paired_bootstrap_intervals(first, second, images, num_draws=num_draws)
    assert set(found) == {'mAP', 'AP50', 'AP75', 'recall', 'gIoU', 'cIoU', 'no_target_accuracy', 'target_accuracy'}
    for name, bounds in found.items():
        expected = np.quantile([one[name] for one in plain], [0.025, 0.975]).tolist()
        # In AP, repeated predictions have equal scores, and the precision between them differs.
        assert bounds == pytest.approx(expected, abs=0.01 if 'AP' in name else 1e-9)


def test_a_constant_difference_is_certain(compared, pair):
    """Runs with the same difference in every sample: the figures of each are uncertain, the difference is not."""
    targets = [one for one in pair[0] if len(one.query.ground_truth) == 1]
    half = [replace(one, masks=(Rle.encode(square(0, 0, SIDE)),), scores=(0.9,)) for one in targets]
    whole = [replace(one, masks=one.query.ground_truth, scores=(0.9,)) for one in targets]
    figure = compared(half, whole)['all']['figures']['gIoU']
    assert figure['interval'] == pytest.approx([figure['difference']] * 2)
    first, images = [match_outcome(one, 0.3) for one in pair[0]], [one.image for one in pair[0]]
    near = [*first[:-1], match_outcome(replace(pair[0][-1], masks=(), scores=()), 0.3)]
    (low, high), (least, most) = (
        bootstrap_intervals(first, images)['gIoU'],
        paired_bootstrap_intervals(first, near, images)['gIoU'],
    )
    assert most - least < (high - low) / 2
    assert paired_bootstrap_intervals(first, first, images)['mAP'] == (0, 0)
    assert paired_bootstrap_intervals([], [], []) == {}


def test_samples_that_are_not_in_both(compared, pair):
    def failing(outcomes, *names):
        return [replace(one, masks=(), scores=(), error='no') if one.query.id in names else one for one in outcomes]

    first, second = failing(pair[0], 's8', 's9', 's89'), failing(pair[1], 's7', 's8')
    found = compared(first[:88], second[5:])
    assert [found[key] for key in ('only_a', 'only_b', 'failed_a', 'failed_b')] == [5, 2, 2, 2]
    assert found['samples'] == 88 - 5 - 3 == found['all']['samples']


def test_the_same_run(compared, pair):
    found = compared(pair[0], pair[0])
    assert found['all']['ties'] == 90
    assert found['gains'] == found['losses'] == []
    assert found['settings'] == {}
    assert all(one['difference'] == 0 and one['interval'] == [0, 0] for one in found['all']['figures'].values())


def test_table_and_json(run, pair, tmp_path, capsys):
    target = (Rle.encode(square(9, 9)),)
    query = replace(pair[0][0].query, text='red\x1b[2J [b]mug[/b]', ground_truth=target)
    first = [replace(pair[0][0], query=query, masks=(), scores=()), *pair[0][1:]]
    second = [replace(pair[1][0], query=query, masks=target, scores=(0.9,)), *pair[1][1:80]]
    folders = [str(run('a', first)), str(run('b', second, model='two'))]
    assert cli.main(['eval', 'compare', *folders, '--json', str(tmp_path / 'c.json')]) == 0
    out, err = capsys.readouterr()
    document = json.loads((tmp_path / 'c.json').read_text())
    figure, won = document['all']['figures']['mAP'], document['all']['wins']
    assert err == ''
    assert '\x1b' not in out
    low, high = figure['interval']
    star = '' if low <= 0 <= high else '*'
    for shown in (
        'inst2seg test, 80 samples',
        '10 samples that only A has',
        'model: one -> two',
        f'{figure["a"]:.1f}',
        f'{figure["difference"]:+.1f}{star} {low:+.1f}..{high:+.1f}',
        'N-acc',
        'targets 2+',
        'kind near',
        f'B won {won},',
        r'0.00 -> 1.00 s0: red\x1b[2J [b]mug[/b]',
        'largest losses',
    ):
        assert shown in out
    tables = out[: out.index('B - A in percent')]
    assert all(len(line) <= 80 for line in tables.splitlines() if not line.startswith(('A:', 'B:')))
    assert cli.main(['eval', 'compare', *folders, '--json', '-']) == 0
    out, err = capsys.readouterr()
    assert json.loads(out) == document
    assert 'targets 2+' in err


def changed(outcomes, **changes):
    return [replace(one, query=replace(one.query, **changes)) for one in outcomes]


@pytest.mark.parametrize(
    ('change', 'header', 'said'),
    [
        (lambda some: some, {'split': 'val'}, "a is of split 'test', "),
        (lambda some: some, {'benchmark': 'grefcoco'}, "b of 'grefcoco': only runs of the same samples"),
        (lambda some: some, {'benchmark': 'chess'}, "b is of the benchmark 'chess', expected one of"),
        (lambda some: changed(some[:1], id='x'), {}, 'have no sample in common'),
        (lambda some: changed(some, text='other'), {}, 'sample s0 has a different text in '),
        (lambda some: changed(some, ground_truth=(Rle.encode(square(9, 9)),)), {}, 'has a different ground truth in '),
        (
            lambda some: changed(some, ignore=Rle.encode(square(9, 9))),
            {},
            'sample s0 has a different region to ignore in ',
        ),
        (lambda some: [replace(one, error='no') for one in some], {}, 'failed in one of them'),
        (lambda some: [], {}, 'have no sample in common'),
    ],
    ids=['split', 'benchmark', 'unknown', 'none', 'text', 'ground truth', 'ignore', 'failed', 'empty'],
)
def test_runs_that_cannot_be_compared(run, pair, change, header, said, capsys):
    folders = [str(run('a', pair[0][:6])), str(run('b', change(pair[0][:6]), **header))]
    assert cli.main(['eval', 'compare', *folders]) == 2
    out, err = capsys.readouterr()
    assert out == ''
    assert said in err
    assert err.startswith('instructsam: error: ')
    assert err.count('\n') == 1


@pytest.mark.parametrize(
    ('arguments', 'said'),
    [
        (['a'], 'required: B'),
        (['a', 'absent'], 'absent holds no run'),
        (['a', 'a', '--json', 'absent/c.json'], 'there is no folder absent'),
    ],
    ids=ascii,
)
def test_bad_arguments(run, pair, tmp_path, monkeypatch, capsys, arguments, said):
    monkeypatch.chdir(tmp_path)
    run('a', pair[0][:6])
    try:
        code = cli.main(['eval', 'compare', *arguments])
    except SystemExit as end:  # argparse
        code = end.code
    out, err = capsys.readouterr()
    assert (code, out) == (2, '')
    assert said in err
    assert err.count('\n') == 1

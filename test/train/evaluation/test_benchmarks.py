"""`instructsam eval` from files to figures: every benchmark in both layouts with the built-in model, processes, kills.

The images are those of the demo's bag, whose objects have known masks. The figures are computed again from their
definitions, with masks as arrays.
"""

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from benchmark_files import write_annotations
from benchmark_layouts import LAYOUTS, inst2seg
from PIL import Image
from pycocotools import mask as coco

from instructsam.core import cli, exit_codes
from instructsam.core.rle import Rle
from instructsam.train.evaluation.benchmarks import BENCHMARKS
from instructsam.train.evaluation.evaluate import CODE, code_fingerprint, package_folder
from instructsam.train.evaluation.query import Order, Outcome, Query
from instructsam.train.evaluation.running.progress_bar import with_progress_bar

ROOT = Path(__file__).parents[3]
TIMES = ('latency_ms', 'times')
# (text, properties of the objects that it refers to); the texts have one, several and no target
TEXTS = (
    ('the blue scissors', {'category': 'scissors', 'color': 'blue'}),
    ('all the red apples', {'category': 'apple', 'color': 'red'}),
    ('the purple plate', {'category': 'plate', 'color': 'purple'}),
)


def frames(*numbers):
    """[(RGB, objects)] of frames of the demo's bag; see its README."""
    from rosbags.highlevel import AnyReader

    folder = ROOT / 'instructsam_ros' / 'data' / 'tabletop_bag'
    objects = [json.loads(line)['objects'] for line in (folder / 'truth.jsonl').read_text().splitlines()]
    with AnyReader([folder]) as reader:
        connections = [connection for connection in reader.connections if 'CompressedImage' in connection.msgtype]
        messages = [reader.deserialize(raw, one.msgtype) for one, _, raw in reader.messages(connections=connections)]
    return [(np.array(Image.open(io.BytesIO(messages[n].data))), objects[n]) for n in numbers]


@pytest.fixture(scope='module')
def samples(tmp_path_factory):
    """[(image path, [(text, [mask of each target])])] of three frames."""
    folder = tmp_path_factory.mktemp('images')
    samples = []
    for number, (rgb, objects) in enumerate(frames(0, 9, 18)):
        path = folder / f'frame_{number}.png'
        Image.fromarray(rgb).save(path)
        asked = [(text, [one['mask'] for one in objects if wanted.items() <= one.items()]) for text, wanted in TEXTS]
        samples.append((path, asked))
    numbers = {len(masks) for _, asked in samples for _, masks in asked}
    assert 0 in numbers
    assert 1 in numbers
    assert max(numbers) > 1
    return samples


def by_definition(lines, threshold, empty):
    """Figures of a run's lines, in percent, from arrays of pixels."""
    queries = []
    for line in lines:
        targets, found = ([coco.decode(mask).astype(bool) for mask in line[key]] for key in ('truth', 'masks'))
        counted = ~coco.decode(line['ignore']).astype(bool) if line['ignore'] else True
        is_above = np.array(line['scores'], np.float32) > np.float32(threshold)
        above = [mask for mask, passes in zip(found, is_above, strict=True) if passes]
        here, there = (np.any(some, axis=0) & counted if some else np.zeros((1, 1), bool) for some in (above, targets))
        queries.append(
            {
                'targets': targets,
                'found': found,
                'scores': line['scores'],
                'above': len(above),
                'in': (here & there).sum(),
                'or': (here | there).sum(),
            }
        )
    ious = [query['in'] / query['or'] if query['or'] else empty for query in queries]
    nothing = [query['above'] == 0 for query in queries if not query['targets']]
    whole = sum(query['or'] for query in queries)
    figures = {
        'gIoU': np.mean(ious),
        'cIoU': sum(query['in'] for query in queries) / whole if whole else empty,
        'no_target_accuracy': np.mean(nothing) if nothing else None,
        'P@0.5': np.mean(np.array(ious) >= 0.5),
        'P@0.9': np.mean(np.array(ious) >= 0.9),
        'mAP': np.mean([average_precision(queries, iou) for iou in np.arange(50, 100, 5) / 100]),
        'AP50': average_precision(queries, 0.5),
    }
    return {name: None if value is None else 100 * value for name, value in figures.items()}


def average_precision(queries, iou):
    pool = sorted(
        ((score, q, p) for q, query in enumerate(queries) for p, score in enumerate(query['scores'])),
        key=lambda one: -one[0],
    )
    taken, points, hits = set(), [], 0
    total = sum(len(query['targets']) for query in queries)
    for rank, (_, q, p) in enumerate(pool, 1):
        mask, targets = queries[q]['found'][p], queries[q]['targets']
        overlaps = [
            ((mask & true).sum() / (mask | true).sum(), t) for t, true in enumerate(targets) if (q, t) not in taken
        ]
        best, t = max(overlaps, key=lambda one: one[0], default=(0, None))
        if best >= iou:
            taken.add((q, t))
            hits += 1
        points.append((hits / total, hits / rank))
    area, recall = 0.0, 0.0
    for here, _ in points:
        if here > recall:
            area += (here - recall) * max(precision for reached, precision in points if reached >= here)
            recall = here
    return area


def evaluate(*arguments):
    return cli.main(['eval', *map(str, arguments)])


def lines_of(run):
    """The results in a run's folder, in order, without the headers."""
    lines = [json.loads(line) for file in run.glob('*.jsonl') for line in file.read_text().splitlines()]
    return sorted((line for line in lines if 'header' not in line), key=lambda line: line['order'])


def without_times(document):
    """A JSON document without times and without the path of the run."""
    if isinstance(document, dict):
        return {key: without_times(value) for key, value in document.items() if key not in (*TIMES, 'run')}
    return document


@pytest.mark.parametrize(
    ('name', 'layout'), [(name, layout) for name, both in LAYOUTS.items() for layout in range(len(both))]
)
def test_figures_by_definition(samples, tmp_path, capsys, name, layout):
    data, run, out = tmp_path / 'data', tmp_path / 'run', tmp_path / 'a.json'
    LAYOUTS[name][layout](data, samples)
    split = {'roborefit': 'testA', 'inst2seg': 'test', 'gseval': 'eval'}.get(name, 'val')
    argv = (name, '--data', data, '--split', split, '--results', run, '--json', out)
    assert evaluate(*argv) == 0, capsys.readouterr().err
    document, benchmark, lines = json.loads(out.read_text()), BENCHMARKS[name], lines_of(run)
    wanted = by_definition(lines, benchmark.threshold, benchmark.empty)
    for figure, value in wanted.items():
        assert document['all'][figure] == pytest.approx(value, abs=1e-6), figure
    assert len(lines) == document['all']['queries'] >= 3
    assert document['failed']['queries'] == 0
    assert all(score > benchmark.threshold for line in lines for score in line['scores'])
    low, high = document['intervals']['gIoU']
    assert low <= document['all']['gIoU'] <= high
    prompts = {line['prompt'] for line in lines}
    if name == 'reasonseg':
        assert "Please segment the 'the blue scissors' in the image." in prompts
        assert 'all the red apples Please output the segmentation mask.' in prompts
        assert 'by_form' in document
    if name == 'refcoco':
        assert "Can you segment 'the blue scissors' in the image?" in prompts
    if name == 'gseval':
        assert {'stuff', 'part', 'multi'} <= set(document['by_class'])
    assert 'interval' in capsys.readouterr().out


def test_any_number_of_processes(samples, tmp_path, launch):
    """One, two and three processes give the same JSON except for times; each sample is answered once."""
    inst2seg(tmp_path / 'data', samples)
    documents = []
    for world in (1, 2, 3):
        run, out = tmp_path / f'run{world}', tmp_path / f'{world}.json'
        argv = ('eval', 'inst2seg', '--data', tmp_path / 'data', '--results', run, '--json', out)
        codes, text = launch(*argv, world=world)
        assert codes == [0] * world, text
        assert len(list(run.glob('*.jsonl'))) == world
        ids = [line['id'] for line in lines_of(run)]
        assert len(ids) == len(set(ids)) == 9
        documents.append(without_times(json.loads(out.read_text())))
    assert documents[0] == documents[1] == documents[2]


def test_by_torchrun(samples, tmp_path):
    """The documented command: torchrun has options of its own, and accepts abbreviations of them."""
    data, out = tmp_path / 'data', tmp_path / 'a.json'
    inst2seg(data, samples)
    launcher = [sys.executable, '-m', 'torch.distributed.run', '--standalone', '--nproc-per-node', '2']
    argv = ['eval', 'inst2seg', '--data', data, '--results', tmp_path / 'run', '--json', out]
    done = subprocess.run(
        [*launcher, '-m', 'instructsam.core.cli', *map(str, argv)],
        env={**os.environ, 'OMP_NUM_THREADS': '1'},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(out.read_text())['all']['queries'] == 9
    assert done.stdout.count('cIoU') == 1


@pytest.mark.parametrize(('world', 'again'), [(1, 2), (2, 1), (3, 3)])
def test_a_killed_run_resumes(samples, tmp_path, launch, world, again):
    """SIGKILL of the first process while it writes (torchrun would end the others), then the same command."""
    inst2seg(tmp_path / 'data', samples)
    argv = ('eval', 'inst2seg', '--data', tmp_path / 'data')
    whole, cut = tmp_path / 'whole.json', tmp_path / 'cut.json'
    assert launch(*argv, '--results', tmp_path / 'whole', '--json', whole)[0] == [0]
    place = 'instructsam.train.evaluation.running.run_folder:ResultWriter.add'
    codes, _ = launch(*argv, '--results', tmp_path / 'cut', '--json', cut, world=world, kill=(place, 3))
    assert codes[0] == -9
    assert not cut.exists()
    before = lines_of(tmp_path / 'cut')
    assert before
    with (tmp_path / 'cut' / 'results-00000.jsonl').open('ab') as file:
        file.write(b'{"id": "0-2", "order": [0, 2')  # a line that a kill truncated
    codes, text = launch(*argv, '--results', tmp_path / 'cut', '--json', cut, world=again)
    assert codes == [0] * again, text
    assert 'results-00000.jsonl: the last line was truncated' in text
    lines = [json.dumps(line) for line in lines_of(tmp_path / 'cut')]
    assert all(json.dumps(line) in lines for line in before)
    assert len(lines) == 9
    assert without_times(json.loads(cut.read_text())) == without_times(json.loads(whole.read_text()))


def test_a_finished_run_needs_no_model(samples, tmp_path, capsys, monkeypatch):
    inst2seg(tmp_path / 'data', samples)
    argv = ('inst2seg', '--data', tmp_path / 'data', '--results', tmp_path / 'run', '--limit', 2)
    assert evaluate(*argv) == 0
    said = capsys.readouterr().out
    monkeypatch.setattr('instructsam.train.evaluation.evaluate.load_engine', None)
    assert evaluate(*argv) == 0
    assert capsys.readouterr().out == said
    assert len(lines_of(tmp_path / 'run')) == 2


def test_other_settings_are_another_run(samples, tmp_path, capsys):
    inst2seg(tmp_path / 'data', samples)
    argv = ('inst2seg', '--data', tmp_path / 'data', '--results', tmp_path / 'run', '--limit', 1)
    assert evaluate(*argv) == 0
    for changed, said in (
        (['--threshold', 0.4], 'threshold was 0.3, now 0.4'),
        (['--mode', 'reference'], "mode was 'consistent'"),
        (['--compile', 'off'], "compile was 'auto', now 'off'"),
        (['--limit', 2], 'queries was 1, now 2'),
        (['--prompt', 'find {text}'], 'prompts.'),
    ):
        assert evaluate(*argv, *changed) == 2
        err = capsys.readouterr().err
        assert said in err
        assert 'was started with other settings' in err
        assert '--results' in err
        assert err.count('\n') == 1


def test_other_images_are_another_run(samples, tmp_path, monkeypatch, capsys):
    """The annotations are the same: noisy images must not get the figures of the clean ones. Images may move."""
    monkeypatch.chdir(tmp_path)
    data = tmp_path / 'data'
    inst2seg(data, samples)
    records = json.loads((data / 'test.json').read_text())
    for folder in map(Path, ('clean', 'noisy')):
        folder.mkdir()
    for record in records:
        image = Image.open(record['image'])
        record['image'] = Path(record['image']).name
        image.save(Path('clean') / record['image'])
        image.rotate(180).save(Path('noisy') / record['image'])
    write_annotations(data / 'test.json', records)
    argv = ('inst2seg', '--data', 'data', '--limit', 2)
    assert evaluate(*argv, '--images', 'clean') == 0
    said = capsys.readouterr().out
    assert evaluate(*argv, '--images', 'noisy') == 2
    err = capsys.readouterr().err
    assert 'other images: clean/frame_0.png differs from noisy/frame_0.png' in err
    assert '--results' in err
    Path('clean').rename('moved')
    assert evaluate(*argv, '--images', 'moved') == 0
    assert capsys.readouterr().out == said


def test_failed_samples_are_named_and_asked_again(samples, tmp_path, capsys):
    """A missing image, and run lengths of another size than the image: the other samples are measured."""
    data, out = tmp_path / 'data', tmp_path / 'a.json'
    inst2seg(data, samples)
    records = json.loads((data / 'test.json').read_text())
    there = records[0]['image']
    records[0]['image'] = str(tmp_path / 'later.png')
    records[1]['annotation'][0]['mask'] = {'size': [4, 4], 'counts': [8, 8]}
    write_annotations(data / 'test.json', records)
    argv = ('inst2seg', '--data', data, '--results', tmp_path / 'run', '--json', out)
    assert evaluate(*argv) == exit_codes.SOME_FAILED
    said, document = capsys.readouterr().out, json.loads(out.read_text())
    assert document['failed']['queries'] == 4
    assert document['all']['queries'] == 5
    assert '4 samples FAILED' in said
    assert 'later.png' in said
    assert '[4, 4]' in said
    assert evaluate('inst2seg', '--data', data, '--results', tmp_path / 'three', '--limit', 3) == exit_codes.FAILED
    (tmp_path / 'later.png').write_bytes(Path(there).read_bytes())
    assert evaluate(*argv) == exit_codes.SOME_FAILED
    document = json.loads(out.read_text())
    assert document['failed']['queries'] == 1
    assert document['all']['queries'] == 8


def test_a_broken_line_is_named(samples, tmp_path, capsys):
    inst2seg(tmp_path / 'data', samples)
    argv = ('inst2seg', '--data', tmp_path / 'data', '--results', tmp_path / 'run', '--limit', 2)
    assert evaluate(*argv) == 0
    file = tmp_path / 'run' / 'results-00000.jsonl'
    header, first, second = file.read_text().splitlines()
    file.write_text('\n'.join([header, first[:-9], second]) + '\n')
    capsys.readouterr()
    assert evaluate(*argv) == 2
    assert f'{file}, line 2' in capsys.readouterr().err
    assert file.read_text().count('\n') == 3


@pytest.mark.parametrize(
    ('arguments', 'said'),
    [
        ([], '--data'),
        (['--data', 'absent'], 'absent'),
        (['--data', '.', '--prompt', 'x'], 'lacks the placeholder {text}'),
        (['--data', '.'], 'layout'),
        (['--data', '.', '--limit', '0'], '--limit'),
    ],
    ids=str,
)
def test_bad_arguments(tmp_path, monkeypatch, capsys, arguments, said):
    monkeypatch.chdir(tmp_path)
    try:
        code = evaluate('roborefit', *arguments)
    except SystemExit as end:  # argparse
        code = end.code
    err = capsys.readouterr().err
    assert code == 2
    assert said in err
    assert 'error' in err


def test_every_value_of_the_table_can_be_changed(samples, tmp_path):
    """The IoU of nothing is 1 on Inst2Seg by default and can be set to 0; the other settings can be changed, too."""
    (path, asked), ((_, objects),) = samples[-1], frames(18)
    glasses = ('all the glasses', [one['mask'] for one in objects if one['category'] == 'glass'])  # a third one: 0.07
    inst2seg(tmp_path / 'data', [*samples[:-1], (path, [*asked, glasses])])
    argv, found = ('inst2seg', '--data', tmp_path / 'data'), []
    for empty in (1, 0):
        run, out = tmp_path / f'run{empty}', tmp_path / f'{empty}.json'
        changed = ('--empty', empty, '--threshold', 0.9, '--lowest', 0.05, '--prompt', 'find {text}')
        rest = ('--duplicates', 'suppress', '--results', run, '--json', out)
        assert evaluate(*argv, *changed, *rest) == 0
        lines, document = lines_of(run), json.loads(out.read_text())
        assert document['all']['gIoU'] == pytest.approx(by_definition(lines, 0.9, empty)['gIoU'], abs=1e-6)
        assert all(line['prompt'].startswith('find ') for line in lines)
        assert 0.05 < min(score for line in lines for score in line['scores']) < 0.3
        found.append(document['by_targets']['0']['gIoU'])
    assert found[0] > 0 == found[1]


def test_a_bar_shows_the_figures_so_far(monkeypatch, capsys):
    monkeypatch.setattr(sys.stderr, 'isatty', lambda: True)
    mask = Rle.encode(np.ones((4, 4), bool))
    outcomes = [
        Outcome(Order(0, 0, 2), 'a', Query('0', 'all', (mask,)), masks=(mask,), scores=(0.9,)),
        Outcome(Order(0, 1, 2), 'a', Query('1', 'none', (mask,)), error='gone'),
    ]
    shown = with_progress_bar(iter(outcomes), 1, title='inst2seg test', threshold=0.5, empty=1.0)
    assert list(shown) == outcomes
    assert 'inst2seg test n 1 gIoU 100.0 failed 1' in capsys.readouterr().err


def test_the_fingerprint_of_the_code(tmp_path):
    """Changes with every Python file at any depth, also when files swap places."""
    package = tmp_path / 'package'
    (package / 'room' / 'inner').mkdir(parents=True)
    files = [package / 'a.py', package / 'room' / 'b.py', package / 'room' / 'inner' / 'b.py']
    for number, file in enumerate(files):
        file.write_text(f'{number}')
    (package / 'notes.txt').write_text('1')
    original = code_fingerprint([package])
    for file in files:
        content = file.read_text()
        file.write_text('changed')
        assert code_fingerprint([package]) != original
        file.write_text(content)
    (package / 'notes.txt').write_text('2')
    assert code_fingerprint([package]) == original
    files[1].write_text('2')
    files[2].write_text('1')
    assert code_fingerprint([package]) != original


def test_the_fingerprint_covers_the_code_that_decides_results():
    covered = {file.relative_to(folder.parent) for folder in map(package_folder, CODE) for file in folder.rglob('*.py')}
    for name in (
        'core/engine.py',
        'core/model/grounding.py',
        'engines/concept.py',
        'evaluation/figures/metrics.py',
        'tabletop/scenes/render.py',
    ):
        assert Path(name) in covered


def test_every_row_of_the_table_is_complete():
    for benchmark in BENCHMARKS.values():
        assert benchmark.splits
        assert all('{' in prompt for prompt in benchmark.prompts.values())
        assert 0 < benchmark.threshold < 1
        assert benchmark.empty in (0, 1)

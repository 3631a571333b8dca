"""`instructsam engine` as a whole, against a server on the loopback: resuming, budgets, bad input, exit codes."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from chat_server import chat_server, cuts, fails, says, sends
from engine_server import annotates, make_photos, write_recipe
from pycocotools.coco import COCO

from instructsam.core import exit_codes
from instructsam.core.cli import main
from instructsam.core.folder_lock import FolderLock
from instructsam.train.data.records import parse
from instructsam.train.data_engine.rows import STAGES
from instructsam.train.data_engine.runners.store import StageFile
from instructsam.train.evaluation.readers import read_benchmark

KEY = 'sk-a-secret-of-the-test'


@pytest.fixture(scope='module')
def server():
    with chat_server(annotates) as server:
        yield server


@pytest.fixture
def recipe(tmp_path, checkpoint, server, monkeypatch):
    """Return a function that writes a recipe with changes, and returns its path."""
    monkeypatch.setenv('OPENAI_API_KEY', KEY)
    monkeypatch.chdir(tmp_path)
    make_photos(tmp_path / 'photos')
    return lambda output='run', **changes: write_recipe(tmp_path, output, server.url, checkpoint, **changes)


@pytest.fixture
def engine_command(capsys):
    """Return a function that runs `instructsam engine` and returns the exit code and the lines of stderr."""

    def run(*argv):
        code = main(['engine', *argv])
        return code, capsys.readouterr().err.splitlines()

    return run


def rows(folder, stage='filter'):
    with StageFile(f'{folder}/{stage}.jsonl') as file:
        return list(file)


def without_seconds(path):
    return re.sub(rb'"seconds":[^}]*|"crc32":"\w+"', b'', path.read_bytes())


@pytest.fixture(scope='module')
def undisturbed(tmp_path_factory, checkpoint, server):
    """Return the folder of a run that nothing disturbed."""
    folder = tmp_path_factory.mktemp('undisturbed')
    make_photos(folder / 'photos')
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setenv('OPENAI_API_KEY', KEY)
        monkeypatch.chdir(folder)
        assert main(['engine', 'run', write_recipe(folder, 'whole', server.url, checkpoint)]) == exit_codes.DONE
    return folder / 'whole'


@pytest.fixture
def whole(undisturbed, recipe, tmp_path):
    """Return a copy of it in the folder of the test."""
    return shutil.copytree(undisturbed, tmp_path / 'whole', symlinks=True)


def test_a_run_fills_in_every_stage(whole):
    found = rows(whole)
    assert [row.order for row in found] == list(range(6))
    for row in found:
        assert [each.stage for each in row.stages] == ['images', 'questions', 'objects', 'masks', 'filter']
        assert [each.is_present for each in row.questions] == [True, True, False]
        assert row.questions[0].object_ids == row.questions[1].object_ids == ('o0',)
        assert row.objects[0].box == pytest.approx((12.8, 9.6, 89.6, 76.8))
        assert row.objects[0].mask.size == (96, 128)
        # Two are stated and one is found.
        assert 'counts.other_than_stated' in [each.rule for each in row.rejections if each.question_id == 'q1']


def test_the_key_is_nowhere_in_the_folder(whole):
    for path in whole.rglob('*'):
        if path.is_file():
            assert KEY.encode() not in path.read_bytes()
            assert str(whole.parent).encode() not in path.read_bytes(), path


def test_stages_one_by_one_and_any_number_of_workers_write_the_same(whole, recipe, engine_command, tmp_path):
    for workers in (1, 2):
        path = recipe(f'w{workers}', run={'workers': workers})
        for stage in (*STAGES, 'export'):
            assert engine_command(stage, path)[0] == exit_codes.DONE
        for name in (*(f'{stage}.jsonl' for stage in STAGES), 'export/train.json', 'export/coco.json'):
            assert without_seconds(tmp_path / f'w{workers}' / name) == without_seconds(whole / name), name
        assert rows(f'w{workers}') == rows(whole)


def test_a_run_that_is_done_asks_nothing(whole, recipe, engine_command, server):
    asked = len(server.requests)
    before = {path: path.read_bytes() for path in whole.rglob('*') if path.is_file()}
    code, lines = engine_command('run', recipe('whole'))
    assert code == exit_codes.DONE
    assert 'masks: all 6 rows are there' in lines
    assert len(server.requests) == asked
    assert {path: path.read_bytes() for path in whole.rglob('*') if path.is_file()} == before


def test_redo_makes_rows_anew_from_cached_replies(whole, recipe, engine_command, server):
    asked = len(server.requests)
    path = recipe('whole', filter={'box_side_px': 100})
    code, lines = engine_command('filter', path)
    assert code == exit_codes.USAGE
    assert 'filter.box_side_px was 8.0, now 100.0' in lines[-1]
    assert '--redo' in lines[-1]
    assert engine_command('filter', path, '--redo')[0] == exit_codes.DONE
    assert 'boxes.too_thin' in {each.rule for row in rows(whole) for each in row.rejections}
    assert engine_command('questions', path, '--redo')[0] == exit_codes.DONE
    assert len(server.requests) == asked
    assert not (whole / 'objects.jsonl').exists()


def test_a_stage_needs_the_one_before(recipe, engine_command):
    code, lines = engine_command('masks', recipe())
    assert code == exit_codes.USAGE
    assert lines[-1].endswith('objects.jsonl does not exist: run `instructsam engine objects RECIPE` first')


def test_a_budget_ends_a_run_that_a_larger_one_resumes(whole, recipe, engine_command):
    code, lines = engine_command('run', recipe(budget={'calls': 4}, run={'workers': 1}))
    assert code == exit_codes.SOME_FAILED
    assert any('the budget of 4 calls is used up' in line for line in lines)
    assert len(rows('run', 'questions')) == 4
    code, lines = engine_command('run', recipe(budget={'calls': 4}, run={'workers': 1}))
    assert code == exit_codes.SOME_FAILED  # The earlier part of the run counts.
    assert len(rows('run', 'questions')) == 4
    code, lines = engine_command('run', recipe(budget={'calls': 12, 'money': 5, 'prompt_price': 100}))
    assert code == exit_codes.DONE, lines
    assert any(re.fullmatch(r'spent .*: 12 calls, 120 tokens, 0\.01 in money', line) for line in lines)
    assert rows('run') == rows(whole)


def test_a_budget_that_ends_with_a_stage_leaves_the_next_one(recipe, engine_command):
    code, lines = engine_command('run', recipe(budget={'calls': 6}, objects={'probe': True}))
    assert code == exit_codes.SOME_FAILED, lines
    assert any('the budget of 6 calls is used up' in line for line in lines)
    assert len(rows('run', 'questions')) == 6


def test_failed_rows_are_named_and_tried_again(whole, recipe, engine_command, server):
    server.actions[:] = [annotates, fails(503), annotates, fails(500)]
    code, lines = engine_command('run', recipe(run={'workers': 1}))
    assert code == exit_codes.SOME_FAILED, lines
    assert any('questions: a row failed' in line and 'HTTP 503' in line for line in lines)
    assert 'questions: 2 rows failed; the same command tries them again' in lines
    assert len(rows('run')) == 4
    assert engine_command('run', recipe())[0] == exit_codes.DONE
    assert rows('run') == rows(whole)
    assert (whole / 'export/train.json').read_bytes() == (whole.parent / 'run/export/train.json').read_bytes()


def test_no_server(recipe, engine_command):
    code, lines = engine_command('run', recipe(vlm={'url': 'http://127.0.0.1:9/v1'}))
    assert code == exit_codes.USAGE
    assert 'there is no VLM at http://127.0.0.1:9/v1' in lines[-1]


def test_a_refused_key(recipe, engine_command, server):
    with chat_server(fails(401, {'error': {'message': f'bad key {KEY}'}})) as refusing:
        code, lines = engine_command('run', recipe(vlm={'url': refusing.url}))
    assert code == exit_codes.USAGE
    assert 'set the environment variable OPENAI_API_KEY' in lines[-1]
    assert KEY not in '\n'.join(lines)
    assert len(refusing.requests) <= 9


def test_answers_that_are_no_json_are_rejections(recipe, engine_command):
    with chat_server(says('I see things.')) as server:
        code, lines = engine_command('run', recipe(vlm={'url': server.url}))
    assert code == exit_codes.DONE, lines
    assert [row.rejections[0].rule for row in rows('run')] == ['questions.bad_reply'] * 6
    assert any(line.split() == ['6', 'questions:', 'questions.bad_reply'] for line in lines)
    assert json.loads(Path('run/export/train.json').read_text()) == []


def test_a_cut_reply_is_a_failure_and_no_rejection(recipe, engine_command, server):
    server.actions[:] = [cuts, sends(b'<html>gateway</html>')]
    code, lines = engine_command('run', recipe(run={'workers': 1}))
    assert code == exit_codes.SOME_FAILED, lines
    assert len([line for line in lines if 'questions: a row failed' in line]) == 2
    assert not any('bad_reply' in line for line in lines)


def test_a_wrong_convention_stops_before_the_objects(recipe, engine_command):
    """Thousandths for all of the probe's shapes, none of which they fit."""
    code, lines = engine_command('run', recipe(objects={'probe': True}))
    assert code == exit_codes.USAGE
    assert 'fit no known convention' in lines[-1]
    assert rows('run', 'objects') == []


def test_a_folder_in_use(recipe, engine_command, tmp_path):
    path = recipe()
    with FolderLock(tmp_path / 'run'):
        code, lines = engine_command('run', path)
    assert code == exit_codes.IN_USE
    assert 'is being written by process' in lines[-1]


def test_a_missing_picture_is_a_failed_row(recipe, engine_command, tmp_path):
    path = recipe()
    assert engine_command('images', path)[0] == exit_codes.DONE
    shutil.move(tmp_path / 'photos/3.png', tmp_path / 'away.png')
    code, lines = engine_command('questions', path)
    assert code == exit_codes.SOME_FAILED
    assert any('3.png' in line for line in lines)
    assert len(rows('run', 'questions')) == 5
    shutil.move(tmp_path / 'away.png', tmp_path / 'photos/3.png')
    assert engine_command('questions', path)[0] == exit_codes.DONE
    assert len(rows('run', 'questions')) == 6


def test_new_pictures_need_a_new_run(recipe, engine_command, tmp_path):
    path = recipe()
    assert engine_command('images', path)[0] == exit_codes.DONE
    shutil.copy(tmp_path / 'photos/3.png', tmp_path / 'photos/a.png')
    code, lines = engine_command('images', path)
    assert code == exit_codes.USAGE
    assert 'images.names was' in lines[-1]


@pytest.mark.parametrize(
    ('changes', 'named'),
    [
        ({'masks': {'bakend': 'sam2'}}, 'unknown keys: bakend'),
        ({'masks': {'backend': 'sam1'}}, "backend must be one of sam2, sam3-tracker, concept, got 'sam1'"),
        ({'sources': []}, 'sources is empty'),
        ({'sources': [{'name': 'a', 'images': 'x'}, {'name': 'a', 'images': 'y'}]}, "two sources have the name 'a'"),
        ({'sources': [{'name': 'a'}]}, "source 'a' needs either images"),
        ({'sources': [{'name': 'a', 'images': 7}]}, 'sources[0]: images must be of type str, got 7'),
        ({'vlm': {'key': 'sk'}}, 'unknown keys: key'),
        ({'vlm': {'url': 'ftp://x'}}, 'the URL of the VLM'),
        ({'objects': {'convention': 'qwen'}}, 'convention must be one of gemini'),
        ({'export': {'leave_out': ['CC9']}}, "leave_out names 'CC9'"),
        ({'budget': {'money': 5}}, 'needs prompt_price'),
        ({'budget': {'calls': -5}}, 'calls of the budget must be above 0'),
        ({'filter': {'overlap': 2}}, 'threshold overlap is a share'),
        ({'output': ' '}, 'output is empty'),
        ({'output': 'photos/run'}, "is in the folder of the source 'photos'"),
        ({'export': {'samples': -1}}, 'got 0.5, 10 and -1'),
        ({'masks': {'model': 'nowhere/at/all'}}, 'there is no model folder nowhere/at/all'),
        ({'verify': {'opinion_model': 'nowhere/at/all'}}, 'there is no model folder nowhere/at/all'),
    ],
)
def test_a_recipe_that_cannot_be_used(recipe, engine_command, changes, named):
    code, lines = engine_command('run', recipe(**changes))
    assert code == exit_codes.USAGE
    assert named in lines[-1]
    assert len(lines) == 1  # before the first stage


def test_the_export_is_read_by_training_and_evaluation(whole):
    export = whole / 'export'
    found = {}
    for split in ('train', 'validation'):
        records = json.loads((export / f'{split}.json').read_text())
        found[split] = {record['image'] for record in records}
        for record in records:
            sample = parse(record, export, 10, np.random.default_rng(0)).with_pixels()
            assert [len(turn.targets[0]) for turn in sample.turns] == [1]
            assert sample.turns[0].phrases == ('red thing',)
    assert found['train']
    assert not found['train'] & found['validation']
    benchmark = read_benchmark('inst2seg', export, 'test')
    assert [len(query.ground_truth) for image in benchmark for query in image.queries] == [1, 0] * len(
        found['validation']
    )
    assert not any(query.error for image in benchmark for query in image.queries)
    figures = json.loads((export / 'summary.json').read_text())
    assert figures['questions'] == 18
    assert figures['rejections_by_rule']['filter: counts.other_than_stated'] == 6
    assert figures['images_by_licence'] == {'CC0': 6}
    coco = COCO(str(export / 'coco.json'))
    assert len(coco.getImgIds()) == 6
    assert {coco.loadCats(each['category_id'])[0]['name'] for each in coco.loadAnns(coco.getAnnIds())} == {'red thing'}
    page = (export / 'samples.html').read_text()
    assert 'counts.other_than_stated' in page
    assert 'data:image/jpeg;base64,' in page


def test_an_empty_split_is_named(whole, recipe, engine_command):
    code, lines = engine_command('export', recipe('whole', export={'validation_share': 0}))
    assert code == exit_codes.DONE
    assert lines[-1].endswith(
        'validation.json is empty: raise export.validation_share (0) to have some of the images in it'
    )

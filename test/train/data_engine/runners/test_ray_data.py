"""The runner on Ray: the rows of the local one, also after failures and with a budget. Skipped without the package."""

import pytest

pytest.importorskip('ray', reason='needs the extra engine-ray')

from chat_server import chat_server, fails
from engine_server import annotates, make_photos, write_recipe

from instructsam.core import exit_codes
from instructsam.core.cli import main
from instructsam.train.data_engine.rows import STAGES, Row, StageRecord, to_json
from instructsam.train.data_engine.runners.ray_data import _paid
from instructsam.train.data_engine.runners.store import StageFile
from instructsam.train.vlm.budget import Budget


@pytest.fixture(scope='module')
def server():
    with chat_server(annotates) as server:
        yield server


@pytest.fixture(scope='module', autouse=True)
def ray_stopped():
    import ray

    yield
    ray.shutdown()


@pytest.fixture
def recipe(tmp_path, checkpoint, server, monkeypatch):
    monkeypatch.chdir(tmp_path)
    make_photos(tmp_path / 'photos')
    settings = {'actors': 2, 'gpus_per_actor': 0}
    return lambda name, **changes: write_recipe(tmp_path, name, server.url, checkpoint, ray=settings, **changes)


def rows(folder, stage):
    with StageFile(f'{folder}/{stage}.jsonl') as file:
        return list(file)


def test_rows_are_those_of_the_local_runner(recipe, tmp_path):
    assert main(['engine', 'run', '--ray', recipe('rayed')]) == exit_codes.DONE
    assert main(['engine', 'run', recipe('local')]) == exit_codes.DONE
    for stage in STAGES:
        assert rows('rayed', stage) == rows('local', stage)
    for name in ('train.json', 'coco.json', 'summary.json'):
        assert (tmp_path / 'rayed/export' / name).read_bytes() == (tmp_path / 'local/export' / name).read_bytes()


def test_failed_rows_are_tried_again_by_either_runner(recipe, server, capfd):
    server.actions[:] = [fails(503), fails(503)]
    assert main(['engine', 'questions', recipe('run')]) == exit_codes.USAGE  # There are no images yet.
    assert main(['engine', 'images', '--ray', recipe('run')]) == exit_codes.DONE
    assert main(['engine', 'questions', '--ray', recipe('run')]) == exit_codes.SOME_FAILED
    assert 'questions: 2 rows failed' in capfd.readouterr().err
    assert len(rows('run', 'questions')) == 4
    assert main(['engine', 'questions', recipe('run')]) == exit_codes.DONE
    assert [row.order for row in rows('run', 'questions')] == list(range(6))


def test_a_budget_ends_the_run(recipe, capfd):
    assert main(['engine', 'run', '--ray', recipe('run', budget={'calls': 3})]) == exit_codes.SOME_FAILED
    assert 'the budget of 3 calls is used up' in capfd.readouterr().err
    assert len(rows('run', 'questions')) == 4


def test_a_row_that_passes_a_stage_unchanged_is_paid_once():
    row = Row(0, None, stages=(StageRecord('questions', calls=2, prompt_tokens=30, completion_tokens=4),))
    budget = Budget()
    for stage in ('questions', 'objects'):
        assert list(_paid([{'row': to_json(row), 'error': b''}], stage, budget)) == [row]
    assert (budget.spent.calls, budget.spent.tokens) == (2, 34)


def test_a_refused_key_ends_the_run(recipe, capfd):
    with chat_server(fails(401)) as refusing:
        path = recipe('run', vlm={'url': refusing.url})
        assert main(['engine', 'run', '--ray', path]) == exit_codes.USAGE
    assert 'set the environment variable OPENAI_API_KEY' in capfd.readouterr().err

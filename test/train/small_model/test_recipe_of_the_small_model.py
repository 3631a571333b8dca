"""The recipe of the built-in model: its plan, and two steps of each stage from nothing to the figures."""

import json
from pathlib import Path

import pytest

from instructsam.core import cli
from instructsam.core.errors import InstructSAMError
from instructsam.core.model.config import ModelConfig
from instructsam.train.launch import CLI, OutOfTimeError
from instructsam.train.small_model import run as running
from instructsam.train.small_model.plan import (
    AVERAGED,
    CHAIN,
    CPU,
    GPU,
    QUICK,
    RUNS,
    STAGES,
    plan,
    seconds_left,
    stage_recipe,
)
from instructsam.train.small_model.run import describe, run_steps
from instructsam.train.weights import small_model


@pytest.fixture
def in_process(monkeypatch, tmp_path):
    """Run the commands in this process, which has imported everything; the list of them is returned."""
    called = []

    def launch(argv, *, module, processes, folder, timeout_s):
        called.append((module, *argv))
        if module == CLI:
            code = cli.main([*argv])
            if code:
                raise InstructSAMError(f'exit code {code}')
        else:
            small_model.main(argv)

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(running, 'launch', launch)
    return called


@pytest.mark.usefixtures('opengl')
def test_the_whole_recipe_in_a_quick_version(in_process, tmp_path, monkeypatch):
    """It is stopped before every step, and goes on with that one: each command runs once."""
    launch, steps, lines = running.launch, plan(QUICK), []

    def one_step(argv, **keywords):
        if one_step.is_over:
            raise KeyboardInterrupt
        one_step.is_over = True
        launch(argv, **keywords)

    monkeypatch.setattr(running, 'launch', one_step)
    for _ in steps[:-1]:
        one_step.is_over = False
        with pytest.raises(KeyboardInterrupt):
            run_steps(steps, tmp_path, report=lines.append)
    one_step.is_over = False
    assert run_steps(steps, tmp_path, report=lines.append) == []
    assert len(in_process) == len(steps)
    assert lines[0].startswith(f'[1/{len(steps)}] train 384 px: 0:0')
    assert all(step.done(tmp_path) == 1 for step in steps)
    assert seconds_left(steps, tmp_path) == 0
    for stage, before in zip(STAGES, ('start', *CHAIN, CHAIN[-1]), strict=True):
        settings = json.loads((RUNS / stage / 'run.json').read_text())['settings']
        assert Path(settings['model']).parts[2] == before
    assert ModelConfig.from_folder(RUNS / 'model').image_size == QUICK.side
    figures = json.loads((RUNS / 'tabletop_test.json').read_text())
    assert figures
    called = len(in_process)
    assert cli.main(['train', 'tabletop', '--quick']) == 0
    assert len(in_process) == called


def test_a_dry_run_prints_the_plan_and_writes_nothing(tmp_path, capsys):
    assert cli.main(['train', 'tabletop', str(tmp_path), '--dry-run']) == 0
    lines = capsys.readouterr().out.splitlines()
    for step, line in zip(plan(CPU), lines, strict=False):
        assert step.name in line
        assert ' '.join(step.argv) in line
        assert 'to do' in line
    assert lines[-1].startswith('about ')
    assert not any(tmp_path.iterdir())


def test_what_is_done_is_not_done_again(tmp_path):
    steps = {step.name: step for step in plan(CPU)}
    folder = tmp_path / 'data/tabletop384'
    folder.mkdir(parents=True)
    scenes = steps['train 384 px']
    assert scenes.done(tmp_path) == 0
    (folder / 'train_run.json').write_text(json.dumps({'settings': {}, 'written': {'scenes': CPU.scenes}}))
    assert scenes.done(tmp_path) == 1
    (folder / 'train_run.json').write_text(json.dumps({'settings': {}, 'written': {'scenes': CPU.scenes - 1}}))
    assert scenes.done(tmp_path) == 0  # more of them are asked for
    (folder / 'train.part').write_text('{}\n' * (CPU.scenes // 2))
    assert scenes.done(tmp_path) == 0.5
    assert '50% done' in describe([scenes], tmp_path)[0]


def test_a_stage_is_not_needed_once_a_later_one_is_finished(tmp_path):
    steps = [step for step in plan(CPU) if step.name in STAGES]

    def finish(name):
        final = tmp_path / RUNS / name / 'final'
        final.mkdir(parents=True)
        (final / 'model.safetensors').touch()

    def done():
        return [step.done(tmp_path) for step in steps]

    assert done() == [0] * len(STAGES)
    finish('02_language')
    assert done() == [1, 1, 0, 0, 0, 0, 0]
    finish(AVERAGED[0])  # the other one still has to start from the chain
    assert done() == [1, 1, 0, 0, 0, 1, 0]
    finish(AVERAGED[1])
    assert done() == [1] * len(STAGES)


def test_the_time_that_is_left(tmp_path, monkeypatch):
    """If a step takes longer than expected, so will the others."""
    steps, lines = plan(CPU), []
    clock = iter(range(0, 10**9, 10**3))

    def launch(argv, *, timeout_s, **_):
        if len(lines) == 2:
            assert timeout_s == 60 * 70 - 4000
            raise OutOfTimeError('the time is over')

    monkeypatch.setattr(running, 'launch', launch)
    monkeypatch.setattr(running.time, 'monotonic', lambda: next(clock))
    assert run_steps(steps, tmp_path, minutes=70, report=lines.append) == steps[1:]
    pace = (running.PRIOR_S + 1000) / (running.PRIOR_S + steps[0].seconds)
    assert running.duration(seconds_left(steps[1:], tmp_path, pace)) in lines[1]


def test_every_size_trains_as_many_samples():
    for stage in STAGES:
        one, other = (stage_recipe(stage, size) for size in (CPU, GPU))
        samples = [recipe.steps * recipe.batch_size * size.processes for recipe, size in ((one, CPU), (other, GPU))]
        assert samples[0] == pytest.approx(samples[1], rel=0.01)
        assert stage_recipe(stage, QUICK).steps == 2

"""A run that is killed at any instant can be resumed and ends with the same bits as an uninterrupted one."""

import csv
import json
import os
import random
import runpy
import shutil
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
import torch
from safetensors.torch import load_file

from instructsam.core.cli import main
from instructsam.train.loop.checkpoints import checkpoints, last_checkpoint

STEPS = 5
# Everything that draws random numbers in a step is enabled: dropout in LoRA and SAM3, sampled points, questions.
KEYS = {
    'steps': STEPS,
    'save_every': 2,
    'lora': {'rank': 2, 'dropout': 0.1},
    'ema': 0.9,
    'instruct': {'objective': {'sample_points': 64}},
}
FORWARD = 'instructsam.train.stages.instruct:InstructTraining.forward'


def outcome(output):
    """Return everything that training wrote: weights, LoRA matrices, the optimizer's state, and the log."""
    last = last_checkpoint(output)
    tensors = {file: load_file(output / 'final' / file) for file in ('model.safetensors', 'adapter_model.safetensors')}
    for number, values in torch.load(last / 'optimizer.pt', weights_only=True)['state'].items():
        tensors[number] = values
    with (output / 'log.csv').open() as file:
        rows = [{name: row[name] for name in ('step', 'loss', 'grad_norm')} for row in csv.DictReader(file)]
    return tensors, rows


def assert_same(one, other):
    (one, rows), (other, other_rows) = one, other
    assert rows == other_rows
    assert [row['step'] for row in rows] == [str(step) for step in range(1, STEPS + 1)]
    assert one.keys() == other.keys()
    for key, tensors in one.items():
        assert tensors.keys() == other[key].keys()
        for name, tensor in tensors.items():
            assert torch.equal(tensor, other[key][name]), (key, name)


@pytest.fixture
def few(mix):
    """Return a mixing list of so few records that a run reads them more than once."""
    return [{**mix[0], 'repeat': 1}]


def test_killed_in_one_process(launch, recipe, tmp_path, few):
    codes, text = launch('train', 'run', recipe('whole', data=few, batch_size=2, **KEYS))
    assert codes == [0], text
    killed = recipe('killed', data=few, batch_size=2, **KEYS)
    output = tmp_path / 'killed'
    chance = random.Random(0)
    # In a step; while a checkpoint is written; before it gets its name; before the final model gets its name.
    places = [
        (FORWARD, chance.randint(2, 4)),
        ('torch:save', chance.randint(2, 3)),
        ('os:fsync', 5),
        ('instructsam.train.loop.checkpoints:commit_folder', 1),
    ]
    for place in places:
        codes, text = launch('train', 'run', killed, kill=place)
        assert codes == [-signal.SIGKILL], text
    assert last_checkpoint(output).name == f'checkpoint-{STEPS}'
    assert not (output / 'final').exists()
    codes, text = launch('train', 'run', killed)
    assert codes == [0], text
    assert_same(outcome(tmp_path / 'whole'), outcome(output))


def test_killed_in_two_processes(launch, recipe, tmp_path, few):
    codes, text = launch('train', 'run', recipe('whole', data=few, **KEYS), world=2)
    assert codes == [0, 0], text
    killed = recipe('killed', data=few, workers=2, **KEYS)
    kill_torchrun_at(f'step {random.Random(1).randint(2, 3)}/', killed)
    codes, text = launch('train', 'run', killed, world=2, kill=('torch:save', 2))
    assert codes[0] == -signal.SIGKILL, text
    codes, text = launch('train', 'run', killed, world=2)
    assert codes == [0, 0], text
    assert_same(outcome(tmp_path / 'whole'), outcome(tmp_path / 'killed'))


def kill_torchrun_at(line_start, path):
    """Run the recipe in two processes with torchrun, and kill all of them when a line appears."""
    command = [
        sys.executable,
        '-m',
        'torch.distributed.run',
        '--standalone',
        '--nproc_per_node',
        '2',
        '-m',
        'instructsam.core.cli',
        'train',
        'run',
        str(path),
    ]
    env = {**os.environ, 'OMP_NUM_THREADS': '1'}
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=env, start_new_session=True
    )
    seen = []
    try:
        for line in process.stdout:
            seen.append(line)
            if line.startswith(line_start):
                break
        else:
            pytest.fail(''.join(seen))
    finally:
        kill_tree(process)
        process.stdout.close()
        process.wait()


def kill_tree(process):
    """Kill a process and all its descendants with SIGKILL; torchrun's workers have sessions of their own."""
    parent = psutil.Process(process.pid)
    everyone = [parent, *parent.children(recursive=True)]
    for each in everyone:
        with suppress(psutil.NoSuchProcess):
            each.kill()
    _, alive = psutil.wait_procs(everyone[1:], timeout=60)
    assert not alive


def test_other_settings_or_data_are_refused(recipe, tmp_path, few, capsys):
    """Other steps, or other data under the same name: each is named, and nothing is changed."""
    data = json.loads(Path(few[0]['annotations']).read_text())
    names = [tmp_path / 'own.json', tmp_path / 'moved.json']
    for name in names:
        name.write_text(json.dumps(data))
    images = tmp_path / 'images'
    shutil.copytree(few[0]['images'], images)
    path = recipe('run', data=[{'annotations': str(names[0]), 'images': str(images), 'repeat': 1}], steps=2)
    assert main(['train', 'run', str(path)]) == 0
    outputs = {file: file.stat().st_mtime_ns for file in (tmp_path / 'run').rglob('*')}

    def refused(*changes):
        capsys.readouterr()
        assert main(['train', 'run', str(path), *changes]) == 2
        err = capsys.readouterr().err
        assert err.startswith(f'instructsam: error: {tmp_path}/run was started with other settings (')
        assert err.count('\n') == 1
        assert {file: file.stat().st_mtime_ns for file in (tmp_path / 'run').rglob('*')} == outputs
        return err

    mixed = f'data=[{{annotations: {names[1]}, images: {images}, repeat: %d}}]'
    assert 'steps was 2, now 3' in refused('steps=3')
    said = refused('seed=7', mixed % 2)
    for text in ('seed was 0, now 7', 'data[0].repeat was 1, now 2', f"data[0].annotations was '{names[0]}', now"):
        assert text in said
    names[0].write_text(json.dumps(data[:-1]))
    assert 'data[0].content was' in refused()
    names[0].write_text(json.dumps(data))
    (images / 'a.png').write_bytes((images / 'a.png').read_bytes() + b'x')
    assert 'data[0].image_sizes was' in refused()
    (images / 'a.png').write_bytes((images / 'a.png').read_bytes()[:-1])
    capsys.readouterr()
    file = tmp_path / 'run' / 'run.json'
    record = json.loads(file.read_text())
    for key in ('muon', 'learning_rates.heads', 'data[0].repeat', 'validation', 'trainer'):
        del record['settings'][key]  # as an earlier version leaves out what it does not know
    file.write_text(json.dumps(record))
    outputs[file] = file.stat().st_mtime_ns
    assert 'muon was 0.0, now 1.0' in refused('muon=1')
    assert 'lora was None, now absent; lora.rank was absent, now 2' in refused('lora={rank: 2}')
    capsys.readouterr()
    assert main(['train', 'run', str(path), 'log_every=2', 'phrases_per_call=2', mixed % 1]) == 0
    err = capsys.readouterr().err
    assert 'phrases_per_call was 5, now 2' in err
    assert 'was absent' not in err
    assert f'{tmp_path}/run resumes after step 2; ' in err
    assert 'data[0].annotations was' in err
    assert 'log_every was 1, now 2' in err


def test_a_finished_run_without_checkpoints_stays(recipe, tmp_path, few, capsys):
    path = recipe('run', data=few, steps=1)
    assert main(['train', 'run', str(path)]) == 0
    for folder in checkpoints(tmp_path / 'run'):
        shutil.rmtree(folder)
    files = {file: file.stat().st_mtime_ns for file in (tmp_path / 'run').rglob('*')}
    capsys.readouterr()
    assert main(['train', 'run', str(path)]) == 0
    assert f'{tmp_path}/run is finished\n' in capsys.readouterr().err
    assert {file: file.stat().st_mtime_ns for file in (tmp_path / 'run').rglob('*')} == files


def test_a_refusal_names_a_final_model_only_if_there_is_one(recipe, tmp_path, few, capsys):
    path = recipe('run', data=few, steps=1)
    assert main(['train', 'run', str(path)]) == 0
    final = tmp_path / 'run/final'
    for is_there in (True, False):
        capsys.readouterr()
        assert main(['train', 'run', str(path), 'seed=7']) == 2
        assert (f'with model: {final}' in capsys.readouterr().err) == is_there
        shutil.rmtree(final, ignore_errors=True)


def test_a_truncated_checkpoint_is_not_resumed(launch, recipe, tmp_path, few):
    """It neither prevents resuming nor counts among the checkpoints to keep."""
    path = recipe('run', data=few, keep=1, **{**KEYS, 'steps': 3})
    output = tmp_path / 'run'
    assert launch('train', 'run', path, kill=(FORWARD, 3))[0] == [-signal.SIGKILL]
    cut = {'checkpoint-70': 'model.safetensors', 'checkpoint-71': 'optimizer.pt', 'checkpoint-72': 'trainer_state.json'}
    for name, file in cut.items():
        shutil.copytree(output / 'checkpoint-2', output / name)
        os.truncate(output / name / file, (output / name / file).stat().st_size // 2)
    (output / 'checkpoint-73').mkdir()
    (output / 'partial' / 'checkpoint-3').mkdir(parents=True)
    (output / 'partial' / 'checkpoint-3' / 'model.safetensors.part').write_bytes(b'cut')
    assert last_checkpoint(output).name == 'checkpoint-2'
    codes, text = launch('train', 'run', path)
    assert codes == [0], text
    assert 'run resumes after step 2' in text
    assert 'step 3/3' in text, text
    assert 'step 2/3' not in text, text
    assert [path.name for path in checkpoints(output)] == ['checkpoint-3']


def test_two_at_once(processes, launch, recipe, tmp_path):
    """The second is refused while the first trains, and the first ends with the weights of a lone run."""
    path = recipe('run', steps=3)
    script, log = str(Path(__file__).parents[1] / 'rank.py'), tmp_path / 'first.txt'
    settings = {'ARGV': ['train', 'run', str(path)], 'ENV': {}, 'LOG': str(log), 'KILL': None}
    first = processes.Process(target=runpy.run_path, args=(script, settings))
    first.start()
    while not (tmp_path / 'run' / '.lock').exists():
        assert first.is_alive(), log.read_text()
    codes, text = launch('train', 'run', path, 'seed=3')
    assert codes == [5], text
    assert text.startswith(f'instructsam: error: {tmp_path}/run is being written by process {first.pid} on ')
    assert text.count('\n') == 1
    first.join()
    assert first.exitcode == 0, log.read_text()
    assert launch('train', 'run', recipe('alone', steps=3))[0] == [0]
    weights = [load_file(tmp_path / name / 'final' / 'model.safetensors') for name in ('run', 'alone')]
    assert all(tensor.equal(weights[1][name]) for name, tensor in weights[0].items())

"""Fixtures of the training tests."""

import json
import multiprocessing
import os
import runpy
import shutil
import socket
from multiprocessing.connection import wait
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

REFERENCE = Path(os.environ.get('INSTRUCTSAM_REFERENCE', Path(__file__).parents[1] / 'data' / 'reference'))


@pytest.fixture(autouse=True)
def on_the_cpu(monkeypatch):
    """Hide any GPU: these tests need bit-equal results and two processes at once. test_cuda.py tests GPUs."""
    monkeypatch.setattr('torch.cuda.is_available', lambda: False)
    monkeypatch.setenv('CUDA_VISIBLE_DEVICES', '')  # hides GPUs from the commands that a test starts


@pytest.fixture
def write_run(tmp_path):
    """Return a function (name, outcomes, header) that writes the folder of a run as `instructsam eval` does."""
    from instructsam.train.evaluation.running.run_folder import ResultWriter

    def write(name, outcomes, header):
        with ResultWriter(tmp_path / name, 0, header) as writer:
            for outcome in outcomes:
                writer.add(outcome)
        return tmp_path / name

    return write


@pytest.fixture(scope='session')
def opengl():
    """Skip tests that render, with the reason, if there is no off-screen OpenGL."""
    from instructsam.train.tabletop.scenes import scene

    try:
        scene._renderer(224, 224)
    except RuntimeError as error:
        pytest.skip(f'no off-screen OpenGL here: {error}')


@pytest.fixture(scope='session')
def processes():
    """Return a context that forks processes from one that has imported everything, with one thread each."""
    context = multiprocessing.get_context('forkserver')
    context.set_forkserver_preload(
        ['instructsam.train.loop.run', 'instructsam.train.weights.merge', 'peft', 'tensorboard']
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv('OMP_NUM_THREADS', '1')
        patch.setenv('CUDA_VISIBLE_DEVICES', '')
        context.Process(target=int).start()
    return context


@pytest.fixture
def launch(processes, tmp_path):
    """Return a function `launch(*argv, world=1, kill=None)` that runs an `instructsam` command in `world` processes.

    It returns the exit codes and the printed text. The environment is torchrun's. As soon as one process fails, the
    others are killed. kill: see rank.py; it concerns the first process.
    """

    def start(*argv, world=1, kill=None):
        with socket.socket() as free:
            free.bind(('127.0.0.1', 0))
            port = str(free.getsockname()[1])
        started, logs, script = [], [], str(Path(__file__).with_name('rank.py'))
        for rank in range(world):
            env = (
                {
                    'MASTER_ADDR': '127.0.0.1',
                    'MASTER_PORT': port,
                    'RANK': str(rank),
                    'LOCAL_RANK': str(rank),
                    'WORLD_SIZE': str(world),
                    'LOCAL_WORLD_SIZE': str(world),
                }
                if world > 1
                else {}
            )
            logs.append(tmp_path / f'log_{port}_{rank}.txt')
            settings = {'ARGV': list(map(str, argv)), 'ENV': env, 'LOG': str(logs[-1]), 'KILL': None if rank else kill}
            process = processes.Process(target=runpy.run_path, args=(script, settings))
            process.start()
            started.append(process)
        running = {process.sentinel: process for process in started}
        while running:
            for sentinel in wait(list(running)):
                if running.pop(sentinel).exitcode:
                    for process in running.values():
                        process.kill()
        return [process.exitcode for process in started], '\n'.join(log.read_text() for log in logs)

    return start


@pytest.fixture(scope='session')
def start_model(tmp_path_factory):
    """Return a function `start_model(dropout=None, **changes)` that writes a tiny model folder in the published layout.

    dropout: the dropout rate of every layer that has one; changes: keys of config.json, which make the weights random.
    """

    def make(dropout=None, **changes):
        folder = tmp_path_factory.mktemp('start') / 'model'
        shutil.copytree(REFERENCE / 'checkpoint', folder)
        if dropout is not None:
            file = folder / 'sam3' / 'config.json'
            config = json.loads(
                file.read_text(),
                object_hook=lambda keys: {
                    key: dropout if key.endswith('dropout') else value for key, value in keys.items()
                },
            )
            for part in ('detr_encoder', 'detr_decoder', 'mask_decoder', 'geometry_encoder'):
                config['detector_config'].setdefault(f'{part}_config', {})['dropout'] = dropout
            file.write_text(json.dumps(config))
        if changes:
            from sample_models import random_model

            from instructsam.core.model import checkpoint
            from instructsam.core.model.config import ModelConfig

            file = folder / 'config.json'
            file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))
            checkpoint.save(random_model(ModelConfig.from_folder(folder)), folder)
        return folder

    return make


@pytest.fixture(scope='session')
def mix(tmp_path_factory):
    """Return a mixing list over every type of record: those of the recordings, and the forms that they lack."""
    folder = tmp_path_factory.mktemp('mix')
    rng = np.random.default_rng(0)
    for name, (height, width) in {'a.png': (60, 80), 'b.png': (70, 50)}.items():
        Image.fromarray(rng.integers(0, 255, (height, width, 3), dtype=np.uint8)).save(folder / name)
    square = {'size': [60, 80], 'counts': [600, 30, 4170]}
    polygon = [[5, 5, 40, 5, 40, 30, 5, 30]]

    def seg(image, height, width, *annotations):
        return {'type': 'seg', 'image': image, 'height': height, 'width': width, 'annotation': json.dumps(annotations)}

    forms = [
        {
            'image': 'a.png',
            'height': 60,
            'width': 80,
            'conversations': [
                {'from': 'human', 'value': '<image>\nWhat is this?'},
                {'from': 'gpt', 'value': 'Only noise.'},
            ],
        },
        {
            'image': 'a.png',
            'height': 60,
            'width': 80,
            'mask': [square],
            'conversations': [
                {'from': 'human', 'value': '<image>\nFind the stripe.'},
                {'from': 'gpt', 'value': '<|object_ref_start|>stripe<|object_ref_end|> [SEG].'},
            ],
        },
        {'image': 'a.png', 'height': 60, 'width': 80, 'text': 'the stripe', 'mask': square},
        seg('a.png', 60, 80, {'type': 'OCR', 'text': 'STOP', 'ann_type': 'mask', 'ann': [json.dumps(square)]}),
        seg('b.png', 70, 50, {'type': 'phrase', 'text': 'box', 'ann_type': 'mask', 'ann': [json.dumps(polygon)]}),
        seg('b.png', 70, 50, {'type': 'phrase', 'text': 'lid', 'ann_type': 'bbox', 'ann': ['[3, 4, 20, 30]']}),
        seg('b.png', 70, 50, {'type': 'phrase', 'text': 'cat', 'ann_type': 'mask', 'ann': None}),
    ]
    (folder / 'forms.json').write_text(json.dumps(forms))
    (folder / 'recorded.json').write_text(
        json.dumps(list(json.loads((REFERENCE / 'training' / 'records.json').read_text()).values()))
    )
    return [
        {'annotations': str(folder / 'forms.json'), 'images': str(folder), 'repeat': 2},
        {'annotations': str(folder / 'recorded.json'), 'images': str(REFERENCE)},
    ]


@pytest.fixture
def recipe(tmp_path, mix):
    """Return a function (name, **keys) that writes a recipe of a few steps from a tiny model to tmp_path / name."""

    def write(name, **keys):
        learning_rates = {'language': 1e-3, 'vision': 1e-3, 'projector': 1e-3, 'decoder': 1e-3}
        raw = {
            'stage': 'instruct',
            'model': str(REFERENCE / 'checkpoint'),
            'output': str(tmp_path / name),
            'data': mix,
            'steps': 3,
            'learning_rates': learning_rates,
            'log_every': 1,
            'save_every': 1,
            **keys,
        }
        path = tmp_path / f'{name}.yaml'
        path.write_text(yaml.safe_dump(raw))
        return path

    return write

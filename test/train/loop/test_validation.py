"""Evaluation during a run: losses and previews of held-out samples, without any effect on training."""

import csv
import io
import json
import os
import random
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from instructsam.core.files.image_file import read_image
from instructsam.core.rle import Rle
from instructsam.train import drawing
from instructsam.train.data.dataset import RecordDataset
from instructsam.train.loop import run
from instructsam.train.loop.recipe import LearningRates, Recipe
from instructsam.train.loop.run_log import Progress, drop_rows_after, memory_gib
from instructsam.train.stages import previews
from instructsam.train.stages.previews import evenly
from instructsam.train.stages.settings import BaseSettings
from instructsam.train.tabletop.world.catalog import CATEGORIES
from instructsam.train.tabletop.world.looks import COLORS

FOLDER = Path(os.environ.get('INSTRUCTSAM_REFERENCE', Path(__file__).parents[2] / 'data' / 'reference'))
RECORDS = json.loads((FOLDER / 'training' / 'records.json').read_text())
CELL_HEIGHT = previews.SIDE_PX + 3 * drawing.GAP_PX


@pytest.fixture(scope='module')
def recipes(tmp_path_factory):
    """Return recipe(stage): four steps on the recordings' records, evaluated after the second and the last."""
    folder = tmp_path_factory.mktemp('data')
    kept = [record for name, record in RECORDS.items() if name not in ('bbox', 'too_many')]
    (folder / 'records.json').write_text(json.dumps(kept))
    with (folder / 'scenes.jsonl').open('w') as file:
        for record in kept:
            height, width = read_image(FOLDER / record['image']).shape[:2]
            mask = np.zeros((height, width), bool)
            mask[20:60, 30:80] = True
            item = {'category': next(iter(CATEGORIES)), 'color': next(iter(COLORS)), 'mask': Rle.encode(mask).to_coco()}
            facts = {'image': record['image'], 'height': height, 'width': width, 'objects': [item]}
            file.write(json.dumps(facts) + '\n')
    entries = {
        name: ({'annotations': str(folder / name), 'images': str(FOLDER)},) for name in ('records.json', 'scenes.jsonl')
    }

    def recipe(stage):
        data = entries['scenes.jsonl' if stage == 'pixels' else 'records.json']
        learning_rates = LearningRates(*[1e-3] * 6)
        return Recipe(
            stage,
            str(FOLDER / 'checkpoint'),
            '',
            data,
            validation=data,
            base=BaseSettings(entries['scenes.jsonl']) if stage == 'base' else None,
            steps=4,
            evaluate_every=2,
            log_every=1,
            save_every=100,
            learning_rates=learning_rates,
            max_phrases=2,
        )

    return recipe


def train(recipe, output):
    """Return the weights and random states after a run."""
    random.seed(5)
    np.random.seed(5)
    final = run.run(replace(recipe, output=str(output)))
    return load_file(final / 'model.safetensors'), (random.getstate(), np.random.get_state(), torch.get_rng_state())


def rows_of(path):
    with path.open(newline='') as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize(
    ('stage', 'terms', 'height'),
    [
        ('instruct', {'answer', 'mask_bce', 'mask_dice', 'presence'}, CELL_HEIGHT + 5 * drawing.ROW_PX),
        ('base', {'answer', 'align_fused', 'mask_bce', 'box_l1', 'semantic'}, CELL_HEIGHT + 5 * drawing.ROW_PX),
        ('pixels', {'pixels_category', 'tokens_box'}, 2 * CELL_HEIGHT + 3 * drawing.ROW_PX + drawing.GAP_PX),
    ],
)
def test_evaluation_does_not_affect_training(recipes, tmp_path, stage, terms, height):
    recipe = recipes(stage)
    weights, states = train(replace(recipe, validation=()), tmp_path / 'alone')
    watched, after = train(recipe, tmp_path / 'watched')
    assert [name for name in weights if not torch.equal(weights[name], watched[name])] == []
    assert states[0] == after[0]
    assert torch.equal(states[2], after[2])
    assert all(np.array_equal(a, b) for a, b in zip(states[1], after[1], strict=False))
    alone, seen = (rows_of(tmp_path / name / 'log.csv') for name in ('alone', 'watched'))
    assert [row['loss'] for row in alone] == [row['loss'] for row in seen]
    assert len(seen) == 4

    rows = rows_of(tmp_path / 'watched' / 'validation.csv')
    assert [row['step'] for row in rows] == ['2', '4']
    assert not (tmp_path / 'alone' / 'validation.csv').exists()
    assert {f'val_{term}' for term in terms} <= rows[0].keys()
    assert rows[0] != rows[1]
    for row in rows:
        values = {name: float(value) for name, value in row.items() if name != 'step'}
        assert values.pop('val_loss') == pytest.approx(sum(values.values()), rel=1e-3)
    strips = sorted((tmp_path / 'watched' / 'pictures').iterdir())
    assert [path.name for path in strips] == ['step_000002.png', 'step_000004.png']
    for path in strips:
        image = np.asarray(Image.open(path))
        width = drawing.GAP_PX + previews.COLUMNS * (previews.SIDE_PX + drawing.GAP_PX)
        assert image.shape == (height + drawing.GAP_PX, width, 3)
        assert image.std() > 10


def test_tensorboard(recipes, tmp_path):
    accumulator = pytest.importorskip('tensorboard.backend.event_processing.event_accumulator')
    train(replace(recipes('instruct'), steps=2, learning_rates=LearningRates(decoder=1e-3, language=1e-4)), tmp_path)
    board = accumulator.EventAccumulator(str(tmp_path / 'tensorboard')).Reload()
    tags = set(board.Tags()['scalars'])
    assert {'train/loss', 'train/mask_dice', 'eval/loss', 'eval/mask_dice', 'rate/decoder', 'rate/language'} <= tags
    assert [event.step for event in board.Scalars('train/loss')] == [1, 2]
    assert [event.step for event in board.Scalars('eval/loss')] == [2]
    assert not (tmp_path / 'runs').exists()


def test_validation_is_the_mean_over_its_samples(recipes, tmp_path):
    """The batch size does not matter; with negligible learning rates, the losses are those of the initial model."""
    recipe = replace(recipes('instruct'), steps=1, learning_rates=LearningRates(heads=0.0, decoder=1e-30))
    found = []
    for size in (1, 3):
        train(replace(recipe, batch_size=size), tmp_path / str(size))
        (row,) = rows_of(tmp_path / str(size) / 'validation.csv')
        found.append({name: float(value) for name, value in row.items()})
    assert found[0] == pytest.approx(found[1], rel=1e-3)

    folder = FOLDER / 'checkpoint'
    stage = run.build_stage(recipe, run.start_model(recipe, folder).eval(), folder)
    training, dataset, collate = stage.module(), stage.dataset(recipe.data), stage.collator()
    batch = collate([dataset[index] for index in range(len(dataset))])
    with torch.no_grad():
        whole = {f'val_{k}': float(v) / batch.counts()[count] for k, (v, count) in training(batch).items()}
    assert {name: found[0][name] for name in whole} == pytest.approx(whole, rel=1e-3)


def test_a_limit_of_samples(recipes, tmp_path, monkeypatch):
    read = []
    taken = RecordDataset.__getitem__
    monkeypatch.setattr(RecordDataset, '__getitem__', lambda mix, index: (read.append(index), taken(mix, index))[1])
    alone = replace(recipes('instruct'), steps=1, validation_samples=2)
    train(replace(alone, validation=()), tmp_path / 'a')
    first = len(read)
    train(alone, tmp_path / 'b')
    assert set(read[2 * first :]) == {0, 2}
    assert len(read) == 2 * first + 4


def test_rows_after_a_checkpoint_are_removed(tmp_path):
    path = tmp_path / 'validation.csv'
    assert drop_rows_after(path, 3) == []
    path.write_text('step,val_loss\n2,0.5\n4,0.4\n6,0.3\n')
    assert [row['step'] for row in drop_rows_after(path, 4)] == ['2', '4']
    assert path.read_text().split() == ['step,val_loss', '2,0.5', '4,0.4']


def test_evenly():
    assert evenly(range(10), 5) == [0, 2, 4, 6, 8]
    assert evenly([7, 8], 5) == [7, 8]
    assert evenly([], 5) == []


def test_the_live_line_stays_on_one_line(tmp_path, monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    screen = Terminal()
    monkeypatch.setattr('sys.stderr', screen)
    monkeypatch.setenv('COLUMNS', '60')
    progress, args = Progress(4), SimpleNamespace(output_dir=str(tmp_path))
    state = SimpleNamespace(global_step=0, max_steps=9, is_world_process_zero=True)
    progress.on_train_begin(args, state, None)
    for step in (1, 2):
        state.global_step = step
        progress.on_log(args, state, None, logs={'loss': 1.5, 'learning_rate': 1e-4, 'answer': 0.5, 'mask_bce': 1.0})
    progress.on_log(args, state, None, logs={'eval_loss': 2.5, 'eval_runtime': 100.0})
    progress.on_train_end(args, state, None)
    first, second, evaluated = screen.getvalue().split('\r\033[K')[1:]
    assert first.startswith('step 1/9 loss 1.5 ')
    assert second.startswith('step 2/9')
    assert '\n' not in first + second
    assert max(len(first), len(second)) == 59
    assert evaluated == 'step 2/9 validation loss 2.5\n\n'
    assert len(rows_of(tmp_path / 'log.csv')) == 2
    now, peak = memory_gib()
    assert 0.05 < now <= peak * 1.01

"""The training command: distribution over processes, both stages in a row, and broken records."""

import csv
import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from instructsam.core.cli import main
from instructsam.core.model import checkpoint
from instructsam.core.rle import Rle
from instructsam.train.loop.checkpoints import last_checkpoint
from instructsam.train.tabletop.world.catalog import CATEGORIES
from instructsam.train.tabletop.world.looks import COLORS

PAPER = Path(__file__).parents[3] / 'train' / 'configs' / 'paper'
FSDP = {
    'fsdp': True,
    'fsdp_config': {
        'version': 2,
        'transformer_layer_cls_to_wrap': ['Qwen3VLTextDecoderLayer', 'Qwen3VLVisionBlock', 'Sam3ViTLayer'],
    },
}


def column(output, name):
    with (output / 'log.csv').open() as file:
        return [float(row[name]) for row in csv.DictReader(file)]


def moments(output):
    """Return the optimizer's mean gradients by the number of the parameter."""
    state = torch.load(last_checkpoint(output) / 'optimizer.pt', weights_only=True)['state']
    return {number: values['exp_avg'] for number, values in state.items()}


WAYS = [('accumulated', {'accumulation': 2}, 1), ('ddp', {}, 2), ('fsdp', {'trainer': FSDP}, 2)]


def test_two_samples_are_a_step_however_they_are_spread(launch, recipe, tmp_path, start_model):
    """One batch, accumulation and two processes give the same losses, gradients and parameters."""
    keys = {'model': str(start_model(dropout=0.0)), 'lora': {'rank': 2, 'dropout': 0.0}, 'steps': 3, 'save_every': 9}
    # AdamW takes a step of about the learning rate whatever a gradient's size, even if the gradient is only rounding.
    keys['learning_rates'] = dict.fromkeys(('language', 'vision', 'projector', 'decoder'), 2e-05)
    codes, text = launch('train', 'run', recipe('batch', batch_size=2, **keys))
    assert codes == [0], text
    expected = load_file(tmp_path / 'batch' / 'final' / 'model.safetensors')
    start = load_file(Path(keys['model']) / 'model.safetensors')
    # The run has changed the weights by more than the tolerance below.
    assert sum(float((expected[name] - start[name]).abs().max()) > 2.5e-5 for name in start) > 100
    gradients = moments(tmp_path / 'batch')
    for name, changes, world in WAYS:
        codes, text = launch('train', 'run', recipe(name, **keys, **changes), world=world)
        assert codes == [0] * world, text
        output = tmp_path / name
        for term in ('loss', 'answer', 'mask_bce', 'mask_dice', 'presence', 'grad_norm'):
            assert column(output, term) == pytest.approx(column(tmp_path / 'batch', term), rel=1e-4, abs=1e-6), term
        found = moments(output)
        assert found.keys() == gradients.keys()
        largest = max(float(gradient.abs().max()) for gradient in gradients.values())
        for number, gradient in gradients.items():
            torch.testing.assert_close(found[number], gradient, rtol=1e-3, atol=1e-4 * largest)
        for parameter, tensor in load_file(output / 'final' / 'model.safetensors').items():
            torch.testing.assert_close(tensor, expected[parameter], rtol=0, atol=1e-5)


def test_stage_1_then_stage_2(launch, tmp_path, mix):
    """A dry run of the published recipes on every type of record, merged by hand in between."""
    data = f'data={json.dumps(mix)}'
    quick = ['steps=2', 'workers=0', 'log_every=1', 'lora.rank=4', 'instruct.objective.sample_points=64']
    start = Path(mix[1]['images']) / 'checkpoint'
    one, merged, two = tmp_path / 'one', tmp_path / 'merged', tmp_path / 'two'
    by_hand = [*quick, 'lora.merge=false']
    codes, text = launch(
        'train', 'run', PAPER / 'stage1.yaml', f'model={start}', f'output={one}', data, *by_hand, world=2
    )
    assert codes == [0, 0], text
    assert text.count('the trained model is in') == 1, text
    assert launch('train', 'run', PAPER / 'stage2.yaml', f'model={one}/final', f'output={two}', data, *quick)[0] == [2]
    codes, text = launch('train', 'merge', one / 'final', merged)
    assert codes == [0], text
    codes, text = launch('train', 'run', PAPER / 'stage2.yaml', f'model={merged}', f'output={two}', data, *quick)
    assert codes == [0], text
    trained = checkpoint.load(two / 'final', 'cpu', torch.float32).state_dict()  # the recipe merges the LoRA matrices
    before = load_file(start / 'model.safetensors')
    changed = {name for name, tensor in before.items() if not torch.equal(tensor, trained[name])}
    assert 'model.language_model.layers.0.self_attn.q_proj.weight' in changed
    assert 'model.language_model.embed_tokens.weight' in changed
    assert any(name.startswith('model.visual.blocks.') for name in changed)
    frozen = ('.mlp.', '.k_norm.', '_layernorm.', 'language_model.norm.')
    assert not [n for n in changed if n.startswith('model.language_model.') and any(part in n for part in frozen)]
    assert not [n for n in changed if n.startswith('model.grounding_model.model.vision_encoder.')]


def write_text_and_stripe(folder):
    """Write a record whose answer is text alone, and one of a stripe; return the size and the mask of the latter."""
    Image.new('RGB', (64, 64), 'grey').save(folder / 'a.png')
    size, mask = {'image': 'a.png', 'height': 64, 'width': 64}, {'size': [64, 64], 'counts': [600, 30, 3466]}
    turn = [{'from': 'human', 'value': '<image>\nWhat is this?'}, {'from': 'gpt', 'value': 'Only grey.'}]
    records = [{**size, 'conversations': turn}, {**size, 'text': 'the stripe', 'mask': mask}]
    (folder / 'records.json').write_text(json.dumps(records))
    return size, mask


def test_processes_may_have_different_terms(launch, tmp_path, start_model):
    """In stage base, a process whose sample has no phrase has no terms of the detector."""
    size, mask = write_text_and_stripe(tmp_path)
    scene = {**size, 'objects': [{'category': 'mug', 'color': 'red', 'mask': mask}]}
    (tmp_path / 'scenes.jsonl').write_text(json.dumps(scene) + '\n')
    parts = ('language', 'vision', 'projector', 'decoder', 'image_encoder', 'heads')
    recipe = {
        'stage': 'base',
        'model': str(start_model()),
        'output': str(tmp_path / 'run'),
        'data': [{'annotations': str(tmp_path / 'records.json'), 'images': str(tmp_path)}],
        'base': {'scenes': [{'annotations': str(tmp_path / 'scenes.jsonl'), 'images': str(tmp_path)}]},
        'learning_rates': dict.fromkeys(parts, 1e-5),
        'steps': 2,
        'log_every': 1,
        'save_every': 9,
    }
    (tmp_path / 'recipe.yaml').write_text(json.dumps(recipe))
    codes, text = launch('train', 'run', tmp_path / 'recipe.yaml', world=2)
    assert codes == [0, 0], text
    assert all(value > 0 for name in ('answer', 'mask_dice') for value in column(tmp_path / 'run', name))


@pytest.mark.parametrize('deep_supervision', [False, True])
def test_sharded_processes_may_have_no_phrase(launch, tmp_path, start_model, deep_supervision):
    """With FSDP, a process whose sample has no phrase runs the same modules as the others, and changes no loss."""
    write_text_and_stripe(tmp_path)
    recipe = {
        'stage': 'instruct',
        'model': str(start_model(dropout=0.0)),
        'data': [{'annotations': str(tmp_path / 'records.json'), 'images': str(tmp_path)}],
        'instruct': {'deep_supervision': deep_supervision},
        'learning_rates': dict.fromkeys(('language', 'vision', 'projector', 'decoder', 'image_encoder'), 1e-5),
        'lora': {'rank': 2, 'dropout': 0.0},
        'steps': 2,
        'log_every': 1,
        'save_every': 9,
    }
    for name, world, changes in (('batch', 1, {'batch_size': 2}), ('fsdp', 2, {'trainer': FSDP})):
        file = tmp_path / f'{name}.yaml'
        file.write_text(json.dumps({**recipe, 'output': str(tmp_path / name), **changes}))
        codes, text = launch('train', 'run', file, world=world)
        assert codes == [0] * world, text
    for term in ('loss', 'answer', 'mask_bce', 'mask_dice', 'presence', 'grad_norm'):
        found, expected = (column(tmp_path / name, term) for name in ('fsdp', 'batch'))
        assert found == pytest.approx(expected, rel=1e-4, abs=1e-6), term


def broken(folder, count):
    """Write three good records, one of each type of fault, and `count` more broken ones."""
    mask = {'size': [60, 80], 'counts': [0, 4800]}
    fine = {'image': 'a.png', 'height': 60, 'width': 80, 'text': 'the stripe', 'mask': mask}
    many = [json.dumps(mask)] * 11
    faults = [
        {**fine, 'image': 'absent.png'},
        {**fine, 'mask': {'size': [80, 60], 'counts': [0, 4800]}},
        {**fine, 'height': 61, 'mask': {'size': [61, 80], 'counts': [0, 4880]}},
        {'image': 'a.png', 'height': 60, 'width': 80, 'annotation': '[]'},
        {'image': 'a.png', 'height': 60, 'width': 80, 'annotation': [{'type': 'phrase', 'text': 'many', 'ann': many}]},
        {**fine, 'mask': {'size': [60, 80], 'counts': 'nonsense'}},
    ]
    (folder / 'records.json').write_text(json.dumps([fine] * 3 + faults + faults[:1] * count))
    return [{'annotations': str(folder / 'records.json'), 'images': None}]


@pytest.mark.parametrize('workers', [0, 2])
def test_broken_records_are_skipped_until_they_are_too_many(launch, recipe, tmp_path, mix, workers):
    images = {'images': mix[0]['images']}
    few = [{**broken(tmp_path, 0)[0], **images}]
    codes, text = launch('train', 'run', recipe('few', data=few, batch_size=9, steps=1, workers=workers))
    assert codes == [0], text
    assert text.count('skipped record') == 6, text
    for reason in (
        'absent.png',
        'a mask of size [80, 60] on an image of [60, 80]',
        'is 80 x 60 px, the record says',
        'annotation must be a non-empty list',
        'more than 10 instances',
        'counts hold',
    ):
        assert reason in text, text
    many = [{**broken(tmp_path, 8)[0], **images}]
    codes, text = launch('train', 'run', recipe('many', data=many, batch_size=17, steps=1, workers=workers))
    lines = [line for line in text.splitlines() if line.startswith('instructsam')]
    assert codes == [2], text
    assert len(lines) == 1, text
    assert 'Traceback' not in text, text
    assert lines[0].startswith('instructsam: error: 11 of ')
    assert 'records are broken' in lines[0]


def test_another_configuration_is_refused(recipe, tmp_path, start_model, capsys):
    """Another K, LoRA rank or set of trained parts: the error names the difference, and the run stays untouched.

    This holds without the run's record too, in which all settings are compared.
    """
    assert main(['train', 'run', str(recipe('run', steps=1, lora={'rank': 2}))]) == 0
    run = tmp_path / 'run'
    before = {path: path.stat().st_mtime_ns for path in run.rglob('*') if path.name != 'run.json'}
    other = {
        f'model={start_model(max_seg_nums=4)}': ('model_content was', 'mask_queries is [10, 64] there, [4, 64] here'),
        'lora.rank=3': ('lora.rank was 2, now 3', 'lora_A.weight is [2, 64] there, [3, 64] here'),
        'learning_rates.vision=0': ('learning_rates.vision was 0.001, now 0.0', 'trains other parts of the model'),
    }
    for has_record in (True, False):
        if not has_record:
            (run / 'run.json').unlink()
        for change, messages in other.items():
            capsys.readouterr()
            steps = 1 if has_record else 2
            assert main(['train', 'run', str(recipe('run', steps=steps, lora={'rank': 2})), change]) == 2
            lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith('instructsam')]
            assert len(lines) == 1, lines
            assert messages[not has_record] in lines[0]
    assert {path: path.stat().st_mtime_ns for path in run.rglob('*') if path in before} == before


def test_a_loss_that_is_not_finite_ends_the_run(launch, recipe, tmp_path, start_model):
    """It says the step and the term, and no checkpoint holds the weights."""
    rates = dict.fromkeys(('language', 'vision', 'projector', 'decoder'), 1e3)
    path = recipe('diverged', model=str(start_model(dropout=0.0)), steps=4, save_every=1, learning_rates=rates)
    codes, text = launch('train', 'run', path)
    assert codes == [2], text
    assert re.search(r'step \d: the loss \w+ is nan|which was to be written to .* not finite', text), text
    for folder in (tmp_path / 'diverged').glob('checkpoint-*'):
        assert all(tensor.isfinite().all() for tensor in load_file(folder / 'model.safetensors').values())


def test_less_data_than_a_batch_is_refused(recipe, capsys):
    assert main(['train', 'run', str(recipe('large', batch_size=500))]) == 2
    assert re.search(r'data has \d+ samples, and batch_size is 500: not one batch is full', capsys.readouterr().err)


def test_parts_that_no_loss_depends_on_are_refused(recipe, tmp_path, capsys):
    """Stage `pixels` has no use for the language model; both parts that are trained are named."""
    rle = Rle.encode(np.ones((64, 64), bool)).to_coco()
    item = {'category': next(iter(CATEGORIES)), 'color': next(iter(COLORS)), 'mask': rle}
    Image.new('RGB', (64, 64)).save(tmp_path / 'scene.png')
    (tmp_path / 'scenes.jsonl').write_text(
        json.dumps({'image': 'scene.png', 'height': 64, 'width': 64, 'objects': [item]})
    )
    data = [{'annotations': str(tmp_path / 'scenes.jsonl'), 'images': str(tmp_path)}]
    rates = {'language': 1e-3, 'heads': 1e-3}
    path = recipe('run', stage='pixels', data=data, learning_rates=rates)
    assert main(['train', 'run', str(path)]) == 2
    assert "no loss of stage 'pixels' depends on what is trained (heads, language)" in capsys.readouterr().err

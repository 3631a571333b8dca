"""Recipes, and the errors of those that cannot be used: one line, exit code 2."""

import json
from pathlib import Path

import pytest
import yaml

from instructsam.core.cli import main
from instructsam.train.data.collate import Collator
from instructsam.train.loop.recipe import RecipeError, read_recipe

CONFIGS = Path(__file__).parents[3] / 'train' / 'configs'

SHIPPED = [path for path in sorted(CONFIGS.rglob('*.yaml')) if 'stage' in yaml.safe_load(path.read_text())]


@pytest.mark.parametrize('path', SHIPPED, ids=lambda path: path.stem)
def test_shipped_recipes_can_be_read(path):
    read_recipe(path)


def test_the_published_stages():
    one, two = (read_recipe(CONFIGS / 'paper' / f'stage{stage}.yaml') for stage in (1, 2))
    assert (one.learning_rates.language, one.learning_rates.decoder, one.batch_size * one.accumulation) == (
        5e-6,
        1e-5,
        2,
    )
    assert (two.learning_rates.language, two.learning_rates.decoder, two.batch_size * two.accumulation) == (
        2e-6,
        5e-6,
        1,
    )
    for recipe in (one, two):
        rates = recipe.learning_rates
        assert rates.vision == rates.projector == rates.language
        assert rates.image_encoder == 0
        assert recipe.betas == (0.9, 0.999)
        assert recipe.epochs == 1
        assert (recipe.lora.rank, recipe.lora.alpha, recipe.lora.dropout) == (64, 16, 0.05)
        assert recipe.max_pixels == 8192 * 32 * 32
        assert recipe.instruct.objective.sample_points == 12544
    assert two.model == f'{one.output}/final'
    assert one.lora.merge
    assert [entry['repeat'] for entry in one.data] == [10] * 6 + [1] * 9
    assert [entry['repeat'] for entry in two.data] == [10] + [2] * 6 + [1] * 2
    assert json.loads((CONFIGS / 'paper' / 'deepspeed_zero1.json').read_text())['zero_optimization']['stage'] == 1


def test_max_pixels_caps_the_limit_of_the_model_folder(mix):
    from instructsam.core.model.config import ModelConfig

    folder = Path(mix[1]['images']) / 'checkpoint'
    config = ModelConfig.from_folder(folder)
    own = Collator.from_folder(folder, config).preprocessor
    capped = Collator.from_folder(folder, config, max_pixels=own.max_pixels // 2).preprocessor
    assert capped.max_pixels == own.max_pixels // 2
    assert capped.min_pixels == own.min_pixels
    assert Collator.from_folder(folder, config, max_pixels=2 * own.max_pixels).preprocessor == own


CHANGES = [
    ('stepps=3', 'unknown keys: stepps'),
    ('learning_rates.speech=1', 'unknown keys: speech'),
    ('lora.dept=3', 'unknown keys: dept'),
    ('steps=many', "steps must be of type int, got 'many'"),
    ('steps=1.5', 'steps must be of type int, got 1.5'),
    ('initialise=1', 'initialise must be of type bool, got 1'),
    ('warmup_ratio=some', "warmup_ratio must be a finite number, got 'some'"),
    ('warmup_ratio=1', 'warmup_ratio must be from 0 to 0.999, got 1'),
    ('clip_norm=true', 'clip_norm must be a finite number, got True'),
    ('learning_rates=3', 'learning_rates must be a mapping of keys, got 3'),
    ('betas=0.9', 'betas must be a list of 2, got 0.9'),
    ('betas=[0.9]', 'betas must be a list of 2'),
    ('betas=[0.9, x]', "betas[1] must be a finite number, got 'x'"),
    ('lora={targets: q_proj}', "targets must be a list, got 'q_proj'"),
    ('data=[3]', 'data[0] must be of type dict, got 3'),
    ('data=[]', 'data is empty'),
    ('stage=third', "stage must be one of pixels, base, instruct, got 'third'"),
    ('dtype=float16', "dtype must be one of float32, bfloat16, got 'float16'"),
    ('instruct.objective.presence_target=two', "presence_target must be one of one, soft_dice, got 'two'"),
    ('batch_size=0', 'batch_size must be from 1 to 2147483647, got 0'),
    ('lora={rank: 0}', 'rank must be from 1 to 4096, got 0'),
    ('lora={rank: 4097}', 'rank must be from 1 to 4096, got 4097'),
    ('lora={targets: [q_proj, "(a+)+$"]}', "targets must be names of modules such as q_proj, got '(a+)+$'"),
    ('steps', "'steps' is not of the form key=value"),
    ('steps=[', "'steps=['"),
    ('model=nowhere', 'there is no model folder nowhere'),
    ('data=[{annotations: nothing.json, images: .}]', 'there is no file nothing.json'),
    ('data=[{annotations: nothing.json, images: ., weight: 2}]', 'unknown keys: weight'),
    ('lora={targets: [nothing]}', 'lora.targets nothing'),
    ('learning_rates={}', 'nothing is trained'),
    ('schedule=square', 'trainer: square is not a valid SchedulerType'),
    ('trainer={warp: 9}', "trainer: TrainingArguments.__init__() got an unexpected keyword argument 'warp'"),
    ('trainer={tf32: true}', 'trainer: '),
    ('trainer={fsdp: true}', 'start them with torchrun'),
    ('trainer={save_total_limit: 3}', 'set keep'),
    ('base.masks=false', 'the section base is for stage base, and this recipe is for stage instruct'),
    ('instruct.pointing=1', 'instruct: pointing needs deep_supervision'),
    ('instruct.mode=fast', 'instruct: mode must be one of consistent, causal, autoregressive'),
    ('learning_rates.decoder=.nan', 'decoder must be a finite number, got nan'),
    ('learning_rates.decoder=1e9', 'decoder must be from 0 to 1000, got 1000000000.0'),
    (f'weight_decay=1{"0" * 400}', 'weight_decay must be a finite number, got 1000'),
    ('betas=[0.9, 1.5]', 'betas must be from 0 to less than 1, got [0.9, 1.5]'),
    ('seed=-1', 'seed must be from 0 to 2147483647, got -1'),
    ('lora={dropout: 1}', 'dropout must be from 0 to 0.99, got 1.0'),
    (f'stage={"x" * 5000}', '(5,002 characters)'),
    ('steps=!!int ""', 'is not valid YAML'),
    (f'steps={"[" * 5000}', 'is not valid YAML'),
    ('steps=2001-99-99', 'is not valid YAML: month must be in 1..12'),
    (f'data=[{{annotations: {"a" * 300}, images: .}}]', 'there is no file aaa'),
    (
        'data=[{annotations: a.json, images: ., repeat: 9999999999}]',
        'repeat must be a whole number from 1 to 1,000,000',
    ),
    ('trainer={run_name: 2026-11-28}', 'trainer has a value that JSON lacks (Object of type date is not JSON'),
    ('trainer={fsdp_config: {x: .nan}}', 'trainer has a value that JSON lacks (Out of range float'),
    ('trainer={seed: 3}', "multiple values for keyword argument 'seed'"),
]


@pytest.mark.parametrize(('change', 'message'), CHANGES, ids=[change[:40] for change, _ in CHANGES])
def test_one_line_says_what_is_wrong(recipe, capsys, change, message):
    assert main(['train', 'run', str(recipe('run')), change]) == 2
    printed = capsys.readouterr().err
    lines = [line for line in printed.splitlines() if not line.startswith('[transformers]')]
    assert len(lines) == 1, printed
    assert lines[0].startswith('instructsam: error: '), printed
    assert message in lines[0], printed


def test_files_that_are_not_recipes(tmp_path, capsys):
    contents = (
        ('a', b'stage: [', 'not valid YAML'),
        ('b', b'word', 'is not a mapping of keys'),
        ('c', b'\xff\xfe\x00', 'is not'),
        ('d', b'stage: base\n', 'missing 3 required'),
    )
    for name, content, message in contents:
        (tmp_path / name).write_bytes(content)
        assert main(['train', 'run', str(tmp_path / name)]) == 2
        printed = capsys.readouterr().err
        assert len(printed.splitlines()) == 1
        assert message in printed
    for special in ('/dev/zero', str(tmp_path)):
        assert main(['train', 'run', special]) == 2
        assert 'expected a regular file' in capsys.readouterr().err
    assert main(['train', 'run', str(tmp_path / 'absent')]) == 2
    assert 'cannot be read: No such file' in capsys.readouterr().err


def test_numbers_that_yaml_reads_as_text(tmp_path, recipe):
    path = recipe('run')
    raw = {**yaml.safe_load(path.read_text()), 'learning_rates': {'decoder': '1e-4'}}
    path.write_text(yaml.safe_dump(raw))
    assert read_recipe(path, ['clip_norm=5e-1']).learning_rates.decoder == 1e-4
    with pytest.raises(RecipeError, match=r'a learning rate under learning_rates\.language'):
        read_recipe(path, ['lora.rank=8'])


def test_settings_that_deep_supervision_ignores_are_refused(recipe):
    path = recipe('run', instruct={'deep_supervision': True})
    with pytest.raises(RecipeError, match='only presence_loss and presence_target of objective'):
        read_recipe(path, ['instruct.objective.bce_loss=3'])
    changes = ['instruct.objective.presence_loss=2', 'instruct.objective.presence_target=soft_dice']
    objective = read_recipe(path, changes).instruct.objective
    assert objective.presence_loss == 2.0

"""`instructsam train export` writes the same model, or the average of several, in a smaller type."""

import json

import torch
from safetensors.torch import load_file
from sample_models import random_model

from instructsam.core.builtin import FOLDER
from instructsam.core.cli import main
from instructsam.core.model import checkpoint
from instructsam.core.model.config import ModelConfig


def test_half_the_size_and_the_same_model(tmp_path, capsys):
    model = random_model(ModelConfig.from_folder(FOLDER / 'tabletop'))
    checkpoint.save(model, tmp_path / 'model', FOLDER / 'tabletop')
    assert main(['train', 'export', str(tmp_path / 'model'), str(tmp_path / 'small')]) == 0
    sizes = [(tmp_path / name / 'model.safetensors').stat().st_size for name in ('model', 'small')]
    assert sizes[1] < 0.52 * sizes[0]
    stored = load_file(tmp_path / 'small' / 'model.safetensors')
    for name, tensor in model.state_dict().items():
        assert torch.equal(stored[name], tensor.half())
    assert (tmp_path / 'small' / 'tokenizer.json').is_file()
    checkpoint.load(tmp_path / 'small', torch.device('cpu'), torch.float32)
    capsys.readouterr()
    assert main(['train', 'export', str(tmp_path / 'model'), str(tmp_path / 'small')]) == 2
    assert 'already exists' in capsys.readouterr().err


def test_the_average_of_three_models(tmp_path, capsys):
    config = ModelConfig.from_folder(FOLDER / 'tabletop')
    models = [random_model(config, seed) for seed in range(3)]
    folders = [str(tmp_path / str(seed)) for seed in range(3)]
    for model, folder in zip(models, folders, strict=True):
        checkpoint.save(model, folder, FOLDER / 'tabletop')
    first, *others = folders
    out = tmp_path / 'average'
    assert main(['train', 'export', first, str(out), '--average', *others, '--dtype', 'float32']) == 0
    stored = load_file(out / 'model.safetensors')
    for name in stored:
        torch.testing.assert_close(stored[name], torch.stack([model.state_dict()[name] for model in models]).mean(0))
    config_file = tmp_path / '2' / 'config.json'
    config_file.write_text(json.dumps(json.loads(config_file.read_text()) | {'note': 'another'}))
    capsys.readouterr()
    assert main(['train', 'export', first, str(tmp_path / 'other'), '--average', *others]) == 2
    assert 'cannot be averaged: they have different configurations' in capsys.readouterr().err
    assert not (tmp_path / 'other').exists()


def test_an_average_beyond_the_precision_is_refused(tmp_path, capsys):
    model = random_model(ModelConfig.from_folder(FOLDER / 'tabletop'))
    model.model.mask_queries[0, 0] = 1e6
    checkpoint.save(model, tmp_path / 'model', FOLDER / 'tabletop')
    argv = ['train', 'export', str(tmp_path / 'model'), str(tmp_path / 'out'), '--average', str(tmp_path / 'model')]
    assert main(argv) == 2
    assert 'the average: model.mask_queries has values that are not finite (in float16)' in capsys.readouterr().err
    assert not (tmp_path / 'out').exists()
    assert main([*argv, '--dtype', 'float32']) == 0

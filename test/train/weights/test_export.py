"""`instructsam train export` writes the same model in a smaller type."""

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

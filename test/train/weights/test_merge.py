"""Merging: a folder whose LoRA matrices cannot be used is refused in one line, and nothing is written."""

import json
import os
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from instructsam.core.cli import main
from instructsam.core.model import checkpoint
from instructsam.train.weights.heads import HEADS

TARGET = 'model.language_model.layers.0.self_attn.o_proj'
CONFIG = {'peft_type': 'LORA', 'r': 2, 'lora_alpha': 4, 'target_modules': r'model\.language_model\..*\.(o_proj)'}


@pytest.fixture
def adapter(reference, tmp_path):
    """Return a function that writes a model folder with LoRA matrices of a rank, filled with a value."""

    def make(config, rank=2, value=0.01):
        folder = tmp_path / 'adapter'
        shutil.copytree(reference / 'checkpoint', folder)
        matrices = {}
        for layer in range(2):
            name = f'base_model.model.model.language_model.layers.{layer}.self_attn.o_proj'
            matrices[f'{name}.lora_A.weight'] = torch.full((rank, 64), value)
            matrices[f'{name}.lora_B.weight'] = torch.full((64, rank), value)
        save_file(matrices, folder / checkpoint.ADAPTER)
        text = config if isinstance(config, str) else json.dumps(config)
        (folder / checkpoint.ADAPTER_CONFIG).write_text(text)
        return folder

    return make


def merged(folder, tmp_path):
    return main(['train', 'merge', str(folder), str(tmp_path / 'out')])


def test_matrices_are_added(adapter, tmp_path, reference):
    assert merged(adapter(CONFIG), tmp_path) == 0
    before = load_file(reference / 'checkpoint' / checkpoint.SINGLE)[f'{TARGET}.weight']
    after = load_file(tmp_path / 'out' / checkpoint.SINGLE)[f'{TARGET}.weight']
    torch.testing.assert_close(after, before + 4 / 2 * 2 * 0.01**2)  # alpha / rank * B A


def test_auxiliary_heads_are_kept(adapter, tmp_path):
    folder = adapter(CONFIG)
    (folder / HEADS).write_bytes(b'heads')
    assert merged(folder, tmp_path) == 0
    assert (tmp_path / 'out' / HEADS).read_bytes() == b'heads'


@pytest.mark.parametrize(
    ('config', 'message'),
    [
        ('{"peft_type": "LO', 'cannot be read'),
        ('[' * 100_000, 'cannot be read'),
        (7, 'expected a JSON object'),
        ({**CONFIG, 'peft_type': 'BOFT'}, 'is not of LoRA matrices'),
        ({**CONFIG, 'peft_type': ['LORA']}, 'is not of LoRA matrices'),
        ({**CONFIG, 'r': 4}, 'that do not fit its model'),
        ({**CONFIG, 'r': 'two'}, 'is not of LoRA matrices of a rank from 1 to 4096, got r = two'),
        ({**CONFIG, 'target_modules': '('}, 'expected names of modules'),
    ],
    ids=range(8),
)
def test_configurations_that_cannot_be_used(adapter, tmp_path, capsys, config, message):
    assert merged(adapter(config), tmp_path) == 2
    printed = [line for line in capsys.readouterr().err.splitlines() if line.startswith('instructsam:')]
    assert len(printed) == 1
    assert message in printed[0]
    assert not (tmp_path / 'out').exists()


def test_matrices_that_are_not_finite(adapter, tmp_path, capsys):
    assert merged(adapter(CONFIG, value=float('nan')), tmp_path) == 2
    assert 'that are not finite' in capsys.readouterr().err


def test_special_files(adapter, tmp_path, capsys):
    folder = adapter(CONFIG)
    file = folder / checkpoint.ADAPTER_CONFIG
    file.unlink()
    os.mkfifo(file)
    assert merged(folder, tmp_path) == 2
    assert 'a FIFO' in capsys.readouterr().err

"""A deeper vision tower gives the same output as the shallow one, and its new blocks are trainable."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch

from instructsam.core.errors import InstructSAMError
from instructsam.core.model import checkpoint
from instructsam.core.model.preprocess import QwenPreprocessor, to_chw
from instructsam.train.weights.deepen import deepen

FOLDER = Path(os.environ.get('INSTRUCTSAM_REFERENCE', Path(__file__).parents[2] / 'data' / 'reference')) / 'checkpoint'
IMAGE = np.random.default_rng(0).integers(0, 256, (120, 160, 3), np.uint8)


def load(folder):
    return checkpoint.load(Path(folder), torch.device('cpu'), torch.float32)


def test_twice_the_blocks_give_the_same_output(tmp_path):
    deepen(FOLDER, tmp_path / 'deep')
    model, deep = load(FOLDER), load(tmp_path / 'deep')
    assert len(deep.model.visual.blocks) == 2 * len(model.model.visual.blocks)
    patches, grid = QwenPreprocessor.from_folder(FOLDER)(to_chw(IMAGE), 'cpu', torch.float32)
    tokens, deepstack = model.encode_image(patches, grid)
    now, now_deepstack = deep.encode_image(patches, grid)
    assert torch.equal(now, tokens)
    assert len(now_deepstack) == len(deepstack)
    assert all(torch.equal(one, other) for one, other in zip(now_deepstack, deepstack, strict=True))


def test_a_new_block_gets_gradients(tmp_path):
    deepen(FOLDER, tmp_path / 'deep')
    deep = load(tmp_path / 'deep').requires_grad_(True)
    patches, grid = QwenPreprocessor.from_folder(FOLDER)(to_chw(IMAGE), 'cpu', torch.float32)
    deep.encode_image(patches, grid)[0].pow(2).sum().backward()
    new = deep.model.visual.blocks[1]
    assert new.attn.proj.weight.grad.abs().max() > 0
    assert new.mlp.linear_fc2.weight.grad.abs().max() > 0


def test_an_existing_folder(tmp_path):
    (tmp_path / 'notes.txt').touch()
    with pytest.raises(InstructSAMError, match='already exists'):
        deepen(FOLDER, tmp_path)

"""Encoders that say the same in other terms are understood again."""

import os
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch

from instructsam.core.errors import InstructSAMError
from instructsam.core.model import checkpoint
from instructsam.train.weights.stitch import _features, _turn_input, run, stitch

FOLDER = Path(os.environ.get('INSTRUCTSAM_REFERENCE', Path(__file__).parents[2] / 'data' / 'reference')) / 'checkpoint'


@pytest.fixture(scope='module')
def images(tmp_path_factory):
    folder = tmp_path_factory.mktemp('images')
    rng = np.random.default_rng(0)
    for index in range(24):
        picture = cv2.resize(rng.integers(0, 256, (6, 8, 3), np.uint8), (80, 60))
        cv2.imwrite(str(folder / f'{index}.jpg'), picture)
    return sorted(folder.iterdir())


def load(folder):
    return checkpoint.load(Path(folder), torch.device('cpu'), torch.float32)


def turned(model):
    """The model with the outputs of its encoders turned, stretched and moved."""
    torch.manual_seed(0)
    visual, levels = model.model.visual, model.grounding.vision_encoder.neck.fpn_layers
    mergers = (visual.merger, *visual.deepstack_merger_list)
    for layer in (*(merger.linear_fc2 for merger in mergers), levels[2].proj2):
        matrix = 3 * torch.nn.init.orthogonal_(torch.empty(len(layer.weight), len(layer.weight)))
        layer.weight.copy_(torch.einsum('io,i...->o...', matrix, layer.weight))
        layer.bias.copy_(layer.bias @ matrix + 5)
    return model


def test_what_was_turned_is_turned_back(images, tmp_path):
    checkpoint.save(turned(load(FOLDER)), tmp_path / 'turned', FOLDER)
    stitch(tmp_path / 'turned', FOLDER, tmp_path / 'stitched', images)
    was, now, stitched = (
        _features(load(folder), FOLDER, images) for folder in (FOLDER, tmp_path / 'turned', tmp_path / 'stitched')
    )
    for name, values in was.items():
        spread = values.std()
        assert (stitched[name] - values).abs().max() < 1e-3 * spread, name
        assert name == 'backbone' or (now[name] - values).abs().max() > spread, name


def test_what_goes_into_a_layer_is_turned_back():
    torch.manual_seed(0)
    layer = torch.nn.ConvTranspose2d(6, 4, kernel_size=2, stride=2).requires_grad_(False)
    wanted = torch.randn(50, 6).double()
    values = wanted @ torch.nn.init.orthogonal_(torch.empty(6, 6)).double() * 7

    def output(tokens):
        return layer(tokens.float().T.view(1, 6, 5, 10))

    was = output(wanted)
    assert (output(values) - was).abs().max() > 1
    _turn_input([layer], values, wanted)
    assert torch.allclose(output(values), was, atol=1e-5)


def test_encoders_that_did_not_learn_stay(images, tmp_path):
    stitch(FOLDER, FOLDER, tmp_path / 'same', images[:2])
    was, now = load(FOLDER).state_dict(), load(tmp_path / 'same').state_dict()
    assert all(torch.equal(now[name], tensor) for name, tensor in was.items())


def test_no_pictures(tmp_path):
    with pytest.raises(InstructSAMError, match='no .*jpg in'):
        run(SimpleNamespace(model=FOLDER, before=FOLDER, out=tmp_path / 'out', images=tmp_path))

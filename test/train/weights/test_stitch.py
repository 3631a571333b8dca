"""Stitching turns an encoder's features back into those that its readers were trained on."""

import os
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch

from instructsam.core.errors import InstructSAMError
from instructsam.core.model import checkpoint
from instructsam.train.weights.commands.stitch import run
from instructsam.train.weights.stitch import _features, _map_inputs, stitch

FOLDER = Path(os.environ.get('INSTRUCTSAM_REFERENCE', Path(__file__).parents[2] / 'data' / 'reference')) / 'checkpoint'


@pytest.fixture(scope='module')
def images(tmp_path_factory):
    folder = tmp_path_factory.mktemp('images')
    rng = np.random.default_rng(0)
    for index in range(24):
        image = cv2.resize(rng.integers(0, 256, (6, 8, 3), np.uint8), (80, 60))
        cv2.imwrite(str(folder / f'{index}.jpg'), image)
    return sorted(folder.iterdir())


def load(folder):
    return checkpoint.load(Path(folder), torch.device('cpu'), torch.float32)


def transformed(model):
    """Return the model with the outputs of its encoders rotated, scaled and shifted."""
    torch.manual_seed(0)
    visual, levels = model.model.visual, model.grounding.vision_encoder.neck.fpn_layers
    mergers = (visual.merger, *visual.deepstack_merger_list)
    for layer in (*(merger.linear_fc2 for merger in mergers), levels[2].proj2):
        matrix = 3 * torch.nn.init.orthogonal_(torch.empty(len(layer.weight), len(layer.weight)))
        layer.weight.copy_(torch.einsum('io,i...->o...', matrix, layer.weight))
        layer.bias.copy_(layer.bias @ matrix + 5)
    return model


def test_transformed_features_are_restored(images, tmp_path):
    checkpoint.save(transformed(load(FOLDER)), tmp_path / 'changed', FOLDER)
    stitch(tmp_path / 'changed', FOLDER, tmp_path / 'stitched', images)
    before, changed, stitched = (
        _features(load(folder), FOLDER, images) for folder in (FOLDER, tmp_path / 'changed', tmp_path / 'stitched')
    )
    for name, values in before.items():
        spread = values.std()
        assert (stitched[name] - values).abs().max() < 1e-3 * spread, name
        assert name == 'backbone' or (changed[name] - values).abs().max() > spread, name


def test_transformed_inputs_of_a_layer_are_restored():
    torch.manual_seed(0)
    layer = torch.nn.ConvTranspose2d(6, 4, kernel_size=2, stride=2).requires_grad_(False)
    wanted = torch.randn(50, 6).double()
    values = wanted @ torch.nn.init.orthogonal_(torch.empty(6, 6)).double() * 7

    def output(tokens):
        return layer(tokens.float().T.view(1, 6, 5, 10))

    before = output(wanted)
    assert (output(values) - before).abs().max() > 1
    _map_inputs([layer], values, wanted)
    assert torch.allclose(output(values), before, atol=1e-5)


def test_unchanged_encoders_stay_the_same(images, tmp_path):
    stitch(FOLDER, FOLDER, tmp_path / 'same', images[:2])
    before, after = load(FOLDER).state_dict(), load(tmp_path / 'same').state_dict()
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())


def test_no_images(tmp_path):
    with pytest.raises(InstructSAMError, match=r'no \*\.jpg in'):
        run(SimpleNamespace(model=FOLDER, before=FOLDER, out=tmp_path / 'out', images=tmp_path))

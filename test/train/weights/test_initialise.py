"""Preparing an untrained detector: the scale of its features, and its initial box attention."""

import pytest
import torch

from instructsam.core.builtin import FOLDER
from instructsam.core.model.config import ModelConfig
from instructsam.core.model.instructsam import InstructSAMModel
from instructsam.train.weights.initialise import initialise, prepare_detector

BOX = torch.tensor([0.5, 0.25, 0.25, 0.25])  # cxcywh: columns 9 to 14 and rows 3 to 8 of 24
TOKENS = 24


@pytest.fixture
def model():
    """The small model, with features as large as pretraining on dense labels leaves them."""
    model = InstructSAMModel(ModelConfig.from_folder(FOLDER / 'tabletop')).eval()
    initialise(model, seed=3)
    with torch.no_grad():
        for level in model.grounding.vision_encoder.neck.fpn_layers[1:3]:
            level.proj2.weight.mul_(100)
    return model


@pytest.fixture
def inputs(model):
    pixels = torch.rand(2, 3, 384, 384, generator=torch.Generator().manual_seed(1)) * 2 - 1
    with torch.no_grad():
        return model.encoder_inputs(pixels, pixels[:0], [])


def pyramid(model, inputs):
    return list(model.grounding.encode(inputs.pixels, inputs.lateral_maps).pyramid)


@torch.no_grad()
def pixel_map(model, inputs):
    return model.grounding.mask_decoder.pixel_decoder(pyramid(model, inputs))


@torch.no_grad()
def test_features_are_rescaled_and_masks_stay_the_same(model, inputs):
    before = pixel_map(model, inputs)
    assert pyramid(model, inputs)[-1].square().mean() > 100
    prepare_detector(model, inputs)
    assert pyramid(model, inputs)[-1].square().mean().item() == pytest.approx(1, rel=1e-3)
    torch.testing.assert_close(pixel_map(model, inputs), before, rtol=1e-2, atol=1e-3)


@torch.no_grad()
def test_heads_attend_to_the_box_and_its_borders(model, inputs):
    prepare_detector(model, inputs)
    bias = model.grounding.detr_decoder.box_bias(BOX[None, None], TOKENS)
    attention = bias[0, :, 0].softmax(-1).view(5, TOKENS, TOKENS)
    inside = attention[:, 3:9, 9:15].sum((1, 2))
    assert (inside > 0.4).all(), inside
    rows, columns = torch.arange(TOKENS) + 0.5, torch.arange(TOKENS) + 0.5
    y, x = (attention.sum(2) @ rows) / TOKENS, (attention.sum(1) @ columns) / TOKENS
    whole, left, right, top, bottom = zip(x.tolist(), y.tolist(), strict=True)
    assert whole == pytest.approx((0.5, 0.25), abs=0.03)
    assert left[0] < 0.45 < 0.55 < right[0]
    assert left[1] == pytest.approx(0.25, abs=0.03)
    assert top[1] < 0.2 < 0.3 < bottom[1]
    assert top[0] == pytest.approx(0.5, abs=0.03)

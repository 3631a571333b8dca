"""A detector that has learned nothing yet: the size of what it reads, and where its slots look."""

import pytest
import torch

from instructsam.core.builtin import FOLDER
from instructsam.core.model.config import ModelConfig
from instructsam.core.model.instructsam import InstructSAMModel
from instructsam.train.weights.initialise import initialise, prepare_detector

BOX = torch.tensor([0.5, 0.25, 0.25, 0.25])  # cxcywh: columns 6 to 9 and rows 2 to 5 of 16
TOKENS = 16


@pytest.fixture(scope='module')
def pixels():
    return torch.rand(2, 3, 224, 224, generator=torch.Generator().manual_seed(1)) * 2 - 1


@pytest.fixture
def model():
    """The small model, with features as large as dense labels leave them."""
    found = InstructSAMModel(ModelConfig.from_folder(FOLDER / 'tabletop')).eval()
    initialise(found, seed=3)
    with torch.no_grad():
        for level in found.grounding.vision_encoder.neck.fpn_layers[1:3]:
            level.proj2.weight.mul_(100)
    return found


@torch.no_grad()
def pixel_map(model, pixels):
    return model.grounding.mask_decoder.pixel_decoder(list(model.grounding.encode(pixels).pyramid))


@torch.no_grad()
def test_features_get_the_size_of_slots_and_masks_stay(model, pixels):
    before = pixel_map(model, pixels)
    assert model.grounding.encode(pixels).pyramid[-1].square().mean() > 100
    prepare_detector(model, pixels)
    assert model.grounding.encode(pixels).pyramid[-1].square().mean().item() == pytest.approx(1, rel=1e-3)
    torch.testing.assert_close(pixel_map(model, pixels), before, rtol=1e-2, atol=1e-3)


@torch.no_grad()
def test_heads_look_into_the_box_and_at_its_borders(model, pixels):
    prepare_detector(model, pixels)
    bias = model.grounding.detr_decoder._get_rpb_matrix(BOX[None, None], (TOKENS, TOKENS))
    where = bias[0, :, 0].softmax(-1).view(5, TOKENS, TOKENS)
    inside = where[:, 2:6, 6:10].sum((1, 2))
    assert (inside > 0.4).all(), inside
    rows, columns = torch.arange(TOKENS) + 0.5, torch.arange(TOKENS) + 0.5
    y, x = (where.sum(2) @ rows) / TOKENS, (where.sum(1) @ columns) / TOKENS
    whole, left, right, top, bottom = zip(x.tolist(), y.tolist())
    assert whole == pytest.approx((0.5, 0.25), abs=0.03)
    assert left[0] < 0.45 < 0.55 < right[0]
    assert left[1] == pytest.approx(0.25, abs=0.03)
    assert top[1] < 0.2 < 0.3 < bottom[1]
    assert top[0] == pytest.approx(0.5, abs=0.03)

"""Training a model with a trunk and slot references: the trunk stays frozen, and the losses reach the references."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from instructsam.core.model.preprocess import to_chw
from instructsam.core.rle import Rle
from instructsam.train.data.collate import Collator
from instructsam.train.data.record_fields import Target
from instructsam.train.data.sample import Sample, Turn
from instructsam.train.loop.param_groups import describe, parameter_groups
from instructsam.train.loop.recipe import LearningRates
from instructsam.train.losses.objective import Objective
from instructsam.train.stages.instruct import InstructTraining

RATES = LearningRates(language=1e-3, vision=1e-3, projector=1e-3, decoder=1e-3, image_encoder=1e-3, heads=1e-3)


@pytest.fixture
def batch(folder, model, image):
    """Two samples of unequal sizes, one of whose phrases refers to nothing."""
    mask = np.zeros(image.shape[:2], bool)
    mask[30:70, 40:90] = True
    turn = Turn('the red thing', ('cup', 'bowl'), (Target(masks=(Rle.encode(mask),)), Target()))
    one = Sample(folder, *image.shape[:2], (turn,), pixels=to_chw(image))
    half = replace(turn, targets=(Target(masks=(Rle.encode(mask[:, :100]),)), Target()))
    other = Sample(folder, image.shape[0], 100, (half,), pixels=to_chw(image[:, :100]))
    return Collator.from_folder(folder, model.config)([one, other])


@pytest.fixture
def training(model):
    return InstructTraining(model, Objective(), 4, deep_supervision=True, pointing=1.0)


def test_batches_hold_the_square_image_alone(batch):
    assert batch.patches.numel() == 0
    assert batch.pixels.shape == (2, 3, 64, 64)
    assert batch.grids == [(1, 4, 4)] * 2
    assert batch.text.is_image.sum(1).tolist() == [4, 4]


def test_a_few_steps_learn_and_keep_the_trunk(training, model, batch):
    groups = parameter_groups(training, RATES, weight_decay=0.0)
    assert not any(parameter.requires_grad for parameter in model.model.trunk.parameters())
    before = {name: tensor.clone() for name, tensor in model.model.trunk.state_dict().items()}
    optimizer = torch.optim.AdamW(groups)
    totals = []
    for _ in range(3):
        total = sum(value for value, _ in training(batch).values())
        totals.append(total.item())
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
    assert totals[-1] < totals[0]
    assert all(torch.equal(before[name], tensor) for name, tensor in model.model.trunk.state_dict().items())
    assert model.model.reference_fcs[-1].weight.any()
    assert all(lateral.weight.grad.any() for lateral in model.grounding.laterals)


@pytest.mark.parametrize('deep_supervision', [True, False])
def test_masks_and_boxes_reach_the_references(model, batch, deep_supervision):
    """Without pointing, the detector's own losses move the references."""
    training = InstructTraining(model, Objective(), 4, deep_supervision=deep_supervision)
    sum(value for value, _ in training(batch).values()).backward()
    assert model.model.reference_fcs[-1].weight.grad.any()


def test_the_trunk_is_a_part_with_a_rate_of_its_own(training, model, batch):
    groups = parameter_groups(training, replace(RATES, trunk=1e-4), weight_decay=0.0)
    assert any(line.startswith('trunk: 0.69 M parameters, learning rate 0.0001') for line in describe(groups))
    sum(value for value, _ in training(batch).values()).backward()
    assert all(parameter.grad is not None for parameter in model.model.trunk.parameters())

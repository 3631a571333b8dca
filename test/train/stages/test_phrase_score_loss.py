"""Phrase scores learn whether the phrases of a batch have any target."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from instructsam.core.model.preprocess import to_chw
from instructsam.core.rle import Rle
from instructsam.train.data.collate import Collator
from instructsam.train.data.record_fields import Target
from instructsam.train.data.sample import Sample, Turn
from instructsam.train.losses.objective import Objective
from instructsam.train.stages.forward import phrase_score_losses
from instructsam.train.stages.instruct import InstructTraining


@pytest.fixture
def batch(folder, model, image):
    """Three phrases, with a mask, with nothing and with a box; one of them reaches SAM3."""
    mask = np.zeros(image.shape[:2], bool)
    mask[30:70, 40:90] = True
    targets = Target(masks=(Rle.encode(mask),)), Target(), Target(boxes=((0.1, 0.1, 0.5, 0.5),))
    turn = Turn('the red thing', ('cup', 'bowl', 'mug'), targets)
    sample = Sample(folder, *image.shape[:2], (turn,), pixels=to_chw(image), detected=(0,))
    return Collator.from_folder(folder, model.config)([sample])


def hidden_states(batch, model):
    shape = 1, batch.text.ids.shape[1], model.config.text.hidden_size
    return torch.randn(shape, generator=torch.Generator().manual_seed(1))


def test_every_phrase_counts_whether_it_is_detected_or_not(model, batch):
    with torch.no_grad():
        model.model.phrase_score_fcs[-1].weight.normal_(generator=torch.Generator().manual_seed(2))
    hidden = hidden_states(batch, model)
    (loss,) = phrase_score_losses(model, batch, hidden).values()
    slots = torch.stack([hidden[sample, rows] for sample, rows in batch.text.blocks])
    expected = F.binary_cross_entropy_with_logits(
        model.phrase_scores(slots), torch.tensor([1.0, 0.0, 1.0]), reduction='sum'
    )
    torch.testing.assert_close(loss.value, expected)
    assert batch.counts()[loss.unit] == 3


def test_phrases_without_slots_are_left_out(model, batch):
    """As of mode autoregressive, where a phrase that refers to nothing has none."""
    hidden = hidden_states(batch, model)
    whole = phrase_score_losses(model, batch, hidden)['phrase_score'].value
    sample, rows = batch.text.blocks[1]
    batch.text.blocks[1] = sample, slice(rows.start, rows.start)
    without = phrase_score_losses(model, batch, hidden)['phrase_score'].value
    torch.testing.assert_close(whole - without, F.softplus(torch.tensor(5.0)))


def test_a_batch_without_phrases_has_gradients_of_the_same_parameters(model, batch):
    """FSDP needs them: processes reduce the gradients together."""
    batch.text.blocks.clear()
    loss = phrase_score_losses(model, batch, hidden_states(batch, model))['phrase_score'].value
    assert loss == 0
    loss.backward()
    assert all(parameter.grad is not None for parameter in model.model.phrase_score_fcs.parameters())


def test_a_model_without_phrase_scores_has_no_such_loss(model, batch):
    object.__setattr__(model.config, 'phrase_scores', False)
    assert phrase_score_losses(model, batch, hidden_states(batch, model)) == {}


@pytest.mark.parametrize('deep_supervision', [True, False])
def test_the_language_model_learns_from_it(model, batch, deep_supervision):
    with torch.no_grad():
        model.model.phrase_score_fcs[-1].weight.normal_(generator=torch.Generator().manual_seed(2))
    if deep_supervision:
        batch.boxes[2] = batch.boxes[2][:0]  # it takes no boxes
    losses = InstructTraining(model, Objective(), 4, deep_supervision=deep_supervision)(batch)
    losses['phrase_score'].value.backward()
    assert model.model.phrase_score_fcs[-1].weight.grad.any()
    assert model.model.language_model.layers[0].mlp.up_proj.weight.grad.any()
    assert model.grounding.detr_decoder.query_embed.weight.grad is None

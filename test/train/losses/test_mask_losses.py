"""The terms of the published objective against their definitions, on small tensors."""

import pytest
import torch
import torch.nn.functional as F

from instructsam.train.losses.boxes import box_terms
from instructsam.train.losses.mask_losses import phrase_terms, resize_targets
from instructsam.train.losses.matching import match_slots
from instructsam.train.losses.objective import Objective

PAPER = Objective()


def blobs():
    """Return mask logits [4, 8, 8], and the ground truth [2, 8, 8] that slots 2 and 0 show."""
    ground_truth = torch.zeros(2, 8, 8)
    ground_truth[0, :3, :3], ground_truth[1, 4:, 4:] = 1, 1
    logits = torch.full((4, 8, 8), -4.0)
    logits[2][ground_truth[0] > 0], logits[0][ground_truth[1] > 0] = 4.0, 4.0
    return logits, ground_truth


def test_matching_finds_the_masks():
    masks, ground_truth = blobs()
    assert match_slots(masks, torch.zeros(4), ground_truth, PAPER).tolist() == [1, -1, 0, -1]
    assert match_slots(masks, torch.zeros(4), ground_truth[:0], PAPER).tolist() == [-1] * 4


def test_matching_prefers_the_confident_of_equals():
    masks, ground_truth = blobs()
    masks[1] = masks[2]
    assert match_slots(masks, torch.tensor([0.0, 3.0, -3.0, 0.0]), ground_truth, PAPER).tolist() == [1, 0, -1, -1]


def test_terms_are_their_definitions():
    masks, ground_truth = blobs()
    logits = torch.tensor([1.0, -1.0, 2.0, 0.0])
    terms, assigned = phrase_terms(masks, logits, ground_truth, PAPER)
    assert assigned.tolist() == [1, -1, 0, -1]
    pairs = [(masks[2], ground_truth[0]), (masks[0], ground_truth[1])]
    bce = sum(F.binary_cross_entropy_with_logits(m, t) for m, t in pairs)
    dice = sum(1 - (2 * (m.sigmoid() * t).sum() + 1) / (m.sigmoid().sum() + t.sum() + 1) for m, t in pairs)
    presence = F.binary_cross_entropy_with_logits(logits, torch.tensor([1.0, 0.0, 1.0, 0.0]))
    for got, expected in ((terms.bce, bce), (terms.dice, dice), (terms.presence, presence)):
        assert float(got) == pytest.approx(float(expected), rel=1e-5)
    losses = terms.loss_sums(PAPER)
    assert {name: loss.unit for name, loss in losses.items()} == {
        'mask_bce': 'masks',
        'mask_dice': 'masks',
        'presence': 'phrases',
    }
    assert float(losses['mask_bce'].value) == pytest.approx(2 * float(bce), rel=1e-5)
    assert float(losses['mask_dice'].value) == pytest.approx(float(dice) / 2, rel=1e-5)


def test_soft_presence_targets():
    """The presence target of the authors' code is max(soft dice, 0.1) of matched slots."""
    masks, ground_truth = blobs()
    masks[0] = -9.0  # matched nevertheless, with hardly any overlap
    logits = torch.zeros(4)
    soft, _ = phrase_terms(masks[:3], logits[:3], ground_truth, Objective(presence_target='soft_dice'))
    good = masks[2].sigmoid()
    dice = 2 * (good * ground_truth[0]).sum() / (good.sum() + ground_truth[0].sum())
    expected = F.binary_cross_entropy_with_logits(logits[:3], torch.tensor([0.1, 0.0, float(dice)]))
    assert float(soft.presence) == pytest.approx(float(expected), rel=1e-4)


def test_a_null_phrase_teaches_absence():
    masks, ground_truth = blobs()
    logits = torch.zeros(4, requires_grad=True)
    terms, found = phrase_terms(masks, logits, ground_truth[:0], PAPER)
    terms.presence.backward()
    assert found.tolist() == [-1] * 4
    assert float(terms.bce) == 0
    assert (logits.grad > 0).all()


def test_points_estimate_the_dense_loss_in_sign_and_gradient():
    masks, ground_truth = blobs()
    masks = masks.requires_grad_(True)
    torch.manual_seed(0)
    terms, _ = phrase_terms(masks, torch.zeros(4), ground_truth, Objective(sample_points=500))
    (terms.bce + terms.dice).backward()
    assert masks.grad[0].any()
    assert masks.grad[2].any()
    assert not masks.grad[1].any()


def test_box_projections():
    """A mask that fills the extent of its box costs almost nothing, whatever its shape; one elsewhere costs a lot."""
    box = torch.tensor([[0.25, 0.25, 0.75, 0.75]])
    inside, cross, elsewhere = (torch.full((1, 16, 16), -20.0) for _ in range(3))
    inside[0, 4:12, 4:12] = 20
    cross[0, 4:12, 7:9], cross[0, 7:9, 4:12] = 20, 20
    elsewhere[0, :8, :8] = 20
    losses = [float(box_terms(m, torch.zeros(1), box, PAPER)[0].dice) for m in (inside, cross, elsewhere)]
    assert losses[0] == pytest.approx(0, abs=1e-3)
    assert losses[1] == pytest.approx(0, abs=1e-3)
    assert losses[2] > 0.3


def test_a_box_thinner_than_a_pixel_still_fills_one():
    terms, found = box_terms(torch.zeros(2, 8, 8), torch.zeros(2), torch.tensor([[0.5, 0.5, 0.501, 0.501]]), PAPER)
    assert (found >= 0).sum() == 1
    assert torch.isfinite(terms.dice)


def test_terms_add_up_over_batches():
    """Sums are divided once at the end, so that a mask counts the same in any batch."""
    masks, ground_truth = blobs()
    one, _ = phrase_terms(masks, torch.zeros(4), ground_truth, PAPER)
    other, _ = phrase_terms(masks, torch.zeros(4), ground_truth[:1], PAPER)
    both = one + other
    assert float(both.loss_sums(PAPER)['mask_bce'].value) == pytest.approx(2 * float(one.bce + other.bce))


def test_targets_are_resized_by_nearest():
    masks = torch.zeros(1, 8, 8, dtype=torch.bool)
    masks[0, :4] = True
    assert resize_targets(masks, (4, 4))[0].tolist() == [[1.0] * 4] * 2 + [[0.0] * 4] * 2

"""The loss terms against their definitions, on small tensors."""

import pytest
import torch
import torch.nn.functional as F

from instructsam.train.losses.mask_losses import Objective, Terms, box_terms, match, phrase_terms, resize_targets

PAPER = Objective()


def blobs():
    """Truth [2, 8, 8], and mask logits [4, 8, 8] of which slots 2 and 0 are the truth's."""
    truth = torch.zeros(2, 8, 8)
    truth[0, :3, :3], truth[1, 4:, 4:] = 1, 1
    logits = torch.full((4, 8, 8), -4.0)
    logits[2][truth[0] > 0], logits[0][truth[1] > 0] = 4.0, 4.0
    return logits, truth


def test_matching_finds_the_masks():
    masks, truth = blobs()
    assert match(masks, torch.zeros(4), truth, PAPER).tolist() == [1, -1, 0, -1]
    assert match(masks, torch.zeros(4), truth[:0], PAPER).tolist() == [-1] * 4


def test_matching_prefers_the_confident_of_equals():
    masks, truth = blobs()
    masks[1] = masks[2]
    assert match(masks, torch.tensor([0.0, 3.0, -3.0, 0.0]), truth, PAPER).tolist() == [1, 0, -1, -1]


def test_terms_are_their_definitions():
    masks, truth = blobs()
    logits = torch.tensor([1.0, -1.0, 2.0, 0.0])
    terms, _ = phrase_terms(masks, logits, truth, PAPER)
    pairs = [(masks[2], truth[0]), (masks[0], truth[1])]
    bce = sum(F.binary_cross_entropy_with_logits(m, t) for m, t in pairs)
    dice = sum(1 - (2 * (m.sigmoid() * t).sum() + 1) / (m.sigmoid().sum() + t.sum() + 1) for m, t in pairs)
    presence = F.binary_cross_entropy_with_logits(logits, torch.tensor([1.0, 0.0, 1.0, 0.0]))
    assert (terms.masks, terms.phrases) == (2, 1)
    for got, expected in ((terms.bce, bce), (terms.dice, dice), (terms.presence, presence)):
        assert float(got) == pytest.approx(float(expected), rel=1e-5)
    losses = terms.losses(PAPER)
    assert float(losses['mask_bce']) == pytest.approx(float(bce) / 2 * 2, rel=1e-5)
    assert float(losses['mask_dice']) == pytest.approx(float(dice) / 2 / 2, rel=1e-5)


def test_soft_presence_targets():
    """The authors' code: max(soft dice, 0.1) of matched slots."""
    masks, truth = blobs()
    masks[0] = -9.0  # matched all the same, with hardly any overlap
    logits = torch.zeros(4)
    soft, _ = phrase_terms(masks[:3], logits[:3], truth, Objective(presence_target='soft_dice'))
    good = masks[2].sigmoid()
    dice = 2 * (good * truth[0]).sum() / (good.sum() + truth[0].sum())
    expected = F.binary_cross_entropy_with_logits(logits[:3], torch.tensor([0.1, 0.0, float(dice)]))
    assert float(soft.presence) == pytest.approx(float(expected), rel=1e-4)


def test_nothing_there_teaches_absence():
    masks, truth = blobs()
    logits = torch.zeros(4, requires_grad=True)
    terms, found = phrase_terms(masks, logits, truth[:0], PAPER)
    terms.presence.backward()
    assert found.tolist() == [-1] * 4
    assert terms.masks == 0
    assert float(terms.bce) == 0
    assert (logits.grad > 0).all()


def test_points_estimate_the_dense_loss_in_sign_and_gradient():
    masks, truth = blobs()
    masks = masks.requires_grad_(True)
    torch.manual_seed(0)
    terms, _ = phrase_terms(masks, torch.zeros(4), truth, Objective(sample_points=500))
    (terms.bce + terms.dice).backward()
    assert terms.masks == 2
    assert masks.grad[0].any()
    assert masks.grad[2].any()
    assert not masks.grad[1].any()


def test_box_projections():
    """A mask that just fills its box has next to no loss; the same mask in another place has much. Shape inside the box
    is free.
    """
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
    assert terms.masks == 1
    assert (found >= 0).sum() == 1
    assert torch.isfinite(terms.dice)


def test_terms_add_up_over_batches():
    """Divided once at the end, so that a mask counts the same wherever it stood."""
    masks, truth = blobs()
    one, _ = phrase_terms(masks, torch.zeros(4), truth, PAPER)
    other, _ = phrase_terms(masks, torch.zeros(4), truth[:1], PAPER)
    both = one + other
    assert isinstance(both, Terms)
    assert (both.masks, both.phrases) == (3, 2)
    assert float(both.losses(PAPER)['mask_bce']) == pytest.approx(2 * float(one.bce + other.bce) / 3)


def test_targets_are_resized_by_nearest():
    masks = torch.zeros(1, 8, 8, dtype=torch.bool)
    masks[0, :4] = True
    assert resize_targets(masks, (4, 4))[0].tolist() == [[1.0] * 4] * 2 + [[0.0] * 4] * 2

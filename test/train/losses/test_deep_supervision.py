"""Losses on every layer: matching, normalisation, and phrases without objects."""

from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F

from instructsam.train.losses.boxes import tight_boxes
from instructsam.train.losses.deep_supervision import LayerOutputs, layer_losses
from instructsam.train.losses.objective import LayerWeights

SIDE, SLOTS = 16, 4
# Stands in for SAM3: slots are their own mask vectors.
MODEL = SimpleNamespace(
    grounding=SimpleNamespace(mask_vectors=lambda slots: (slots, slots.new_zeros(slots.shape[:-1])))
)


def halves():
    """Return two masks [2, SIDE, SIDE]: the left half, and the lower quarter of the right half."""
    masks = torch.zeros(2, SIDE, SIDE, dtype=torch.bool)
    masks[0, :, : SIDE // 2] = True
    masks[1, SIDE * 3 // 4 :, SIDE // 2 :] = True
    return masks


def sure_outputs(masks, layers=2, groups=3, order=(2, 0)):
    """Return outputs that predict `masks` exactly, mask i in slot order[i] of every layer and group."""
    pixels = torch.where(masks, 1.0, -1.0)[None]  # one channel per mask
    hidden = torch.zeros(layers, 1, groups, SLOTS, len(masks))
    hidden[..., 0] = -40.0  # slots without an object predict the complement of the first mask
    logits = torch.full((layers, 1, groups, SLOTS), -12.0)
    boxes = torch.tensor([0.0, 0.0, 0.01, 0.01]).repeat(layers, 1, groups, SLOTS, 1)
    for index, slot in enumerate(order):
        hidden[..., slot, :] = torch.eye(len(masks))[index] * 40
        logits[..., slot] = 12.0
        boxes[..., slot, :] = tight_boxes(masks)[index]
    semantic = torch.where(masks.any(0), 40.0, -40.0)[None]
    return LayerOutputs(hidden, logits, boxes, pixels.permute(0, 2, 3, 1), pixels, semantic)


def test_tight_boxes():
    assert tight_boxes(halves()).tolist() == [[0, 0, 0.5, 1], [0.5, 0.75, 1, 1]]


@pytest.mark.parametrize('order', [(2, 0), (1, 3)])
def test_correct_predictions_cost_nothing(order):
    losses = layer_losses(MODEL, sure_outputs(halves(), order=order), [halves()])
    for name, (value, count) in losses.items():
        assert value.item() == pytest.approx(0, abs=1e-3), name
        assert count == ('phrases' if name in ('presence', 'semantic') else 'masks')


def without_masks(outputs):
    outputs.pixels = outputs.semantic = None
    return outputs


@pytest.mark.parametrize('order', [(2, 0), (1, 3)])
def test_boxes_alone(order):
    outputs = without_masks(sure_outputs(halves(), order=order))
    losses = layer_losses(MODEL, outputs, [halves()])
    assert {name: count for name, (_, count) in losses.items()} == {
        'box_l1': 'masks',
        'box_giou': 'masks',
        'presence': 'phrases',
    }
    assert all(value.item() == pytest.approx(0, abs=1e-3) for value, _ in losses.values())
    outputs.boxes[1, 0, 2, order[0], 0] += 0.1  # one box is wrong in one layer and one group
    value, _ = layer_losses(MODEL, outputs, [halves()], LayerWeights(box_l1=3.0))['box_l1']
    assert value.item() == pytest.approx(3.0 * 0.1 / 6)


def test_a_null_phrase_without_masks():
    losses = layer_losses(MODEL, without_masks(sure_outputs(halves())), [torch.zeros(0, SIDE, SIDE).bool()])
    assert losses['box_l1'][0] == losses['box_giou'][0] == 0
    assert losses['presence'][0].item() == pytest.approx(LayerWeights().presence * 12 * 2 / 4, rel=1e-4)


def test_a_wrong_box_is_divided_by_layers_and_groups():
    outputs = sure_outputs(halves())
    outputs.boxes[1, 0, 2, 2, 0] += 0.1  # one box is wrong in one layer and one group
    value, _ = layer_losses(MODEL, outputs, [halves()], LayerWeights(box_l1=3.0))['box_l1']
    assert value.item() == pytest.approx(3.0 * 0.1 / 6)


def test_a_null_phrase_teaches_absence_only():
    masks = torch.zeros(0, SIDE, SIDE, dtype=torch.bool)
    outputs = sure_outputs(halves())
    outputs.logits.requires_grad_()
    losses = layer_losses(MODEL, outputs, [masks])
    assert all(losses[name][0] == 0 for name in ('mask_bce', 'mask_dice', 'box_l1', 'box_giou'))
    # Two of the four slots are wrong by 12 in each layer and group.
    assert losses['presence'][0].item() == pytest.approx(LayerWeights().presence * 12 * 2 / 4, rel=1e-4)
    losses['presence'][0].backward()
    assert (outputs.logits.grad > 0).all()
    assert losses['semantic'][0] > 1


def test_phrases_do_not_mix():
    """Two phrases together cost as much as one by one, even if one of them refers to nothing."""
    nothing = torch.zeros(0, SIDE, SIDE, dtype=torch.bool)
    first, second = sure_outputs(halves()), sure_outputs(halves(), order=(3, 1))
    first.hidden.mul_(0.02).add_(0.01)
    first.logits.mul_(0.1)
    both = LayerOutputs(
        *(
            torch.cat([getattr(first, name), getattr(second, name)], dim=int(name in ('hidden', 'logits', 'boxes')))
            for name in LayerOutputs.__dataclass_fields__
        )
    )
    together = layer_losses(MODEL, both, [halves(), nothing])
    apart = layer_losses(MODEL, first, [halves()]), layer_losses(MODEL, second, [nothing])
    for name, (value, _) in together.items():
        assert value.item() == pytest.approx(sum(each[name][0].item() for each in apart), rel=1e-5), name


def test_presence_is_worth_what_the_mask_is():
    """A matched slot whose mask overlaps half of a mask of equal size has a soft dice of 0.5."""
    outputs = sure_outputs(halves())
    ground_truth = halves()[:1].roll(SIDE // 4, 2)  # half of it overlaps the predicted mask
    logits = outputs.logits.requires_grad_(True)
    value, _ = layer_losses(MODEL, outputs, [ground_truth], presence_target='soft_dice')['presence']
    (gradient,) = torch.autograd.grad(value, logits)
    weight = LayerWeights().presence / (2 * 3 * SLOTS)  # layers, groups and slots
    assert (gradient / weight)[..., 2].flatten().tolist() == pytest.approx([0.5] * 6, abs=0.02)  # 1 - soft dice
    value, _ = layer_losses(MODEL, outputs, [ground_truth])['presence']
    (gradient,) = torch.autograd.grad(value, logits)
    assert (gradient / weight)[..., 2].abs().max() < 1e-3


def test_presence_of_a_thin_object_can_be_learned():
    """A line of half a cell, predicted as the share of each cell that it covers, is worth 1 on the last layer."""
    line = torch.zeros(1, 4 * SIDE, 4 * SIDE, dtype=torch.bool)
    line[0, 8 : 3 * SIDE, 33:35] = True
    shares = F.interpolate(line[None].float(), size=(SIDE, SIDE), mode='area')[0]
    outputs = sure_outputs(shares > 0, order=(2,))
    outputs.pixels = torch.logit(shares.clamp(1e-4, 1 - 1e-4))[None]
    outputs.hidden[..., 2, :] = 1.0
    logits = outputs.logits.requires_grad_(True)
    value, _ = layer_losses(MODEL, outputs, [line], presence_target='soft_dice')['presence']
    (gradient,) = torch.autograd.grad(value, logits)
    weight = LayerWeights().presence / (2 * 3 * SLOTS)
    assert (gradient / weight)[-1, ..., 2].flatten().tolist() == pytest.approx([0.0] * 3, abs=0.02)  # 1 - soft dice


def test_a_small_object_costs_what_a_large_one_does():
    """A mask of four cells that is missed adds as much binary cross-entropy around it as one of half of the image."""
    costs = []
    for rows, columns in ((slice(0, 16), slice(0, 8)), (slice(8, 10), slice(8, 10))):
        mask = torch.zeros(1, SIDE, SIDE, dtype=torch.bool)
        mask[0, rows, columns] = True
        outputs = sure_outputs(mask, order=(2,))
        missed, _ = layer_losses(MODEL, outputs, [mask])['mask_bce']
        outputs.hidden[..., 0] = -4.0  # every slot predicts the inverse
        costs.append(layer_losses(MODEL, outputs, [mask])['mask_bce'].value.item())
        assert missed == pytest.approx(0, abs=1e-3)
    large, small = costs
    assert small > 0.9 * large


def test_surroundings_are_part_of_the_image():
    mask = torch.zeros(1, SIDE, SIDE, dtype=torch.bool)
    mask[0, :2, :2] = True  # a corner, whose box grows out of the image
    losses = layer_losses(MODEL, sure_outputs(mask, order=(2,)), [mask])
    assert all(value.item() == pytest.approx(0, abs=1e-3) for value, _ in losses.values())

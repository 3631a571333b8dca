"""Deep supervision: losses on every DETR decoder layer, for any number of query groups; used to train from scratch.

DETR's auxiliary losses (arXiv 2005.12872), with groups of queries that do not see each other (Group DETR, arXiv
2207.13085): more slots per object learn in one pass, while inference keeps one group. Masks of inner layers are
compared at half resolution. The semantic head learns the union of a phrase's masks.

Small objects count as much as large ones: half of a mask's binary cross-entropy is the mean around its object, where a
spoon is not one cell in 500, and the smoothing of its dice loss is far less than a cell.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F

from instructsam.train.losses.boxes import box_distances, fill_boxes, grow_boxes, tight_boxes
from instructsam.train.losses.dice import dice_loss
from instructsam.train.losses.loss_sum import LossSum
from instructsam.train.losses.mask_losses import matched_presence
from instructsam.train.losses.matching import match_layer_boxes, match_layers
from instructsam.train.losses.objective import LayerWeights

if TYPE_CHECKING:
    from instructsam.core.model.instructsam import InstructSAMModel


LOSS_UNITS = {
    'mask_bce': 'masks',
    'mask_dice': 'masks',
    'box_l1': 'masks',
    'box_giou': 'masks',
    'presence': 'phrases',
    'semantic': 'phrases',
}
"""The terms of `layer_losses` and the unit that each is summed over."""


SURROUNDINGS = 0.5
"""Width of an object's surroundings, as a share of the sides of its box."""

MASK_DICE_EPS = 0.05
"""Smoothing of the masks' dice loss, in cells."""

DEFAULT_WEIGHTS = LayerWeights()


@dataclass
class LayerOutputs:
    """The detector's outputs on L layers for P phrases with G groups of K slots."""

    hidden: torch.Tensor  # [L, P, G, K, d]
    logits: torch.Tensor  # [L, P, G, K]
    boxes: torch.Tensor  # [L, P, G, K, 4] xyxy, 0 to 1
    encoded: torch.Tensor  # [P, rows, columns, d] SAM3's features after fusion with the phrase
    pixels: torch.Tensor | None = None  # [P, d, h, w], multiplied with mask embeddings; None: boxes only
    semantic: torch.Tensor | None = None  # [P, h, w] logits


def layer_losses(
    model: InstructSAMModel,
    outputs: LayerOutputs,
    masks: Sequence[torch.Tensor],
    weights: LayerWeights = DEFAULT_WEIGHTS,
    presence_target: str = 'one',
) -> dict[str, LossSum]:
    """Return loss sums over phrases or masks, each averaged over layers and groups.

    Args:
        model: Gives the mask embedding of a slot.
        outputs: The detector's outputs; without `pixels`, the terms of masks are left out.
        masks: Ground truth, one [N, H, W] bool per phrase.
        weights: Weights of the terms.
        presence_target: Target of a matched slot, as in objective.Objective.
    """
    if outputs.pixels is None or outputs.semantic is None:
        return _box_losses(outputs, masks, weights)
    layers, _, groups, slots = outputs.logits.shape
    height, width = outputs.pixels.shape[-2:]
    # Ground truth as the share of each cell that a mask covers.
    shares = [F.interpolate(each[:, None].float(), size=(height, width), mode='area')[:, 0] for each in masks]
    true_boxes = [tight_boxes(each).to(outputs.boxes) for each in masks]
    # All slots of a phrase side by side, [P, L * G * K, ...], with those of the last layer at the end.
    hidden, logits, boxes = (
        values.transpose(0, 1).flatten(1, 3) for values in (outputs.hidden, outputs.logits, outputs.boxes)
    )
    embeddings = model.grounding.mask_decoder.mask_embedder(hidden)
    fine_pixels = outputs.pixels.permute(0, 2, 3, 1).flatten(1, 2)  # [P, h * w, d]
    half_pixels = F.avg_pool2d(outputs.pixels, 2).permute(0, 2, 3, 1).flatten(1, 2)
    half_masks = torch.bmm(embeddings, half_pixels.transpose(1, 2))  # [P, L * G * K, h * w / 4]
    first_of_last_layer = (layers - 1) * groups * slots

    is_present = torch.zeros_like(logits)
    mask_pairs = []  # predicted logits, ground truth and surroundings [M, n]; inner layers have half the resolution
    box_pairs = []
    # Unbound, because the gradient of an index is as large as the tensor that is indexed.
    per_phrase = zip(
        embeddings.unbind(),
        fine_pixels.unbind(),
        half_masks.unbind(),
        logits.unbind(),
        boxes.unbind(),
        shares,
        true_boxes,
        strict=True,
    )
    for phrase, (embedding, pixels, half_mask, scores, box, share, true_box) in enumerate(per_phrase):
        if not len(share):
            continue
        half_share = F.avg_pool2d(share[:, None], 2).flatten(1)
        around = fill_boxes(grow_boxes(true_box, SURROUNDINGS), height, width)
        half_around = F.max_pool2d(around[:, None], 2).flatten(1)
        rows, columns = match_layers(half_mask, scores, box, half_share, true_box, slots, weights)
        presence = matched_presence(half_mask[rows], half_share[columns], presence_target)
        is_present[phrase, rows] = presence.to(is_present)
        box_pairs.append((box[rows], true_box[columns]))
        is_inner = rows < first_of_last_layer
        if is_inner.any():
            objects = columns[is_inner]
            mask_pairs.append((half_mask[rows[is_inner]], half_share[objects], half_around[objects]))
        objects = columns[~is_inner]
        predicted = embedding[rows[~is_inner]] @ pixels.T
        mask_pairs.append((predicted, share.flatten(1)[objects], around.flatten(1)[objects]))

    repeats = layers * groups
    bce = dice = outputs.pixels.sum() * 0.0
    for predicted, target, around in mask_pairs:
        cells = F.binary_cross_entropy_with_logits(predicted, target, reduction='none')
        bce = bce + 0.5 * (cells.mean(1) + (cells * around).sum(1) / around.sum(1)).sum()
        dice = dice + dice_loss(predicted.sigmoid(), target, MASK_DICE_EPS).sum()
    return {
        'mask_bce': LossSum(weights.mask_bce * bce / repeats, 'masks'),
        'mask_dice': LossSum(weights.mask_dice * dice / repeats, 'masks'),
        **_box_and_presence_losses(outputs, box_pairs, logits, is_present, weights),
        'semantic': _semantic_loss(outputs.semantic, shares, weights),
    }


def _semantic_loss(semantic: torch.Tensor, shares: Sequence[torch.Tensor], weights: LayerWeights) -> LossSum:
    """Compare the semantic head's logits [P, h, w] with the unions of the phrases' masks."""
    union = torch.stack([each.amax(0) if len(each) else each.new_zeros(each.shape[1:]) for each in shares]).flatten(1)
    logits = semantic.flatten(1)
    loss = F.binary_cross_entropy_with_logits(logits, union, reduction='none').mean(1)
    loss = weights.mask_bce * loss + dice_loss(logits.sigmoid(), union)
    return LossSum(weights.semantic * loss.sum(), 'phrases')


def _box_losses(outputs: LayerOutputs, masks: Sequence[torch.Tensor], weights: LayerWeights) -> dict[str, LossSum]:
    """Return the losses of boxes and presence, matched by them alone."""
    slots = outputs.logits.shape[-1]
    true_boxes = [tight_boxes(each).to(outputs.boxes) for each in masks]
    logits, boxes = (values.transpose(0, 1).flatten(1, 3) for values in (outputs.logits, outputs.boxes))
    is_present = torch.zeros_like(logits)
    pairs = []
    per_phrase = zip(logits.unbind(), boxes.unbind(), true_boxes, strict=True)
    for phrase, (scores, box, true_box) in enumerate(per_phrase):
        if len(true_box):
            rows, columns = match_layer_boxes(scores, box, true_box, slots, weights)
            is_present[phrase, rows] = 1.0
            pairs.append((box[rows], true_box[columns]))
    return _box_and_presence_losses(outputs, pairs, logits, is_present, weights)


def _box_and_presence_losses(
    outputs: LayerOutputs,
    pairs: Sequence[tuple[torch.Tensor, torch.Tensor]],
    logits: torch.Tensor,
    is_present: torch.Tensor,
    weights: LayerWeights,
) -> dict[str, LossSum]:
    """Return the losses of boxes and presence.

    Args:
        outputs: The detector's outputs.
        pairs: Matched and true boxes, both [N, 4], of each phrase that has objects.
        logits: Presence logits [P, L * G * K].
        is_present: Their targets.
        weights: Weights of the terms.
    """
    layers, _, groups, slots = outputs.logits.shape
    repeats = layers * groups
    nothing = outputs.boxes.flatten(0, -2)[:0]  # connects the boxes to the graph even if none is matched
    matched, true = (torch.cat([nothing, *(pair[side] for pair in pairs)]) for side in (0, 1))
    distances = box_distances(matched, true)
    presence = F.binary_cross_entropy_with_logits(logits, is_present, reduction='none').sum() / slots
    return {
        'box_l1': LossSum(weights.box_l1 * distances.l1 / repeats, 'masks'),
        'box_giou': LossSum(weights.box_giou * distances.giou / repeats, 'masks'),
        'presence': LossSum(weights.presence * presence / repeats, 'phrases'),
    }

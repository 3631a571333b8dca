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
from typing import TYPE_CHECKING, NamedTuple

import torch
import torch.nn.functional as F
from torch.nn.utils.rnn import pad_sequence

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
    pixels: torch.Tensor | None = None  # [P, d, h, w] output of the pixel decoder; None: boxes only
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
        model: Gives the mask of a slot.
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
    # All slots of a phrase side by side, [P, R = L * G * K, ...], with those of the last layer at the end.
    hidden, logits, boxes = (
        values.transpose(0, 1).flatten(1, 3) for values in (outputs.hidden, outputs.logits, outputs.boxes)
    )
    vectors, offsets = model.grounding.mask_vectors(hidden)
    half_pixels = F.avg_pool2d(outputs.pixels, 2).flatten(2)  # [P, d, h * w / 4]
    half_masks = torch.bmm(vectors, half_pixels) + offsets[..., None]  # [P, R, h * w / 4]

    # Matched rows, counted over all phrases, and the ground truth of each.
    rows, true = [torch.zeros(0, dtype=torch.int64)], [boxes.new_zeros(0, 4)]
    halves, wholes = [_Truth.none(half_pixels.shape[-1], boxes)], [_Truth.none(height * width, boxes)]
    for phrase, (share, true_box) in enumerate(zip(shares, true_boxes, strict=True)):
        if not len(share):
            continue
        around = fill_boxes(grow_boxes(true_box, SURROUNDINGS), height, width)
        whole = _Truth(share.flatten(1), around.flatten(1))
        half = _Truth(F.avg_pool2d(share[:, None], 2).flatten(1), F.max_pool2d(around[:, None], 2).flatten(1))
        each = half_masks[phrase], logits[phrase], boxes[phrase]
        own_rows, objects = match_layers(*each, half.shares, true_box, slots, weights)
        rows.append(own_rows + phrase * logits.shape[1])
        true.append(true_box[objects])
        halves.append(half.of(objects))
        wholes.append(whole.of(objects))
    matched = torch.cat(rows).to(logits.device)
    half, whole = _Truth.joined(halves), _Truth.joined(wholes)
    predicted = half_masks.flatten(0, 1).index_select(0, matched)
    is_present = torch.zeros_like(logits).flatten()
    is_present[matched] = matched_presence(predicted, half.shares, presence_target).to(is_present)

    # Masks of the last layer are compared in full, those of the others at half resolution.
    is_last = matched % logits.shape[1] >= (layers - 1) * groups * slots
    inner, last = (~is_last).nonzero()[:, 0], is_last.nonzero()[:, 0]
    full_masks = _masks_of_rows(vectors, offsets, outputs.pixels.flatten(2), matched[last])
    full_presence = matched_presence(full_masks, whole.of(last).shares, presence_target)
    is_present[matched[last]] = full_presence.to(is_present)
    bce, dice = _mask_terms(predicted.index_select(0, inner), half.of(inner))
    last_bce, last_dice = _mask_terms(full_masks, whole.of(last))

    repeats = layers * groups
    pairs = [(boxes.flatten(0, 1).index_select(0, matched), torch.cat(true))]
    return {
        'mask_bce': LossSum(weights.mask_bce * (bce + last_bce) / repeats, 'masks'),
        'mask_dice': LossSum(weights.mask_dice * (dice + last_dice) / repeats, 'masks'),
        **_box_and_presence_losses(outputs, pairs, logits, is_present.view_as(logits), weights),
        'semantic': _semantic_loss(outputs.semantic, shares, weights),
    }


class _Truth(NamedTuple):
    """Ground truth of M masks on a grid of n cells."""

    shares: torch.Tensor  # [M, n] share of each cell that the mask covers
    around: torch.Tensor  # [M, n] 1 in the mask's surroundings, 0 elsewhere

    @classmethod
    def none(cls, cells: int, like: torch.Tensor) -> _Truth:
        """Return no masks, of the type and on the device of `like`."""
        return cls(like.new_zeros(0, cells), like.new_zeros(0, cells))

    @classmethod
    def joined(cls, parts: Sequence[_Truth]) -> _Truth:
        """Return the masks of all parts."""
        return cls(*(torch.cat(values) for values in zip(*parts, strict=True)))

    def of(self, indices: torch.Tensor) -> _Truth:
        """Return the masks at `indices`."""
        return _Truth(*(values[indices] for values in self))


def _masks_of_rows(
    vectors: torch.Tensor, offsets: torch.Tensor, pixels: torch.Tensor, rows: torch.Tensor
) -> torch.Tensor:
    """Return the masks [M, n] of some slots.

    Args:
        vectors: [P, R, d], see Grounding.mask_vectors.
        offsets: [P, R].
        pixels: [P, d, n].
        rows: [M] in ascending order of phrases: phrase * R + slot.
    """
    counts = torch.bincount(rows // vectors.shape[1], minlength=len(vectors)).tolist()
    chosen = vectors.flatten(0, 1).index_select(0, rows)
    # One product for all phrases: with one each, their gradients would have to be stacked, and are as large as pixels.
    padded = pad_sequence(list(chosen.split(counts)), batch_first=True)
    is_real = torch.arange(padded.shape[1])[None] < torch.tensor(counts)[:, None]
    masks = torch.bmm(padded, pixels)[is_real.to(pixels.device)]
    return masks + offsets.flatten().index_select(0, rows)[:, None]


def _mask_terms(predicted: torch.Tensor, truth: _Truth) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the summed binary cross-entropy and dice loss of mask logits [M, n]."""
    cells = F.binary_cross_entropy_with_logits(predicted, truth.shares, reduction='none')
    bce = 0.5 * (cells.mean(1) + (cells * truth.around).sum(1) / truth.around.sum(1)).sum()
    return bce, dice_loss(predicted.sigmoid(), truth.shares, MASK_DICE_EPS).sum()


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

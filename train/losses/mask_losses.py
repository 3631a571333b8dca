"""The published objective: next tokens, masks of matched slots, presence of every slot (paper, section 3.4).

A *target* is the ground truth of one phrase: N masks [N, H, W] (or boxes; N = 0 for "nothing there"). The K slots of
the phrase are matched to it one to one; matched slots learn masks, and all K learn their presence.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F

from instructsam.train.losses.dice import dice_loss, soft_dice
from instructsam.train.losses.loss_sum import LossSum
from instructsam.train.losses.matching import match_slots
from instructsam.train.losses.objective import Objective

SOFT_FLOOR = 0.1
"""Smallest presence target of a matched slot with soft_dice."""

OVERSAMPLE = 3
"""Candidate points per sampled point (PointRend, arXiv 1912.08193)."""

UNCERTAIN_SHARE = 0.75
"""Share of the sampled points that lie where the prediction is least certain."""


@dataclass
class MaskTerms:
    """Unweighted sums over phrases, so that samples, batches and processes can be added up before they are divided."""

    bce: torch.Tensor  # sum over matched masks
    dice: torch.Tensor  # sum over matched masks
    presence: torch.Tensor  # sum over phrases, each the mean of its slots

    def __add__(self, other: MaskTerms) -> MaskTerms:
        return MaskTerms(self.bce + other.bce, self.dice + other.dice, self.presence + other.presence)

    def loss_sums(self, objective: Objective) -> dict[str, LossSum]:
        """Return the weighted sums."""
        return {
            'mask_bce': LossSum(objective.bce_loss * self.bce, 'masks'),
            'mask_dice': LossSum(objective.dice_loss * self.dice, 'masks'),
            'presence': LossSum(objective.presence_loss * self.presence, 'phrases'),
        }


class PhraseLoss(NamedTuple):
    """The loss terms of one phrase."""

    terms: MaskTerms
    assigned: torch.Tensor  # [K] int64, index of the mask or box matched to each slot; -1: none


def answer_loss(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Return the cross-entropy summed over n supervised tokens.

    logits: [n, vocabulary] of the rows that predict `labels` [n].
    """
    return F.cross_entropy(logits.float(), labels, reduction='sum')


def resize_targets(masks: torch.Tensor, size: tuple[int, int] | torch.Size) -> torch.Tensor:
    """Resize masks [N, H, W] bool or uint8 to the predictions' grid, [N, h, w] float32, by nearest neighbour."""
    return F.interpolate(masks[:, None].float(), size=size, mode='nearest')[:, 0]


def phrase_terms(
    mask_logits: torch.Tensor, logits: torch.Tensor, ground_truth: torch.Tensor, objective: Objective
) -> PhraseLoss:
    """Return the loss terms of one phrase; with no ground truth its slots learn absence only.

    Args:
        mask_logits: [K, h, w].
        logits: Presence logits [K].
        ground_truth: Masks [N, h, w] float.
        objective: Weights and choices.
    """
    assigned = match_slots(mask_logits, logits, ground_truth, objective)
    slots = (assigned >= 0).nonzero().flatten().to(logits.device)
    presence_target = torch.zeros_like(logits, dtype=torch.float32)
    bce = dice = mask_logits.sum() * 0.0  # connects all masks to the graph even if no slot is matched
    if len(slots):
        predicted = mask_logits[slots].float()
        target = ground_truth[assigned[slots.cpu()].to(ground_truth.device)]
        presence_target[slots] = matched_presence(predicted, target, objective.presence_target)
        if objective.sample_points:
            predicted, target = _at_points(predicted, target, objective)
        else:
            predicted, target = predicted.flatten(1), target.flatten(1)
        bce = F.binary_cross_entropy_with_logits(predicted, target, reduction='none').mean(1).sum()
        dice = dice_loss(predicted.sigmoid(), target).sum()
    presence = F.binary_cross_entropy_with_logits(logits.float(), presence_target)
    return PhraseLoss(MaskTerms(bce, dice, presence), assigned)


@torch.no_grad()
def matched_presence(mask_logits: torch.Tensor, target: torch.Tensor, presence_target: str) -> torch.Tensor:
    """Return the presence targets [N] of matched masks: 1, or with 'soft_dice' their soft dice, SOFT_FLOOR to 1."""
    if presence_target == 'one':
        return mask_logits.new_ones(len(mask_logits))
    return soft_dice(mask_logits.sigmoid().flatten(1), target.flatten(1)).clamp(min=SOFT_FLOOR)


def _at_points(
    mask_logits: torch.Tensor, ground_truth: torch.Tensor, objective: Objective
) -> tuple[torch.Tensor, torch.Tensor]:
    """Sample predictions and ground truth [N, points] at random points, most where the prediction is least certain.

    This is PointRend's sampling, which Mask2Former uses too.
    """
    count = objective.sample_points
    with torch.no_grad():
        candidates = torch.rand(len(mask_logits), OVERSAMPLE * count, 2, device=mask_logits.device)
        certainty = _sample(mask_logits, candidates).abs()
        num_uncertain = int(UNCERTAIN_SHARE * count)
        best = (-certainty).topk(num_uncertain, dim=1).indices
        points = torch.gather(candidates, 1, best[..., None].expand(-1, -1, 2))
        uniform = torch.rand(len(mask_logits), count - num_uncertain, 2, device=mask_logits.device)
        points = torch.cat([points, uniform], dim=1)
        target = _sample(ground_truth, points)
    return _sample(mask_logits, points), target


def _sample(maps: torch.Tensor, points: torch.Tensor) -> torch.Tensor:
    """Interpolate maps [N, h, w] bilinearly at points [N, P, 2] (x, y in 0 to 1); returns [N, P]."""
    return F.grid_sample(maps[:, None], 2 * points[:, :, None] - 1, align_corners=False)[:, 0, :, 0]

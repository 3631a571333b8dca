"""Hungarian matching of slots to ground truth (DETR, arXiv 2005.12872)."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from scipy.optimize import linear_sum_assignment
from transformers.loss.loss_for_object_detection import generalized_box_iou

from instructsam.train.losses.dice import pairwise_dice_loss
from instructsam.train.losses.objective import LayerWeights, Objective

MATCH_EPS = 1e-3
"""Smoothing of the dice cost in `match_slots`, as in the authors' code."""


@torch.no_grad()
def match_slots(
    mask_logits: torch.Tensor, logits: torch.Tensor, ground_truth: torch.Tensor, objective: Objective
) -> torch.Tensor:
    """Match the K slots of a phrase to its N masks one to one; N must not exceed K.

    Args:
        mask_logits: [K, h, w].
        logits: Presence logits [K].
        ground_truth: Masks [N, h, w] float.
        objective: Gives the costs.

    Returns:
        Index of the mask matched to each slot, [K] int64 on the CPU; -1: none.
    """
    assigned = torch.full((len(logits),), -1, dtype=torch.int64)
    if len(ground_truth) == 0:
        return assigned
    flat, target = mask_logits.float().flatten(1), ground_truth.flatten(1)
    dice = pairwise_dice_loss(flat.sigmoid(), target, MATCH_EPS)
    bce = (F.softplus(-flat) @ target.T + F.softplus(flat) @ (1 - target).T) / flat.shape[1]
    presence = F.softplus(-logits.float())[:, None]
    cost = objective.dice_cost * dice + objective.bce_cost * bce + objective.presence_cost * presence
    slots, masks = _assign(cost.cpu().numpy())
    assigned[torch.from_numpy(slots)] = torch.from_numpy(masks)
    return assigned


@torch.no_grad()
def match_layers(
    mask_logits: torch.Tensor,
    logits: torch.Tensor,
    boxes: torch.Tensor,
    masks: torch.Tensor,
    true_boxes: torch.Tensor,
    slots: int,
    weights: LayerWeights,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Match the slots of a phrase to its N objects in each layer and group, by masks, boxes and presence.

    Args:
        mask_logits: [R, n], where R is layers * groups * slots.
        logits: Presence logits [R].
        boxes: [R, 4] xyxy.
        masks: Ground truth [N, n].
        true_boxes: [N, 4] xyxy.
        slots: K, the rows of a group.
        weights: Give the costs.

    Returns:
        Rows in 0 to R - 1 and the indices of the objects matched to them.
    """
    dice = pairwise_dice_loss(mask_logits.sigmoid(), masks)
    bce = F.softplus(mask_logits).mean(1)[:, None] - mask_logits @ masks.T / mask_logits.shape[1]
    return _assign_groups(
        weights.mask_bce * bce
        + weights.mask_dice * dice
        + weights.box_l1 * torch.cdist(boxes, true_boxes, p=1)
        + weights.presence * F.softplus(-logits)[:, None],
        slots,
    )


@torch.no_grad()
def match_layer_boxes(
    logits: torch.Tensor, boxes: torch.Tensor, true_boxes: torch.Tensor, slots: int, weights: LayerWeights
) -> tuple[torch.Tensor, torch.Tensor]:
    """Match as `match_layers` does, by boxes and presence alone."""
    boxes = boxes.nan_to_num()  # generalized_box_iou refuses boxes that are not numbers
    cost = weights.box_l1 * torch.cdist(boxes, true_boxes, p=1)
    cost = cost - weights.box_giou * generalized_box_iou(boxes, true_boxes)
    return _assign_groups(cost + weights.presence * F.softplus(-logits)[:, None], slots)


def _assign(cost: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return rows and columns of the cheapest one-to-one pairs.

    Numbers that are not finite match anything: the losses are not finite then either, and the trainer names them.
    """
    return linear_sum_assignment(np.nan_to_num(cost))


def _assign_groups(cost: torch.Tensor, slots: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return rows and columns of the cheapest one-to-one pairs in each group of `slots` rows of cost [R, N]."""
    costs = cost.cpu().numpy()
    rows, columns = [], []
    for first in range(0, len(costs), slots):
        row, column = _assign(costs[first : first + slots])
        rows += (first + row).tolist()
        columns += column.tolist()
    return torch.tensor(rows), torch.tensor(columns)

"""Box losses: tight boxes of masks, distances of matched boxes, and mask losses for targets that are boxes only."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from transformers.loss.loss_for_object_detection import generalized_box_iou

from instructsam.train.losses.dice import squared_dice_loss
from instructsam.train.losses.mask_losses import MaskTerms, PhraseLoss
from instructsam.train.losses.matching import match_slots
from instructsam.train.losses.objective import Objective


class BoxDistances(NamedTuple):
    """Sums over pairs of boxes."""

    l1: torch.Tensor
    giou: torch.Tensor  # sum of 1 - generalized IoU


def box_distances(boxes: torch.Tensor, true: torch.Tensor) -> BoxDistances:
    """Return the summed distances of N pairs of boxes [N, 4] xyxy."""
    return BoxDistances((boxes - true).abs().sum(), (1 - generalized_box_iou(boxes, true).diagonal()).sum())


def tight_boxes(masks: torch.Tensor) -> torch.Tensor:
    """Return the boxes [N, 4] xyxy, 0 to 1, of masks [N, H, W] bool; an empty mask gets the whole image."""
    height, width = masks.shape[1:]
    x, y = masks.any(1), masks.any(2)
    left, top = x.int().argmax(1), y.int().argmax(1)
    right, bottom = width - x.flip(1).int().argmax(1), height - y.flip(1).int().argmax(1)
    return torch.stack([left / width, top / height, right / width, bottom / height], dim=1)


def grow_boxes(boxes: torch.Tensor, share: float) -> torch.Tensor:
    """Return boxes [N, 4] xyxy with `share` of their sides added on each of their four sides."""
    margin = share * (boxes[:, 2:] - boxes[:, :2])
    return torch.cat([boxes[:, :2] - margin, boxes[:, 2:] + margin], dim=1)


def box_terms(mask_logits: torch.Tensor, logits: torch.Tensor, boxes: torch.Tensor, objective: Objective) -> PhraseLoss:
    """Return the loss terms of a phrase whose ground truth is boxes.

    The projections of each mask onto both axes must be those of its box (BoxInst's projection loss, arXiv 2012.02310).
    The slots are matched to the filled boxes.

    Args:
        mask_logits: [K, h, w].
        logits: Presence logits [K].
        boxes: [N, 4] xyxy, 0 to 1.
        objective: Gives the matching costs.
    """
    height, width = mask_logits.shape[-2:]
    filled = fill_boxes(boxes, height, width)
    assigned = match_slots(mask_logits, logits, filled, objective)
    slots = (assigned >= 0).nonzero().flatten().to(logits.device)
    presence_target = torch.zeros_like(logits, dtype=torch.float32)
    dice = mask_logits.sum() * 0.0  # connects all masks to the graph even if no slot is matched
    if len(slots):
        presence_target[slots] = 1.0
        probability, target = mask_logits[slots].float().sigmoid(), filled[assigned[slots.cpu()]]
        for axis in (1, 2):  # the maximum over rows is the extent in x, that over columns the extent in y
            dice = dice + squared_dice_loss(probability.amax(axis), target.amax(axis)).sum() / 2
    presence = F.binary_cross_entropy_with_logits(logits.float(), presence_target)
    return PhraseLoss(MaskTerms(mask_logits.sum() * 0.0, dice, presence), assigned)


def fill_boxes(boxes: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """Return boxes [N, 4] xyxy, 0 to 1, as masks [N, height, width] float32; a box fills at least one pixel."""
    x = (torch.arange(width, device=boxes.device) + 0.5) / width
    y = (torch.arange(height, device=boxes.device) + 0.5) / height
    half_pixel = boxes.new_tensor([0.5 / width, 0.5 / height])
    centre = (boxes[:, :2] + boxes[:, 2:]) / 2
    extent = torch.maximum((boxes[:, 2:] - boxes[:, :2]) / 2, half_pixel)
    inside_x = (x[None] - centre[:, :1]).abs() <= extent[:, :1]
    inside_y = (y[None] - centre[:, 1:]).abs() <= extent[:, 1:]
    return (inside_y[:, :, None] & inside_x[:, None, :]).float()

"""Dice losses and overlaps of masks (V-Net, arXiv 1606.04797), in the forms that losses and matching costs use.

Masks are probabilities or ground truth in 0 to 1, flattened to [N, n].
"""

import torch

DICE_EPS = 1.0
"""Smoothing of the losses, as in DETR: an empty mask predicted as empty costs nothing."""


def dice_loss(probability: torch.Tensor, target: torch.Tensor, eps: float = DICE_EPS) -> torch.Tensor:
    """Return the dice loss [N] of N pairs."""
    overlap = 2 * (probability * target).sum(1)
    return _loss(overlap, probability.sum(1) + target.sum(1), eps)


def squared_dice_loss(probability: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Return the dice loss [N] of N pairs with squared sizes, as in BoxInst's projection loss (arXiv 2012.02310)."""
    overlap = 2 * (probability * target).sum(1)
    return _loss(overlap, probability.square().sum(1) + target.square().sum(1), DICE_EPS)


def pairwise_dice_loss(probability: torch.Tensor, target: torch.Tensor, eps: float = DICE_EPS) -> torch.Tensor:
    """Return the dice loss [N, M] of all pairs of N predictions and M targets."""
    overlap = 2 * probability @ target.T
    return _loss(overlap, probability.sum(1)[:, None] + target.sum(1)[None], eps)


def soft_dice(probability: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Return the dice coefficient [N] of N pairs, 0 to 1; 0 for two empty masks.

    The overlap is the smaller value of each cell, so that a mask which equals its ground truth has a coefficient of 1,
    also where objects cover parts of cells. For binary ground truth that is the product.
    """
    return 2 * torch.minimum(probability, target).sum(1) / (probability.sum(1) + target.sum(1) + 1e-6)


def _loss(overlap: torch.Tensor, sizes: torch.Tensor, eps: float) -> torch.Tensor:
    return 1 - (overlap + eps) / (sizes + eps)

"""Auxiliary loss that aligns phrase embeddings with the image features of both encoders.

The mean embedding of a phrase's words has to distinguish the cells that the phrase refers to from all others: on SAM3's
features, where the phrase conditions the detector, and on Qwen's image tokens. Without it, a detector and a language
model that are trained from scratch take long to make any use of each other. The heads are dropped after training.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import nn

from instructsam.train.data.batch import Batch, token_grid
from instructsam.train.losses.dice import dice_loss
from instructsam.train.losses.loss_sum import LossSum

if TYPE_CHECKING:
    from instructsam.core.model.config import ModelConfig
    from instructsam.core.model.instructsam import InstructSAMModel

BCE_WEIGHT, DICE_WEIGHT = 5.0, 1.0  # weights as for the semantic head, see LayerWeights
INITIAL_BIAS = -3.0  # low initial probability, because few cells belong to a phrase


class Alignment(nn.Module):
    """Projections of cells and of words to a common space, for each of the two encoders."""

    def __init__(self, config: ModelConfig):
        super().__init__()
        widths = {'coarse': config.bridge_dim, 'tokens': config.text.hidden_size}
        self.places = nn.ModuleDict({n: nn.Sequential(nn.LayerNorm(w), nn.Linear(w, w)) for n, w in widths.items()})
        self.words = nn.ModuleDict({n: nn.Linear(w, w) for n, w in widths.items()})
        self.fused = nn.Sequential(nn.LayerNorm(config.bridge_dim), nn.Linear(config.bridge_dim, 1))
        self.bias = nn.ParameterDict({name: torch.full((), INITIAL_BIAS) for name in widths})

    def forward(
        self,
        model: InstructSAMModel,
        batch: Batch,
        tokens: torch.Tensor | None = None,
        coarse: torch.Tensor | None = None,
    ) -> dict[str, LossSum]:
        """Return the loss sums of a batch with masks, whose images have token grids of one size.

        Phrases that may describe more objects than their targets are left out; at least one must not.

        Args:
            model: Gives the word embeddings and the phrase conditioning.
            batch: The batch.
            tokens: Qwen's image tokens [B * rows * columns, width]; None if they are not trained.
            coarse: SAM3's coarsest features [B, C, h, w]; None if they are not trained.
        """
        whole = [index for index, is_partial in enumerate(batch.text.partial) if not is_partial]
        phrases = [batch.text.phrase_ids[index] for index in whole]
        ids, mask = model.pad_phrases(phrases)
        cells, words = {}, {}
        if tokens is not None:
            cells['tokens'], words['tokens'] = _token_map(tokens, batch), _masked_mean(model.embed(ids), mask)
        if coarse is not None:
            conditioning, _ = model.phrase_conditioning(phrases, 'consistent')
            cells['coarse'], words['coarse'] = coarse.permute(0, 2, 3, 1), _masked_mean(conditioning, mask)
        samples = torch.tensor([batch.text.blocks[index][0] for index in whole], device=ids.device)
        unions = [batch.masks[index].any(0) for index in whole]
        losses = {}
        for name, values in cells.items():
            target = _cell_shares(unions, values.shape[1:3], ids.device)
            keys = self.places[name](values).flatten(1, 2).index_select(0, samples)
            logits = (keys @ self.words[name](words[name])[..., None])[..., 0] / keys.shape[-1] ** 0.5 + self.bias[name]
            losses[f'align_{name}'] = LossSum(_map_loss(logits, target), 'blocks')
        return losses

    def fused_loss(self, encoded: torch.Tensor, masks: Sequence[torch.Tensor]) -> dict[str, LossSum]:
        """Return the loss sum of the fusion encoder's features [P, h, w, d]; masks: one [N, H, W] per phrase."""
        target = _cell_shares([each.any(0) for each in masks], encoded.shape[1:3], encoded.device)
        return {'align_fused': LossSum(_map_loss(self.fused(encoded)[..., 0].flatten(1), target), 'phrases')}


def _cell_shares(unions: Sequence[torch.Tensor], size: torch.Size, device: torch.device) -> torch.Tensor:
    """Return the share of each cell of a grid that masks [H, W] cover, [P, cells]."""
    shares = [F.interpolate(union[None, None].float().to(device), size=size, mode='area') for union in unions]
    return torch.cat(shares).flatten(1)


def _map_loss(logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Return the summed loss of logits [P, cells]."""
    bce = F.binary_cross_entropy_with_logits(logits, target, reduction='none').mean(1).sum()
    return BCE_WEIGHT * bce + DICE_WEIGHT * dice_loss(logits.sigmoid(), target).sum()


def _masked_mean(values: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Return the mean of values [P, n, d] over the rows in mask [P, n]."""
    weights = mask[..., None].to(values)
    return (values * weights).sum(1) / weights.sum(1)


def _token_map(tokens: torch.Tensor, batch: Batch) -> torch.Tensor:
    """Return image tokens as [B, rows, columns, width]."""
    count = len(batch.grids)
    return tokens.view(count, *token_grid(batch.grids[0], len(tokens) // count), -1)

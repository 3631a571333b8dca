"""Words and what they look like, brought together before anything else is made of them.

The words of a phrase, added up, are to tell the places that the phrase means from all others: on SAM3's features, where
the phrase conditions its detector, and on Qwen's image tokens. Detector and language model, which learn from nothing,
wait long for the first use of either without it. The heads are left behind afterwards.
"""

import torch
import torch.nn.functional as F
from torch import nn

from instructsam.train.losses.mask_losses import dice_loss
from instructsam.train.stages.forward import token_grid

BCE, DICE = 5.0, 1.0  # as of the semantic head, see layers.LayerWeights
RARE = -3.0  # first logit: few places are meant


class Alignment(nn.Module):
    """A map of places and one of words into a common space, for each of the two encoders."""

    def __init__(self, config):
        super().__init__()
        widths = {'coarse': config.bridge_dim, 'tokens': config.qwen.text_config.hidden_size}
        self.places = nn.ModuleDict({n: nn.Sequential(nn.LayerNorm(w), nn.Linear(w, w)) for n, w in widths.items()})
        self.words = nn.ModuleDict({n: nn.Linear(w, w) for n, w in widths.items()})
        self.fused = nn.Sequential(nn.LayerNorm(config.bridge_dim), nn.Linear(config.bridge_dim, 1))
        self.bias = nn.ParameterDict({name: torch.full((), RARE) for name in widths})

    def forward(self, model, batch, tokens=None, coarse=None):
        """Loss sums of a forward.Batch with masks, whose images have one size: {term: (sum, 'blocks')}.

        tokens [B * rows * columns, width]: Qwen's image tokens; coarse [B, C, h, w]: SAM3's features; None where they
        do not learn.
        """
        phrases = batch.text.phrase_ids
        ids, mask = model.pad_phrases(phrases)
        places, words = {}, {}
        if tokens is not None:
            places['tokens'], words['tokens'] = _grid(tokens, batch), _mean(model.embed(ids), mask)
        if coarse is not None:
            conditions, _ = model.phrase_conditioning(phrases, 'consistent')
            places['coarse'], words['coarse'] = coarse.permute(0, 2, 3, 1), _mean(conditions, mask)
        samples = torch.tensor([sample for sample, _ in batch.text.blocks], device=ids.device)
        unions = [masks.any(0) for masks in batch.masks]
        losses = {}
        for name, values in places.items():
            truth = _share(unions, values.shape[1:3], ids.device)
            keys = self.places[name](values).flatten(1, 2).index_select(0, samples)
            logits = (keys @ self.words[name](words[name])[..., None])[..., 0] / keys.shape[-1] ** 0.5 + self.bias[name]
            losses[f'align_{name}'] = _compare(logits, truth), 'blocks'
        return losses

    def of_fused(self, encoded, masks):
        """Loss sum of the fusion encoder's features [P, h, w, d] of phrases with `masks` [N, H, W] each."""
        truth = _share([each.any(0) for each in masks], encoded.shape[1:3], encoded.device)
        return {'align_fused': (_compare(self.fused(encoded)[..., 0].flatten(1), truth), 'phrases')}


def _share(unions, size, device):
    """Masks [H, W] as shares of the cells of a grid of `size`, [P, cells]."""
    return F.interpolate(torch.stack(unions)[:, None].float().to(device), size=size, mode='area').flatten(1)


def _compare(logits, truth):
    """Loss sum of logits [P, cells]."""
    bce = F.binary_cross_entropy_with_logits(logits, truth, reduction='none').mean(1).sum()
    return BCE * bce + DICE * dice_loss(logits.sigmoid(), truth).sum()


def _mean(values, mask):
    """Mean of values [P, n, d] over the rows in mask [P, n]."""
    mask = mask[..., None].to(values)
    return (values * mask).sum(1) / mask.sum(1)


def _grid(tokens, batch):
    """Image tokens as [B, rows, columns, width]."""
    count = len(batch.grids)
    return tokens.view(count, *token_grid(batch.grids[0], len(tokens) // count), -1)

"""Dense prediction losses: category, colour and box distances of every cell of a feature map, and token positions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import nn

from instructsam.train.data.scene_labels import CATEGORY, CELLS, COLOR, Labels
from instructsam.train.losses.loss_sum import LossSum

if TYPE_CHECKING:
    from instructsam.core.model.config import ModelConfig

NUM_CATEGORIES = len(CATEGORY) + 1
NUM_COLORS = len(COLOR) + 1
BOX_WEIGHT = 5.0
POSITION_WEIGHT = 5.0
SMOOTH_L1_BETA = 0.05  # for distances as shares of the image's side


class DenseHeads(nn.ModuleDict):
    """Linear heads on some feature maps: pixels (the pixel decoder's), coarse (SAM3's), tokens (Qwen's).

    Qwen's tokens also predict their own position (head `place`): the language model has nothing else to compare
    positions by.
    """

    def __init__(self, config: ModelConfig, names: Sequence[str]):
        sam_width, text_width = config.bridge_dim, config.text.hidden_size
        widths = {'pixels': sam_width, 'coarse': sam_width, 'tokens': text_width}
        super().__init__({name: _head(widths[name], NUM_CATEGORIES + NUM_COLORS + 4) for name in names})
        self['place'] = _head(text_width, 2)

    def losses(self, name: str, values: torch.Tensor, labels: Labels) -> dict[str, LossSum]:
        """Return the loss sums of the feature map `name`, values [B, h, w, C]."""
        terms = dense_terms(self[name](values), labels)
        return {f'{name}_{term}': LossSum(loss, 'images') for term, loss in terms.items()}

    def token_losses(self, tokens: torch.Tensor, labels: Labels) -> dict[str, LossSum]:
        """Return the loss sums of Qwen's tokens [B * h * w, C], with that of their positions."""
        count, rows, columns = labels.category.shape
        tokens = tokens.view(count, rows // CELLS, columns // CELLS, -1)
        y, x = ((torch.arange(size, device=tokens.device) + 0.5) / size for size in tokens.shape[1:3])
        y, x = torch.meshgrid(y, x, indexing='ij')
        positions = torch.stack([x, y], dim=-1).expand(count, -1, -1, -1)
        error = F.smooth_l1_loss(self['place'](tokens), positions, reduction='none', beta=SMOOTH_L1_BETA)
        loss = POSITION_WEIGHT * error.mean((1, 2)).sum()
        return {**self.losses('tokens', tokens, labels), 'tokens_place': LossSum(loss, 'images')}

    def categories(self, name: str, values: torch.Tensor) -> torch.Tensor:
        """Return the most likely category of each cell of the feature map `name`, [B, h, w]; 0: no object."""
        return self[name](values)[..., :NUM_CATEGORIES].argmax(-1)


def _head(width: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(nn.LayerNorm(width), nn.Linear(width, outputs))


def dense_terms(outputs: torch.Tensor, labels: Labels) -> dict[str, torch.Tensor]:
    """Return the mean category, color and box loss of an image, summed over images.

    Args:
        outputs: [B, h, w, C], on the labels' grid or CELLS times coarser; the target of a coarse cell is the mixture of
            its labels.
        labels: The labels.
    """
    cells = labels.category.shape[1] // outputs.shape[1]
    category, color, box_distances = outputs.split([NUM_CATEGORIES, NUM_COLORS, 4], dim=-1)
    is_object = (labels.category > 0).float()
    weight = _pool(is_object[:, None], cells)[:, 0]  # [B, h, w] share of the cell that shows an object
    target = _pool((labels.box_distances * is_object[:, None]), cells) / weight.clamp(min=1e-6)[:, None]
    per_object = weight / weight.sum((1, 2), keepdim=True).clamp(min=1)
    box_error = F.smooth_l1_loss(box_distances.permute(0, 3, 1, 2), target, reduction='none', beta=SMOOTH_L1_BETA)
    category_loss = _cross_entropy(category, labels.category, cells) * (1 + 3 * weight) / weight[0].numel()
    return {
        'category': category_loss.sum(),
        'color': (_cross_entropy(color, labels.color, cells) * per_object).sum(),
        'box': (BOX_WEIGHT * box_error.sum(1) * per_object).sum(),
    }


def _cross_entropy(logits: torch.Tensor, labels: torch.Tensor, cells: int) -> torch.Tensor:
    """Return the cross-entropy [B, h, w] against the label of each cell, or the shares of the labels in it."""
    if cells == 1:
        return F.cross_entropy(logits.permute(0, 3, 1, 2), labels, reduction='none')
    shares = _pool(F.one_hot(labels, logits.shape[-1]).permute(0, 3, 1, 2).float(), cells)
    return -(logits.log_softmax(-1).permute(0, 3, 1, 2) * shares).sum(1)


def _pool(maps: torch.Tensor, cells: int) -> torch.Tensor:
    return maps if cells == 1 else F.avg_pool2d(maps, cells)

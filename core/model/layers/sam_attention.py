"""Attention in SAM3: self-attention of the image encoder with a rotary table, and attention of the detector.

The former replaces transformers' modules inside each layer, in training too; parameters keep their names.
"""

from __future__ import annotations

from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import nn

from instructsam.core.model.layers.joint_linear import JointLinear
from instructsam.core.model.layers.rotary import axial_table, rotate_pairs


class RotaryGrid(nn.Module):
    """The rotary table of a window, or of the whole grid of patches."""

    def __init__(self, config: Any, window: int):
        """Compute the table.

        Args:
            config: SAM3's Sam3ViTConfig.
            window: Side of the windows in patches; 0: the layer attends to the whole grid.
        """
        super().__init__()
        side = window or config.image_size // config.patch_size
        theta = getattr(config, 'rope_theta', None) or config.rope_parameters['rope_theta']
        size = config.hidden_size // config.num_attention_heads
        table = axial_table(side, side, size, theta, scale=config.window_size / side)
        # Real numbers, because a change of precision would drop the imaginary part.
        self.register_buffer('table', torch.view_as_real(table), persistent=False)

    def forward(self, *inputs: object) -> torch.Tensor:
        """Return the table [n, d / 2] of unit complex numbers; releases of transformers pass different inputs."""
        table = cast(torch.Tensor, self.table)
        return torch.view_as_complex(table.float())


class RotaryAttention(nn.Module):
    """Self-attention of B windows with rotary positions."""

    def __init__(self, original: Any):
        """Take over the parameters of a Sam3ViTRoPEAttention."""
        super().__init__()
        self.heads: int = original.num_attention_heads
        self.q_proj, self.k_proj, self.v_proj = original.q_proj, original.k_proj, original.v_proj
        self.o_proj = original.o_proj
        self.qkv = JointLinear()

    def join(self) -> None:
        """Join the projections, see JointLinear."""
        self.qkv.join((self.q_proj, self.k_proj, self.v_proj))

    def forward(self, hidden: torch.Tensor, table: torch.Tensor, **options: object) -> tuple[torch.Tensor, None]:
        """Return the attended windows, like `hidden` [B, h, w, C], and no weights, which transformers' modules return.

        `table` [h * w, d / 2] is that of RotaryGrid.
        """
        qkv = self.qkv.side_by_side(hidden, self.q_proj, self.k_proj, self.v_proj)
        qkv = qkv.flatten(1, 2).unflatten(-1, (3 * self.heads, -1))  # [B, h w, 3 heads, d]
        query_keys, values = qkv.split([2 * self.heads, self.heads], dim=2)
        query_keys = rotate_pairs(query_keys, table).transpose(1, 2)
        queries, keys = query_keys.split([self.heads, self.heads], dim=1)
        attended = F.scaled_dot_product_attention(queries, keys, values.transpose(1, 2))
        return self.o_proj(attended.transpose(1, 2).flatten(2).view_as(hidden)), None


def use_rotary_attention(backbone: Any) -> None:
    """Replace the attention of every layer of a Sam3ViTModel."""
    for layer in backbone.layers:
        layer.rotary_emb = RotaryGrid(backbone.config, layer.window_size)
        layer.attention = RotaryAttention(layer.attention)


def cross_attend(
    attention: Any, queries: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, mask: torch.Tensor | None = None
) -> torch.Tensor:
    """Return the output [G, M, d] of a Sam3Attention for projected inputs.

    Args:
        attention: The module.
        queries: [G, M, d].
        keys: [G, N, d].
        values: [G, N, d].
        mask: [G or 1, heads or 1, M or 1, N], added to the logits.
    """
    queries, keys, values = (
        each.unflatten(-1, (attention.num_attention_heads, -1)).transpose(1, 2) for each in (queries, keys, values)
    )
    attended = F.scaled_dot_product_attention(queries, keys, values, attn_mask=mask)
    return attention.o_proj(attended.transpose(1, 2).flatten(2))


def additive_mask(mask: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Return the additive mask [G, 1, 1, T] of logits [G, heads, M, T]: 0 where `mask` [G, T] is true, else -inf."""
    zeros = torch.zeros(mask.shape, dtype=dtype, device=mask.device)
    return zeros.masked_fill(mask.logical_not(), float('-inf'))[:, None, None, :]


def dropped(dropout: Any, values: torch.Tensor) -> torch.Tensor:
    """Apply a dropout module, which costs an operation only where it does something."""
    return dropout(values) if dropout.training and dropout.p else values

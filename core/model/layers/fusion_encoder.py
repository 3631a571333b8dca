"""SAM3's fusion encoder, split where the phrase comes in.

The first layer's self-attention sees the image alone, and is computed once for all phrases. The projections of the
phrase for all layers are one matrix product.
"""

from __future__ import annotations

from typing import Any

import torch

from instructsam.core.model.layers.joint_linear import JointLinear
from instructsam.core.model.layers.sam3_modules import sam3
from instructsam.core.model.layers.sam_attention import additive_mask, cross_attend, dropped


class FusionEncoder(sam3.Sam3DetrEncoder):
    """SAM3's DETR encoder on one level of features."""

    def __init__(self, config: Any):
        super().__init__(config)
        self._text = JointLinear()
        self._positioned = [JointLinear() for _ in self.layers]

    def join(self) -> None:
        """Join the projections, see JointLinear."""
        self._text.join(self._text_projections())
        layers: Any = self.layers
        for joint, layer in zip(self._positioned, layers, strict=True):
            joint.join((layer.self_attn.q_proj, layer.self_attn.k_proj))

    def attend_image(self, hidden: torch.Tensor, position: torch.Tensor) -> torch.Tensor:
        """Return features [B, N, d] after the first self-attention; `position` [1, N, d] is their encoding."""
        return self._self_attend(0, hidden, position)

    def forward(  # pyright: ignore[reportIncompatibleMethodOverride]  # another interface than SAM3's, on purpose
        self, attended: torch.Tensor, position: torch.Tensor, text: torch.Tensor, text_mask: torch.Tensor
    ) -> torch.Tensor:
        """Condition image features on phrases.

        Args:
            attended: [G or 1, N, d] from `attend_image`.
            position: [1, N, d].
            text: [G, T, d] phrase conditioning.
            text_mask: [G, T] bool, true at real tokens.

        Returns:
            Encoded features [G, N, d].
        """
        hidden = attended.expand(len(text), -1, -1)
        mask = additive_mask(text_mask, text.dtype)
        projected = self._text(text, *self._text_projections())
        layers: Any = self.layers
        for index, layer in enumerate(layers):
            if index:
                hidden = self._self_attend(index, hidden, position)
            attention, keys, values = layer.cross_attn, *projected[2 * index : 2 * index + 2]
            attended = cross_attend(attention, attention.q_proj(layer.layer_norm2(hidden)), keys, values, mask)
            hidden = hidden + dropped(layer.dropout, attended)
            hidden = hidden + dropped(layer.dropout, layer.mlp(layer.layer_norm3(hidden)))
        return hidden

    def _self_attend(self, index: int, hidden: torch.Tensor, position: torch.Tensor) -> torch.Tensor:
        layer: Any = self.layers[index]
        attention, normed = layer.self_attn, layer.layer_norm1(hidden)
        queries, keys = self._positioned[index](normed + position, attention.q_proj, attention.k_proj)
        return hidden + dropped(layer.dropout, cross_attend(attention, queries, keys, attention.v_proj(normed)))

    def _text_projections(self) -> list[Any]:
        attentions: list[Any] = [layer.cross_attn for layer in self.layers]
        return [projection for each in attentions for projection in (each.k_proj, each.v_proj)]

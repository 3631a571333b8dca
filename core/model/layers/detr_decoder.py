"""SAM3's detector (a DETR decoder) without its presence token, driven by given queries.

The keys and values that all layers project from the image and from the phrase are joint matrix products.
"""

from __future__ import annotations

import math
from typing import Any, cast

import torch
from torch import nn
from transformers.models.sam3.configuration_sam3 import Sam3DETRDecoderConfig

from instructsam.core.model.layers.joint_linear import JointLinear
from instructsam.core.model.layers.sam3_modules import sam3
from instructsam.core.model.layers.sam_attention import additive_mask, cross_attend, dropped

TEMPERATURE = 10000  # base of the wavelengths of the sine encoding of boxes


class DetrDecoder(sam3.Sam3DetrDecoder):
    """SAM3's detector without its presence token, driven by given queries."""

    def __init__(self, config: Sam3DETRDecoderConfig):
        super().__init__(config)
        for name in ('presence_token', 'presence_head', 'presence_layer_norm'):
            delattr(self, name)
        count = config.hidden_size // 2
        powers = 2 * torch.div(torch.arange(count), 2, rounding_mode='floor') / count
        self.register_buffer('wavelengths', TEMPERATURE**powers, persistent=False)
        self._image_keys, self._image_values, self._text = JointLinear(), JointLinear(), JointLinear()
        self._positioned = [JointLinear() for _ in self.layers]

    def join(self) -> None:
        """Join the projections, see JointLinear."""
        self._image_keys.join(self._projections('vision_cross_attn', 'k_proj'))
        self._image_values.join(self._projections('vision_cross_attn', 'v_proj'))
        self._text.join(self._projections('text_cross_attn', 'k_proj', 'v_proj'))
        layers: Any = self.layers
        for joint, layer in zip(self._positioned, layers, strict=True):
            joint.join((layer.self_attn.q_proj, layer.self_attn.k_proj))

    def forward(  # pyright: ignore[reportIncompatibleMethodOverride]  # another interface than SAM3's, on purpose
        self,
        queries: torch.Tensor,
        encoded: torch.Tensor,
        position: torch.Tensor,
        text: torch.Tensor,
        text_mask: torch.Tensor,
        side: int,
        references: torch.Tensor | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Refine slots and boxes layer by layer.

        Args:
            queries: [G, K, d] initial slots.
            encoded: [G, N, d] output of the fusion encoder.
            position: [G or 1, N, d] position encoding of `encoded`.
            text: [G, T, d] phrase conditioning.
            text_mask: [G, T] bool, true at real tokens.
            side: Side of the square grid, side ** 2 = N.
            references: [G, K, 4] reference boxes cxcywh before the sigmoid; None: the model's own, one per slot (the
                first K, if it has more).

        Returns:
            Slots [layers, G, K, d] after every layer, and reference boxes [layers, G, K, 4] cxcywh, the input of every
            layer.
        """
        start = self.reference_points.weight[: queries.shape[1]] if references is None else references
        boxes = start.sigmoid().expand(len(queries), -1, -1)
        mask = additive_mask(text_mask, text.dtype)
        image_keys = self._image_keys(encoded + position, *self._projections('vision_cross_attn', 'k_proj'))
        image_values = self._image_values(encoded, *self._projections('vision_cross_attn', 'v_proj'))
        words = self._text(text, *self._projections('text_cross_attn', 'k_proj', 'v_proj'))
        hidden, layer_boxes = [], []
        for index in range(len(self.layers)):
            layer_boxes.append(boxes)
            image = image_keys[index], image_values[index], self.box_bias(boxes, side)
            queries = self._layer(index, queries, boxes, (words[2 * index], words[2 * index + 1], mask), image)
            normed = self.output_layer_norm(queries)
            hidden.append(normed)
            boxes = (sam3.inverse_sigmoid(boxes) + self.box_head(normed)).sigmoid().detach()
        return torch.stack(hidden), torch.stack(layer_boxes)

    def _layer(
        self,
        index: int,
        queries: torch.Tensor,
        boxes: torch.Tensor,
        words: tuple[torch.Tensor, torch.Tensor, torch.Tensor],
        image: tuple[torch.Tensor, torch.Tensor, torch.Tensor],
    ) -> torch.Tensor:
        """Run one layer: self-attention, text, image (biased towards the box), MLP; each is post-normed.

        `words` and `image` are keys, values and the additive mask or bias of the attention.
        """
        layer: Any = self.layers[index]
        query_position = self.ref_point_head(self.encode_boxes(boxes))
        attention = layer.self_attn
        own_queries, own_keys = self._positioned[index](queries + query_position, attention.q_proj, attention.k_proj)
        attended = cross_attend(attention, own_queries, own_keys, attention.v_proj(queries))
        queries = layer.self_attn_layer_norm(queries + dropped(layer.self_attn_dropout, attended))

        attention = layer.text_cross_attn
        attended = cross_attend(attention, attention.q_proj(queries + query_position), *words)
        queries = layer.text_cross_attn_layer_norm(queries + dropped(layer.text_cross_attn_dropout, attended))

        attention = layer.vision_cross_attn
        attended = cross_attend(attention, attention.q_proj(queries + query_position), *image)
        queries = layer.vision_cross_attn_layer_norm(queries + dropped(layer.vision_cross_attn_dropout, attended))
        return layer.mlp_layer_norm(queries + dropped(layer.mlp_dropout, layer.mlp(queries)))

    def encode_boxes(self, boxes: torch.Tensor) -> torch.Tensor:
        """Return the sine encoding [G, K, 2d] of boxes [G, K, 4] cxcywh, in the order y, x, w, h."""
        ordered = torch.cat([boxes[..., 1:2], boxes[..., :1], boxes[..., 2:]], dim=-1) * (2 * math.pi)
        angles = ordered[..., None] / cast(torch.Tensor, self.wavelengths).to(boxes.dtype)
        return torch.stack([angles[..., 0::2].sin(), angles[..., 1::2].cos()], dim=-1).flatten(-3)

    def box_bias(self, boxes: torch.Tensor, side: int) -> torch.Tensor:
        """Return the bias that directs the attention of slots to their boxes [G, K, 4] cxcywh (box RPB).

        It is the sum of a row's and a column's bias, which depend on the distances to the box's edges, in a
        logarithmic scale.

        Returns [G, heads, K, N], added to the logits.
        """
        cells = torch.arange(side, dtype=boxes.dtype, device=boxes.device) / side
        distances = (cells[:, None] - sam3.box_cxcywh_to_xyxy(boxes)[..., None, :]) * 8  # [G, K, side, 4]
        scaled = torch.sign(distances) * torch.log2(torch.abs(distances) + 1.0) / math.log2(8)
        columns = self.box_rpb_embed_x(scaled[..., 0::2]).permute(0, 3, 1, 2).contiguous()  # [G, heads, K, side]
        rows = self.box_rpb_embed_y(scaled[..., 1::2]).permute(0, 3, 1, 2).contiguous()
        return (rows[..., :, None] + columns[..., None, :]).flatten(3)

    def _projections(self, attention: str, *names: str) -> list[nn.Module]:
        """Return the projections `names` of an attention in every layer."""
        return [getattr(getattr(layer, attention), name) for layer in self.layers for name in names]

"""SAM3 as InstructSAM uses it: image features, then masks, scores and boxes for the language model's queries.

It is built from transformers' own SAM3 modules, so that parameters have the published names. Differences to
`Sam3Model`:
- There is no text encoder and no presence token (one logit per image and phrase that scales all scores; not to be
  confused with the presence of each slot, paper, eq. 7).
- The detector starts from given queries.
- The 0.5x level of the feature pyramid is not computed.
- The feature maps of one image serve any number of phrases without being copied.
- With a trunk, its coarsest map takes the place of the image, and its finer maps are added to the pyramid.
"""

from __future__ import annotations

import importlib
import sys
import types
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import torch
import torch.nn.functional as F
from torch import nn
from transformers.models.sam3.configuration_sam3 import Sam3Config, Sam3DETRDecoderConfig

from instructsam.core.model.layers.sam_attention import use_rotary_attention


def _import_sam3() -> types.ModuleType:
    """Import transformers' SAM3 modules without torchvision.

    Release 5.0 of transformers imports torchvision at the top of the module, for box prompts only, which are not used
    here.
    """
    name = 'transformers.models.sam3.modeling_sam3'
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name != 'torchvision':
            raise
    sys.modules['torchvision'] = types.ModuleType('torchvision')
    try:
        return importlib.import_module(name)
    finally:
        del sys.modules['torchvision']


if TYPE_CHECKING:
    from transformers.models.sam3 import modeling_sam3 as sam3
else:
    sam3 = _import_sam3()


@dataclass(frozen=True)
class ImageFeatures:
    """Image features for the detector, of one image or a batch of B images."""

    pyramid: tuple[torch.Tensor, ...]  # [B, d, h, w] each, fine to coarse: 4x, 2x and 1x the patch grid
    position: torch.Tensor  # [B, d, h, w] sine position encoding of the coarsest level


@dataclass(frozen=True)
class Detections:
    """Raw outputs for G groups (phrases) of K slots."""

    mask_logits: torch.Tensor  # [G, K, 4h, 4w], h x w the patch grid of SAM3's square input
    logits: torch.Tensor  # [G, K], clamped to +-12; their sigmoid is the score
    boxes: torch.Tensor  # [G, K, 4] xyxy, 0 to 1
    encoded: torch.Tensor  # [G, N, d] output of the fusion encoder, N = h * w
    hidden: torch.Tensor  # [layers, G, K, d] slots after every detector layer
    reference_boxes: torch.Tensor  # [layers, G, K, 4] cxcywh, 0 to 1, input of every detector layer


class DetrDecoder(sam3.Sam3DetrDecoder):
    """SAM3's detector without its presence token, driven by given queries."""

    def __init__(self, config: Sam3DETRDecoderConfig):
        super().__init__(config)
        for name in ('presence_token', 'presence_head', 'presence_layer_norm'):
            delattr(self, name)

    def forward(  # pyright: ignore[reportIncompatibleMethodOverride]  # another interface than SAM3's, on purpose
        self,
        queries: torch.Tensor,
        encoded: torch.Tensor,
        position: torch.Tensor,
        text: torch.Tensor,
        text_mask: torch.Tensor,
        size: tuple[int, int],
        references: torch.Tensor | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Refine slots and boxes layer by layer.

        Args:
            queries: [G, K, d] initial slots.
            encoded: [G, N, d] output of the fusion encoder.
            position: [G, N, d] position encoding of `encoded`.
            text: [G, T, d] phrase conditioning.
            text_mask: [G, T] bool, true at real tokens.
            size: (h, w) of the grid, h * w = N.
            references: [G, K, 4] reference boxes cxcywh before the sigmoid; None: the model's own, one per slot (the
                first K, if it has more).

        Returns:
            Slots [layers, G, K, d] after every layer, and reference boxes [layers, G, K, 4] cxcywh, the input of every
            layer.
        """
        start = self.reference_points.weight[: queries.shape[1]] if references is None else references
        boxes = start.sigmoid().expand(len(queries), -1, -1)
        attend = text_mask[:, None, None, :]
        hidden, layer_boxes = [], []
        for layer in self.layers:
            layer_boxes.append(boxes)
            queries = self._layer(layer, queries, boxes, encoded, position, text, attend, size)
            normed = self.output_layer_norm(queries)
            hidden.append(normed)
            boxes = (sam3.inverse_sigmoid(boxes) + self.box_head(normed)).sigmoid().detach()
        return torch.stack(hidden), torch.stack(layer_boxes)

    def _layer(
        self,
        layer: Any,  # Sam3DetrDecoderLayer, whose modules torch types as Tensor | Module
        queries: torch.Tensor,
        boxes: torch.Tensor,
        encoded: torch.Tensor,
        position: torch.Tensor,
        text: torch.Tensor,
        attend: torch.Tensor,
        size: tuple[int, int],
    ) -> torch.Tensor:
        """Run one layer: self-attention, text, image (biased towards the box), MLP; each is post-normed."""
        query_position = self.ref_point_head(self.position_encoding.encode_boxes(boxes))
        positioned = queries + query_position
        attended, _ = layer.self_attn(query=positioned, key=positioned, value=queries)
        queries = layer.self_attn_layer_norm(queries + layer.self_attn_dropout(attended))

        attended, _ = layer.text_cross_attn(query=queries + query_position, key=text, value=text, attention_mask=attend)
        queries = layer.text_cross_attn_layer_norm(queries + layer.text_cross_attn_dropout(attended))

        attended, _ = layer.vision_cross_attn(
            query=queries + query_position,
            key=encoded + position,
            value=encoded,
            attention_mask=self._get_rpb_matrix(boxes, cast(Any, size)),  # annotated as tensors, but takes ints
        )
        queries = layer.vision_cross_attn_layer_norm(queries + layer.vision_cross_attn_dropout(attended))
        return layer.mlp_layer_norm(queries + layer.mlp_dropout(layer.mlp(queries)))


class Grounding(nn.Module):
    """Image features, then masks, scores and boxes for queries and phrases (paper, section 3.3)."""

    def __init__(self, config: Sam3Config, lateral_channels: Sequence[int] = ()):
        """Build the modules.

        Args:
            config: SAM3's configuration.
            lateral_channels: Channels of the maps that are added to the finest levels of the pyramid.
        """
        super().__init__()
        parts = cast(Any, config)  # transformers annotates its parts as dict | PreTrainedConfig | None
        vision, geometry = parts.vision_config, parts.geometry_encoder_config
        encoder, decoder, masks = parts.detr_encoder_config, parts.detr_decoder_config, parts.mask_decoder_config
        for part in (vision, vision.backbone_config, geometry, encoder, decoder, masks):
            part._attn_implementation = 'sdpa'
        self.vision_encoder = sam3.Sam3VisionModel(vision)
        use_rotary_attention(self.vision_encoder.backbone)
        width: int = vision.fpn_hidden_size
        # Lateral connections as in FPN (arXiv 1612.03144), from the trunk. Without one, there are none.
        self.laterals = nn.ModuleList(nn.Conv2d(channels, width, 1) for channels in lateral_channels)
        # The next two are not used, but are in the published file.
        self.text_projection = nn.Linear(parts.text_config.hidden_size, encoder.hidden_size)
        self.geometry_encoder = sam3.Sam3GeometryEncoder(geometry)
        self.detr_encoder = sam3.Sam3DetrEncoder(encoder)  # the fusion encoder
        self.detr_decoder = DetrDecoder(decoder)  # the detector
        self.mask_decoder = sam3.Sam3MaskDecoder(masks)
        self.dot_product_scoring = sam3.Sam3DotProductScoring(config)
        self.patch_size: int = vision.backbone_config.patch_size
        self.rows: int = vision.backbone_config.image_size // self.patch_size  # of the patch grid, which is square

    def encode(
        self, pixels: torch.Tensor, lateral_maps: Sequence[torch.Tensor] = (), *, fine: bool = True
    ) -> ImageFeatures:
        """Compute the image features.

        Args:
            pixels: [B, 3, S, S], S = image_size, values in -1 to 1; with a trunk, its coarsest map.
            lateral_maps: The trunk's finer maps, which are added to the 4x and the 2x level.
            fine: False: the pyramid has its coarsest level only, which is all that boxes need.
        """
        grid = self.backbone_grid(pixels)
        neck = self.vision_encoder.neck
        levels = neck.fpn_layers[:-1]  # the last is the 0.5x level, which is not used
        pyramid = [level(grid) for level in (levels if fine else levels[-1:])]
        if fine:
            for index, (lateral, values) in enumerate(zip(self.laterals, lateral_maps, strict=True)):
                pyramid[index] = pyramid[index] + lateral(values)
        coarse = pyramid[-1]
        return ImageFeatures(tuple(pyramid), neck.position_encoding(coarse.shape, coarse.device, coarse.dtype))

    def backbone_grid(self, pixels: torch.Tensor) -> torch.Tensor:
        """Run the backbone on `pixels` (see `encode`); return its features before the pyramid, [B, C, h, w].

        One grid cell is one patch.
        """
        tokens = self.vision_encoder.backbone(pixels).last_hidden_state
        side = pixels.shape[-1] // self.patch_size
        return tokens.view(len(tokens), side, side, -1).permute(0, 3, 1, 2)

    def forward(
        self,
        features: ImageFeatures,
        queries: torch.Tensor,
        text: torch.Tensor,
        text_mask: torch.Tensor,
        references: torch.Tensor | None = None,
    ) -> Detections:
        """Detect with G groups on one image, or with one group on each of G images.

        Args:
            features: Features of 1 or G images.
            queries: [G, K, d] from the language model.
            text: [G, T, d] phrase conditioning.
            text_mask: [G, T] bool, true at real tokens.
            references: [G, K, 4], see DetrDecoder.
        """
        encoded, position, size = self.fuse(features, text, text_mask)
        hidden, starts = self.detr_decoder(queries, encoded, position, text, text_mask, size, references)
        slots = hidden[-1]
        logits = self.dot_product_scoring(hidden[-1:], text, text_mask)[-1].squeeze(-1)
        pixels = self.pixel_embeddings(features.pyramid, encoded, text, text_mask)
        masks = self.masks(slots, self.mask_decoder.instance_projection(pixels))
        return Detections(masks, logits, self.boxes(slots, starts[-1]), encoded, hidden, starts)

    def fuse(
        self, features: ImageFeatures, text: torch.Tensor, text_mask: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, tuple[int, int]]:
        """Run the fusion encoder.

        Returns encoded features and their position encoding, [G, N, d] each, and the size (h, w) of the grid.
        """
        coarse = features.pyramid[-1].expand(len(text), -1, -1, -1)
        position = features.position.expand(len(text), -1, -1, -1)
        fused = self.detr_encoder(
            vision_features=[coarse], text_features=text, vision_pos_embeds=[position], text_mask=text_mask
        )
        height, width = coarse.shape[-2:]
        return fused.last_hidden_state, fused.pos_embeds_flattened, (height, width)

    def boxes(self, hidden: torch.Tensor, references: torch.Tensor) -> torch.Tensor:
        """Return boxes [..., K, 4] xyxy, 0 to 1, of slots [..., K, d] after a layer.

        `references` [..., K, 4] cxcywh are the reference boxes that the layer started from.
        """
        boxes = (sam3.inverse_sigmoid(references) + self.detr_decoder.box_head(hidden)).sigmoid()
        return sam3.box_cxcywh_to_xyxy(boxes)

    def pixel_embeddings(
        self, pyramid: tuple[torch.Tensor, ...], encoded: torch.Tensor, text: torch.Tensor, text_mask: torch.Tensor
    ) -> torch.Tensor:
        """Return pixel embeddings [G, d, 4h, 4w], conditioned on the phrase of each group.

        The pixel decoder gets the pyramid with the fusion encoder's output [G, N, d] as its coarsest level.
        """
        coarse = self.conditioned_map(encoded, text, text_mask, pyramid[-1].shape[-2:])
        # The finer levels do not depend on the phrase: they broadcast over the groups.
        return self.mask_decoder.pixel_decoder([*pyramid[:-1], coarse])

    def conditioned_map(
        self, encoded: torch.Tensor, text: torch.Tensor, text_mask: torch.Tensor, size: Sequence[int]
    ) -> torch.Tensor:
        """Return the pixel decoder's coarsest input [G, d, h, w]: the fusion encoder's output, once more conditioned.

        size: (h, w) of the grid; for the others see `pixel_embeddings`.
        """
        decoder = self.mask_decoder
        attended, _ = decoder.prompt_cross_attn(
            query=decoder.prompt_cross_attn_norm(encoded), key=text, value=text, attention_mask=text_mask[:, None, None]
        )
        encoded = encoded + decoder.prompt_cross_attn_dropout(attended)
        return encoded.transpose(1, 2).reshape(len(encoded), -1, *size)

    def masks(self, slots: torch.Tensor, pixels: torch.Tensor) -> torch.Tensor:
        """Return mask logits [G, K, 4h, 4w]: dot products of slots [G, K, d] and pixel embeddings [G, d, 4h, 4w]."""
        return torch.einsum('gkc,gchw->gkhw', self.mask_decoder.mask_embedder(slots), pixels)

    def mask_vectors(self, slots: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the vectors [..., d] and offsets [...] that turn the pixel decoder's output into the masks of slots.

        A mask logit is the dot product of the vector and the output at a pixel, plus the offset. This is `masks` with
        the projection of the pixels applied to the few slots instead.
        """
        embeddings, projection = self.mask_decoder.mask_embedder(slots), self.mask_decoder.instance_projection
        assert projection.bias is not None  # SAM3's has one
        return embeddings @ projection.weight.flatten(1), embeddings @ projection.bias


def resize_masks(logits: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """Resize mask logits [N, h, w] to [N, height, width] float32 (bilinear, corners not aligned)."""
    return F.interpolate(logits[:, None].float(), size=(height, width), mode='bilinear', align_corners=False)[:, 0]

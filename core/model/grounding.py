"""SAM3 as InstructSAM uses it: image features, then masks, scores and boxes for the language model's queries.

It is built from transformers' own SAM3 modules, so that parameters have the published names. Differences to
`Sam3Model`:
- There is no text encoder and no presence token (one logit per image and phrase that scales all scores; not to be
  confused with the presence of each slot, paper, eq. 7). Phrase scores, if the model has them, take its place.
- The detector starts from given queries.
- The 0.5x level of the feature pyramid is not computed.
- Everything that does not depend on the phrase is computed once per image (`prepare`), for any number of phrases.
- With a trunk, its coarsest map replaces the image, and its finer maps are added to the pyramid.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import nn
from transformers.models.sam3.configuration_sam3 import Sam3Config

from instructsam.core.model.layers.detr_decoder import DetrDecoder
from instructsam.core.model.layers.fusion_encoder import FusionEncoder
from instructsam.core.model.layers.pixel_decoder import PixelLevel, decode_pixels, prepare_levels
from instructsam.core.model.layers.sam3_modules import sam3
from instructsam.core.model.layers.sam_attention import additive_mask, cross_attend, use_rotary_attention


@dataclass(frozen=True)
class ImageFeatures:
    """SAM3's feature pyramid of B images."""

    pyramid: tuple[torch.Tensor, ...]  # [B, d, h, w] each, fine to coarse: 4x, 2x and 1x the patch grid
    position: torch.Tensor  # [B, d, h, w] sine position encoding of the coarsest level


@dataclass(frozen=True)
class PreparedFeatures:
    """Everything that the detector computes from B images before it sees a phrase."""

    # [B, N, d] the coarsest level after the fusion encoder's first self-attention, N = side ** 2
    attended: torch.Tensor
    position: torch.Tensor  # [1, N, d] its position encoding
    levels: tuple[PixelLevel, ...]  # the two finer levels of the pixel decoder, coarse to fine; (): for boxes only
    side: int  # side of the square patch grid
    images: tuple[int, ...] | None = None  # index of the image of each of the G groups; None: one image for all

    def of_groups(self, images: Sequence[int]) -> PreparedFeatures:
        """Return the features for G groups (phrases), given the index of each group's image."""
        return replace(self, images=tuple(images))

    def per_group(self, values: torch.Tensor) -> torch.Tensor:
        """Return the entry of `values` [B, ...] for each group's image, [G, ...]; one image: `values` itself."""
        if self.images is None:
            return values
        # Several threads would sum the gradient of values[images] in an undefined order; that of index_select is slow.
        rows = values.split(1)
        return torch.cat([rows[image] for image in self.images])


@dataclass(frozen=True)
class Detections:
    """Raw outputs for G groups (phrases) of K slots."""

    mask_logits: torch.Tensor  # [G, K, 4h, 4w], h x w the patch grid of SAM3's square input
    logits: torch.Tensor  # [G, K], clamped to +-12 before slot and phrase scores; their sigmoid is the score
    boxes: torch.Tensor  # [G, K, 4] xyxy, 0 to 1
    encoded: torch.Tensor  # [G, N, d] output of the fusion encoder, N = h * w
    hidden: torch.Tensor  # [layers, G, K, d] slots after every detector layer
    reference_boxes: torch.Tensor  # [layers, G, K, 4] cxcywh, 0 to 1, input of every detector layer


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
        self.detr_encoder = FusionEncoder(encoder)  # the fusion encoder
        self.detr_decoder = DetrDecoder(decoder)  # the detector
        self.mask_decoder = sam3.Sam3MaskDecoder(masks)
        self.dot_product_scoring = sam3.Sam3DotProductScoring(config)
        self.patch_size: int = vision.backbone_config.patch_size
        self.rows: int = vision.backbone_config.image_size // self.patch_size  # side of the square patch grid

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

    def prepare(self, features: ImageFeatures) -> PreparedFeatures:
        """Compute everything that the detector needs from images and that does not depend on a phrase."""
        coarse = features.pyramid[-1]
        hidden, position = (each.flatten(2).transpose(1, 2) for each in (coarse, features.position[:1]))
        levels = prepare_levels(self.mask_decoder.pixel_decoder, features.pyramid[-2::-1])
        attended = self.detr_encoder.attend_image(hidden, position)
        return PreparedFeatures(attended, position.contiguous(), levels, coarse.shape[-1])

    def forward(
        self,
        features: PreparedFeatures,
        queries: torch.Tensor,
        text: torch.Tensor,
        text_mask: torch.Tensor,
        references: torch.Tensor | None = None,
        scores: torch.Tensor | None = None,
    ) -> Detections:
        """Detect with G groups on one image, or on the image of each group.

        Args:
            features: Features of the images.
            queries: [G, K, d] from the language model.
            text: [G, T, d] phrase conditioning.
            text_mask: [G, T] bool, true at real tokens.
            references: [G, K, 4], see DetrDecoder.
            scores: [G, K] logits that are added to those of the slots.
        """
        encoded = self.fuse(features, text, text_mask)
        hidden, starts = self.detr_decoder(
            queries, encoded, features.position, text, text_mask, features.side, references
        )
        slots = hidden[-1]
        logits = self.dot_product_scoring(hidden[-1:], text, text_mask)[-1].squeeze(-1)
        if scores is not None:
            logits = logits + scores
        masks = self.masks(slots, self.pixel_maps(features, encoded, text, text_mask))
        return Detections(masks, logits, self.boxes(slots, starts[-1]), encoded, hidden, starts)

    def fuse(self, features: PreparedFeatures, text: torch.Tensor, text_mask: torch.Tensor) -> torch.Tensor:
        """Run the fusion encoder for G phrases; return the encoded features [G, N, d]."""
        return self.detr_encoder(features.per_group(features.attended), features.position, text, text_mask)

    def boxes(self, hidden: torch.Tensor, references: torch.Tensor) -> torch.Tensor:
        """Return boxes [..., K, 4] xyxy, 0 to 1, of slots [..., K, d] after a layer.

        `references` [..., K, 4] cxcywh are the reference boxes that the layer started from.
        """
        boxes = (sam3.inverse_sigmoid(references) + self.detr_decoder.box_head(hidden)).sigmoid()
        return sam3.box_cxcywh_to_xyxy(boxes)

    def pixel_maps(
        self, features: PreparedFeatures, encoded: torch.Tensor, text: torch.Tensor, text_mask: torch.Tensor
    ) -> torch.Tensor:
        """Return the output of the pixel decoder [G, d, 4h, 4w], conditioned on the phrase of each group.

        Its coarsest input is the fusion encoder's output [G, N, d], once more conditioned.
        """
        decoder = self.mask_decoder
        attention, mask = decoder.prompt_cross_attn, additive_mask(text_mask, text.dtype)
        attended = cross_attend(
            attention,
            attention.q_proj(decoder.prompt_cross_attn_norm(encoded)),
            attention.k_proj(text),
            attention.v_proj(text),
            mask,
        )
        coarse = encoded + decoder.prompt_cross_attn_dropout(attended)
        coarse = coarse.unflatten(1, (features.side, features.side)).permute(0, 3, 1, 2)
        levels = [level._replace(convolved=features.per_group(level.convolved)) for level in features.levels]
        return decode_pixels(decoder.pixel_decoder, coarse, levels)

    def masks(self, slots: torch.Tensor, pixels: torch.Tensor) -> torch.Tensor:
        """Return mask logits [G, K, 4h, 4w] of slots [G, K, d] on the pixel decoder's output [G, d, 4h, 4w]."""
        vectors, offsets = self.mask_vectors(slots)
        logits = torch.baddbmm(offsets[..., None], vectors, pixels.flatten(2))
        return logits.unflatten(2, pixels.shape[-2:])

    def mask_vectors(self, slots: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the vectors [..., d] and offsets [...] that turn the pixel decoder's output into the masks of slots.

        A mask logit is the dot product of the vector and the output at a pixel, plus the offset: SAM3's projection of
        the pixels is applied to the few slots instead.
        """
        embeddings, projection = self.mask_decoder.mask_embedder(slots), self.mask_decoder.instance_projection
        assert projection.bias is not None  # SAM3's has one
        return embeddings @ projection.weight.flatten(1), embeddings @ projection.bias


def resize_masks(logits: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """Resize mask logits [N, h, w] to [N, height, width] float32 (bilinear, corners not aligned)."""
    return F.interpolate(logits[:, None].float(), size=(height, width), mode='bilinear', align_corners=False)[:, 0]

"""SAM3 as InstructSAM uses it: no text encoder, no presence token, its queries come from the language model.

Built from transformers' own SAM3 modules, so that parameters have the published names. What differs from
`Sam3Model`: the detector starts from given queries, the 0.5x level of the feature pyramid is not computed, and the
feature maps of one image serve any number of phrases without being copied.
"""

import importlib
import sys
import types
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn


def _import_sam3():
    """Transformers' SAM3 modules. Release 5.0 imports torchvision at the top, for box prompts only: not used here."""
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


sam3 = _import_sam3()


@dataclass(frozen=True)
class ImageFeatures:
    """What the detector needs of one image (or a batch of B images)."""

    pyramid: tuple[torch.Tensor, ...]  # [B, d, h, w] each, fine to coarse: 4x, 2x and 1x the patch grid
    position: torch.Tensor  # [B, d, h, w] sine encoding of the coarsest level


@dataclass(frozen=True)
class Detections:
    """Raw outputs for G groups (phrases) of K slots."""

    mask_logits: torch.Tensor  # [G, K, H/4, W/4] of SAM3's square input
    logits: torch.Tensor  # [G, K], clamped to +-12; the score is their sigmoid
    boxes: torch.Tensor  # [G, K, 4] xyxy, 0 to 1
    encoded: torch.Tensor  # [G, N, d] fusion encoder's output
    hidden: torch.Tensor  # [layers, G, K, d] slots after every detector layer
    reference_boxes: torch.Tensor  # [layers, G, K, 4] cxcywh, 0 to 1: the input of every layer


class DetrDecoder(sam3.Sam3DetrDecoder):
    """SAM3's detector without its presence token, driven by queries from outside."""

    def __init__(self, config):
        super().__init__(config)
        for name in ('presence_token', 'presence_head', 'presence_layer_norm'):
            delattr(self, name)

    def forward(self, queries, encoded, position, text, text_mask, size, references=None):
        """Refines slots and boxes layer by layer.

        queries [G, K, d]; encoded, position [G, N, d]; text [G, T, d]; text_mask [G, T] bool; size (h, w), h * w = N;
        references [G, K, 4] cxcywh before the sigmoid, None: the model's own for each slot (for the first ones, where
        there are fewer queries than it has slots). Returns hidden [layers, G, K, d] and reference_boxes
        [layers, G, K, 4] (the input of every layer).
        """
        start = self.reference_points.weight[: queries.shape[1]] if references is None else references
        boxes = start.sigmoid().expand(len(queries), -1, -1)
        attend = text_mask[:, None, None, :]
        hidden, references = [], []
        for layer in self.layers:
            references.append(boxes)
            queries = self._layer(layer, queries, boxes, encoded, position, text, attend, size)
            normed = self.output_layer_norm(queries)
            hidden.append(normed)
            boxes = (sam3.inverse_sigmoid(boxes) + self.box_head(normed)).sigmoid().detach()
        return torch.stack(hidden), torch.stack(references)

    def _layer(self, layer, queries, boxes, encoded, position, text, attend, size):
        """One detector layer: self-attention, text, image (biased towards the box), MLP; each post-normed."""
        query_position = self.ref_point_head(self.position_encoding.encode_boxes(boxes))
        placed = queries + query_position
        attended, _ = layer.self_attn(query=placed, key=placed, value=queries)
        queries = layer.self_attn_layer_norm(queries + layer.self_attn_dropout(attended))

        attended, _ = layer.text_cross_attn(query=queries + query_position, key=text, value=text, attention_mask=attend)
        queries = layer.text_cross_attn_layer_norm(queries + layer.text_cross_attn_dropout(attended))

        attended, _ = layer.vision_cross_attn(
            query=queries + query_position,
            key=encoded + position,
            value=encoded,
            attention_mask=self._get_rpb_matrix(boxes, size),
        )
        queries = layer.vision_cross_attn_layer_norm(queries + layer.vision_cross_attn_dropout(attended))
        return layer.mlp_layer_norm(queries + layer.mlp_dropout(layer.mlp(queries)))


class Grounding(nn.Module):
    """Image features, then masks, scores and boxes for queries and phrases (paper, section 3.3)."""

    def __init__(self, config):
        super().__init__()
        parts = (
            config.vision_config,
            config.vision_config.backbone_config,
            config.geometry_encoder_config,
            config.detr_encoder_config,
            config.detr_decoder_config,
            config.mask_decoder_config,
        )
        for part in parts:
            part._attn_implementation = 'sdpa'
        self.vision_encoder = sam3.Sam3VisionModel(config.vision_config)
        # Not used, but in the published file:
        self.text_projection = nn.Linear(config.text_config.hidden_size, config.detr_encoder_config.hidden_size)
        self.geometry_encoder = sam3.Sam3GeometryEncoder(config.geometry_encoder_config)
        self.detr_encoder = sam3.Sam3DetrEncoder(config.detr_encoder_config)
        self.detr_decoder = DetrDecoder(config.detr_decoder_config)
        self.mask_decoder = sam3.Sam3MaskDecoder(config.mask_decoder_config)
        self.dot_product_scoring = sam3.Sam3DotProductScoring(config)
        self.image_size = config.vision_config.backbone_config.image_size
        self.patch_size = config.vision_config.backbone_config.patch_size

    def encode(self, pixels, fine=True):
        """Image features of `pixels` [B, 3, S, S], S = image_size, values in -1 to 1.

        fine: False leaves all but the coarsest level out, which boxes do without.
        """
        grid = self.backbone_grid(pixels)
        neck = self.vision_encoder.neck
        levels = neck.fpn_layers[:-1]  # nothing reads the 0.5x level
        pyramid = tuple(level(grid) for level in (levels if fine else levels[-1:]))
        coarse = pyramid[-1]
        return ImageFeatures(pyramid, neck.position_encoding(coarse.shape, coarse.device, coarse.dtype))

    def backbone_grid(self, pixels):
        """What the backbone makes of `pixels` [B, 3, S, S], before the feature pyramid: [B, C, h, w], a patch each."""
        tokens = self.vision_encoder.backbone(pixels).last_hidden_state
        side = pixels.shape[-1] // self.patch_size
        return tokens.view(len(tokens), side, side, -1).permute(0, 3, 1, 2)

    def forward(self, features, queries, text, text_mask):
        """Detects with G groups on one image, or one group on each of G images.

        features: of 1 or G images; queries [G, K, d] from the language model; text [G, T, d] phrase conditioning;
        text_mask [G, T] bool, true at real tokens. Returns Detections.
        """
        encoded, position, size = self.fuse(features, text, text_mask)
        hidden, references = self.detr_decoder(queries, encoded, position, text, text_mask, size)
        final = hidden[-1]
        logits = self.dot_product_scoring(hidden[-1:], text, text_mask)[-1].squeeze(-1)
        pixels = self.pixel_embeddings(features.pyramid, encoded, text, text_mask)
        masks = self.masks(final, self.mask_decoder.instance_projection(pixels))
        return Detections(masks, logits, self.boxes(final, references[-1]), encoded, hidden, references)

    def fuse(self, features, text, text_mask):
        """The fusion encoder: encoded and position [G, N, d] of every group, and the grid's size (h, w)."""
        coarse = features.pyramid[-1].expand(len(text), -1, -1, -1)
        position = features.position.expand(len(text), -1, -1, -1)
        fused = self.detr_encoder(
            vision_features=[coarse], text_features=text, vision_pos_embeds=[position], text_mask=text_mask
        )
        return fused.last_hidden_state, fused.pos_embeds_flattened, tuple(coarse.shape[-2:])

    def boxes(self, hidden, references):
        """Boxes [..., K, 4] xyxy, 0 to 1, of slots [..., K, d] after a layer that started from `references`."""
        boxes = (sam3.inverse_sigmoid(references) + self.detr_decoder.box_head(hidden)).sigmoid()
        return sam3.box_cxcywh_to_xyxy(boxes)

    def pixel_embeddings(self, pyramid, encoded, text, text_mask):
        """[G, d, 4h, 4w] of every group: the pyramid with its coarsest level encoded, conditioned on the phrase."""
        decoder = self.mask_decoder
        attended, _ = decoder.prompt_cross_attn(
            query=decoder.prompt_cross_attn_norm(encoded), key=text, value=text, attention_mask=text_mask[:, None, None]
        )
        encoded = encoded + decoder.prompt_cross_attn_dropout(attended)
        height, width = pyramid[-1].shape[-2:]
        coarse = encoded.transpose(1, 2).reshape(len(encoded), -1, height, width)
        # the pyramid's finer levels are those of the image and broadcast over the groups
        return decoder.pixel_decoder([*pyramid[:-1], coarse])

    def masks(self, slots, pixels):
        """Mask logits [G, K, 4h, 4w]: slots [G, K, d] dotted with projected pixel embeddings [G, d, 4h, 4w]."""
        return torch.einsum('gkc,gchw->gkhw', self.mask_decoder.mask_embedder(slots), pixels)


def resize_masks(logits, height, width):
    """Mask logits [N, h, w] to the source size, [N, height, width] float32 (bilinear, corners not aligned)."""
    return F.interpolate(logits[:, None].float(), size=(height, width), mode='bilinear', align_corners=False)[:, 0]

"""The InstructSAM network: Qwen3-VL, the query bank, the bridge and SAM3. Parameters carry the published names.

image ── Qwen's vision tower ─┐
                              ├─ Qwen's language model ─ hidden states at the K queries after each phrase
instruction, answer, queries ─┘                                      │ bridge: mask_hidden_fcs
                                                                     ▼
phrase's input embeddings ── bridge: text_hidden_fcs ──────► SAM3's detector ─ K masks and scores per phrase
image ── SAM3's vision encoder ────────────────────────────────────▲

In a model with a trunk, both encoders read its maps instead of the image. With slot references, the hidden states also
shift the boxes that the detector starts from; with slot scores, they add to its scores; with phrase scores, they tell
whether the phrase refers to anything.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import nn
from transformers.models.qwen3_vl.modeling_qwen3_vl import (
    Qwen3VLTextModel,
    Qwen3VLVisionModel,
    Qwen3VLVisionPatchEmbed,
)
from transformers.models.sam3.configuration_sam3 import Sam3Config

from instructsam.core.allocator import own_pages
from instructsam.core.device import to_device
from instructsam.core.model.config import ModelConfig
from instructsam.core.model.grounding import Detections, Grounding, PreparedFeatures
from instructsam.core.model.layers.detr_decoder import DetrDecoder
from instructsam.core.model.layers.fusion_encoder import FusionEncoder
from instructsam.core.model.layers.sam_attention import RotaryAttention
from instructsam.core.model.layers.text_decoder import TextDecoder
from instructsam.core.model.layers.vision_tower import VisionTower
from instructsam.core.model.preprocess import Grid
from instructsam.core.model.trunk import FINE_CHANNELS, MIDDLE_CHANNELS, Trunk

MAX_PHRASE_TOKENS = 32  # length of the phrase conditioning (paper, section 3.3)

INITIAL_PHRASE_SCORE = 5.0
"""Logit of a phrase score that has not been trained: the scores of slots are hardly changed."""


class EncoderInputs(NamedTuple):
    """Inputs of both image encoders, for one or more images: the images themselves, or the trunk's maps of them."""

    pixels: torch.Tensor  # [B, C, s, s], for SAM3
    patches: torch.Tensor  # [P, n], for Qwen's vision tower
    grids: Sequence[Grid]  # size of each image in patches
    lateral_maps: tuple[torch.Tensor, ...] = ()  # [B, c, h, w] each, for SAM3's pyramid


class VisualFeatures(NamedTuple):
    """Output of Qwen's vision tower for one or more images with T language-model tokens in all."""

    embeddings: torch.Tensor  # [T, h]
    deepstack: list[torch.Tensor]  # [T, h] each, added to the hidden states after the first layers


class _PatchEmbed(nn.Module):
    """Qwen's patch embedding as a matrix product, which is ten times faster on CPUs.

    Its convolution has a kernel and a stride of one whole patch, so both compute the same. The convolution's parameters
    are kept under their names.
    """

    def __init__(self, original: Qwen3VLVisionPatchEmbed):
        super().__init__()
        self.proj = original.proj

    def forward(self, patches: torch.Tensor) -> torch.Tensor:
        weight = self.proj.weight
        return F.linear(patches.to(weight.dtype), weight.flatten(1), self.proj.bias)


class _GroundingModel(nn.Module):
    """SAM3 under the name that it has in the published file."""

    def __init__(self, config: Sam3Config, lateral_channels: Sequence[int]):
        super().__init__()
        self.model = Grounding(config, lateral_channels)


class _Body(nn.Module):
    """The modules, laid out as in the published file (everything under `model.`)."""

    def __init__(self, config: ModelConfig):
        super().__init__()
        text, vision = config.text, config.vision
        text._attn_implementation = vision._attn_implementation = 'sdpa'
        self.visual = Qwen3VLVisionModel(vision)
        self.visual.register_module('patch_embed', _PatchEmbed(self.visual.patch_embed))
        self.language_model = Qwen3VLTextModel(text)
        self.trunk = Trunk() if config.trunk else None
        self.grounding_model = _GroundingModel(config.sam3, (FINE_CHANNELS, MIDDLE_CHANNELS) if config.trunk else ())
        self.mask_queries = nn.Parameter(torch.empty(config.num_queries, text.hidden_size))  # the query bank
        nn.init.normal_(self.mask_queries, std=text.initializer_range)
        self.mask_hidden_fcs = nn.ModuleList([_bridge(text.hidden_size, config.bridge_dim)])
        self.text_hidden_fcs = nn.ModuleList([_bridge(text.hidden_size, config.bridge_dim)])
        self.reference_fcs = _reference_fcs(text.hidden_size) if config.slot_references else None
        self.score_fc = _zero_linear(text.hidden_size, 1) if config.slot_scores else None
        self.phrase_score_fcs = _phrase_score_fcs(text.hidden_size) if config.phrase_scores else None


def _bridge(width: int, out_width: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(width, width), nn.ReLU(inplace=True), nn.Linear(width, out_width))


def _reference_fcs(width: int) -> nn.Sequential:
    """Return layers that give 0 until they are trained, so that slots start from SAM3's own reference boxes."""
    return nn.Sequential(nn.Linear(width, width), nn.ReLU(inplace=True), _zero_linear(width, 4))


def _phrase_score_fcs(width: int) -> nn.ModuleList:
    """Return layers for each slot, and for the maximum over them, that give INITIAL_PHRASE_SCORE at first."""
    last = _zero_linear(width, 1)
    nn.init.constant_(last.bias, INITIAL_PHRASE_SCORE)
    return nn.ModuleList([_bridge(width, width), last])


def _zero_linear(width: int, out_width: int) -> nn.Linear:
    layer = nn.Linear(width, out_width)
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer


class InstructSAMModel(nn.Module):
    """The network of InstructSAM (arXiv 2605.26102). Calls leave no state behind, except plans by image size.

    `state_dict()` has exactly the published checkpoint's names and shapes (lm_head is tied to the embeddings and
    therefore absent).
    """

    def __init__(self, config: ModelConfig):
        super().__init__()
        self.config = config
        self.model = _Body(config)
        self.text_decoder = TextDecoder(self.model.language_model)
        self.vision_tower = VisionTower(self.model.visual)
        self.plans: dict[Any, Any] = {}  # prefix plans by image size, see sequence.plan_prefix
        self.eval()

    @own_pages()
    def join_projections(self) -> None:
        """Compute projections of the same input as one matrix product, for inference; see JointLinear."""
        self.text_decoder.join()
        for module in self.modules():
            if isinstance(module, (RotaryAttention, FusionEncoder, DetrDecoder)):
                module.join()

    @property
    def grounding(self) -> Grounding:
        """SAM3."""
        return self.model.grounding_model.model

    @property
    def device(self) -> torch.device:
        """Device of the weights."""
        return self.model.mask_queries.device

    @property
    def dtype(self) -> torch.dtype:
        """Precision of the weights."""
        return self.model.mask_queries.dtype

    def embed(self, ids: torch.Tensor) -> torch.Tensor:
        """Return the input embeddings [..., h] of token `ids` [...]."""
        return self.model.language_model.embed_tokens(ids)

    def encoder_inputs(self, pixels: torch.Tensor, patches: torch.Tensor, grids: Sequence[Grid]) -> EncoderInputs:
        """Return the inputs of both encoders; run the trunk if the model has one.

        Args:
            pixels: [B, 3, S, S], the images as squares, in -1 to 1.
            patches: [P, n], the images as Qwen's patches; ignored with a trunk.
            grids: Size (1, h, w) in patches of each image.
        """
        if self.model.trunk is None:
            return EncoderInputs(pixels, patches, grids)
        maps = self.model.trunk(pixels)
        return EncoderInputs(maps.coarse, self._merged_cells(maps.coarse), grids, (maps.fine, maps.middle))

    def _merged_cells(self, cells: torch.Tensor) -> torch.Tensor:
        """Return the cells of maps [B, C, h, w] as Qwen's patches [B * h * w, C]; those of one token are adjacent."""
        count, channels, rows, columns = cells.shape
        merge = self.config.vision.spatial_merge_size
        blocks = cells.reshape(count, channels, rows // merge, merge, columns // merge, merge)
        return blocks.permute(0, 2, 4, 3, 5, 1).reshape(-1, channels)

    def encode_image(self, patches: torch.Tensor, *grids: Grid) -> VisualFeatures:
        """Run Qwen's vision tower on one or more images.

        Args:
            patches: [P, 3 * 2 * 16 * 16], the patches of all images one after another; with a trunk [P, 112].
            grids: Size (t, h, w) in patches of each image.
        """
        if len(grids) == 1 and not torch.is_grad_enabled():
            return VisualFeatures(*self.vision_tower(patches, self.vision_tower.plan(*grids[0][1:])))
        output = self.model.visual(patches, grid_thw=torch.tensor(grids, device=patches.device))
        return VisualFeatures(output.pooler_output, output.deepstack_features)

    def decode(
        self,
        embeds: torch.Tensor,
        positions: torch.Tensor,
        mask: torch.Tensor,
        is_image: torch.Tensor | None = None,
        deepstack: list[torch.Tensor] | None = None,
    ) -> torch.Tensor:
        """Run the language model on whole sequences, for training; inference uses `text_decoder`.

        Args:
            embeds: [B, n, h] input embeddings.
            positions: [3, B, n] M-RoPE positions (time, height, width).
            mask: [B, 1, n, n] bool, true where a row may attend.
            is_image: [B, n] bool, true at image tokens.
            deepstack: VisualFeatures.deepstack of the image tokens.

        Returns:
            Hidden states [B, n, h] after the final norm.
        """
        return self.model.language_model(
            None,
            mask,
            positions,
            inputs_embeds=embeds,
            use_cache=False,
            visual_pos_masks=is_image,
            deepstack_visual_embeds=deepstack,
        ).last_hidden_state

    def token_logits(self, hidden: torch.Tensor) -> torch.Tensor:
        """Return next-token logits [..., vocabulary] of hidden states [..., h]; the head is tied to the embeddings."""
        return F.linear(hidden, self.model.language_model.embed_tokens.weight)

    def slot_queries(self, hidden: torch.Tensor) -> torch.Tensor:
        """Map hidden states at the query positions [..., K, h] to the detector's queries [..., K, d]."""
        return self.model.mask_hidden_fcs[0](hidden)

    def slot_references(self, hidden: torch.Tensor) -> torch.Tensor:
        """Return the boxes [..., K, 4] that the detector's slots start from, cxcywh before the sigmoid.

        They are SAM3's own; with slot references, the hidden states at the query positions [..., K, h] shift them.
        """
        own: torch.Tensor = self.grounding.detr_decoder.reference_points.weight[: hidden.shape[-2]]
        layers = self.model.reference_fcs
        return own.expand(*hidden.shape[:-1], 4) if layers is None else own + layers(hidden)

    def slot_scores(self, hidden: torch.Tensor) -> torch.Tensor:
        """Return the logits [..., K] that the hidden states at the query positions [..., K, h] add to the scores.

        They are 0 without slot scores. With them, the language model decides directly which slots mean something: that
        the mug is *left* of the bowl shows in the slots, but not in the phrase "mug" that the detector reads.
        """
        layer = self.model.score_fc
        return hidden.new_zeros(hidden.shape[:-1]) if layer is None else layer(hidden)[..., 0]

    def phrase_scores(self, hidden: torch.Tensor) -> torch.Tensor:
        """Return the logit [...] of each phrase's having any target, given its hidden states [..., K, h].

        It is infinite without phrase scores. With them, its probability multiplies the scores of all slots, as that of
        SAM3's presence token does (arXiv 2511.16719): "nothing there" is one decision rather than K.
        """
        layers = self.model.phrase_score_fcs
        if layers is None:
            return hidden.new_full(hidden.shape[:-2], torch.inf)
        each, last = layers
        logits: torch.Tensor = last(each(hidden).relu().amax(-2))
        return logits[..., 0]

    def detect(
        self, features: PreparedFeatures, hidden: torch.Tensor, ids: torch.Tensor, mask: torch.Tensor, mode: str
    ) -> Detections:
        """Run SAM3's detector for G phrases on one image, or on the image of each phrase.

        Args:
            features: Features of the images.
            hidden: Hidden states [G, K, h] at the query positions.
            ids: Token ids [G, 32] of the phrases, from `pad_phrases`.
            mask: Their mask [G, 32] bool.
            mode: One of `core.modes.MODES`.
        """
        scores = self.slot_scores(hidden) if self.config.slot_scores else None  # else, nothing is computed for them
        text, references = self.phrase_text(ids, mask, mode), self.slot_references(hidden)
        output = self.grounding(features, self.slot_queries(hidden), text, mask, references, scores)
        if not self.config.phrase_scores:
            return output
        return replace(output, logits=_logit_of_product(output.logits, self.phrase_scores(hidden)[..., None]))

    def pad_phrases(self, phrases: Sequence[Sequence[int]]) -> tuple[torch.Tensor, torch.Tensor]:
        """Pad or truncate the token ids of G phrases to 32.

        Returns ids [G, 32], zero after a phrase, and a mask [G, 32] bool, true at its tokens.
        """
        kept = [list(phrase[:MAX_PHRASE_TOKENS]) for phrase in phrases]
        ids = to_device([phrase + [0] * (MAX_PHRASE_TOKENS - len(phrase)) for phrase in kept], self.device)
        lengths = to_device([[len(phrase)] for phrase in kept], self.device)
        return ids, torch.arange(MAX_PHRASE_TOKENS, device=self.device) < lengths

    def phrase_conditioning(self, phrases: Sequence[Sequence[int]], mode: str) -> tuple[torch.Tensor, torch.Tensor]:
        """Map the token ids of G phrases to SAM3's text conditioning.

        The phrases' *input embeddings* condition SAM3, not their hidden states. Rows after a phrase hold zeros
        (consistent) or the bridge's output for token 0 (reference); they are masked either way.

        Returns text [G, 32, d] and a mask [G, 32] bool, true at a phrase's tokens.
        """
        ids, mask = self.pad_phrases(phrases)
        return self.phrase_text(ids, mask, mode), mask

    def phrase_text(self, ids: torch.Tensor, mask: torch.Tensor, mode: str) -> torch.Tensor:
        """Return SAM3's text conditioning [G, 32, d] for the ids and the mask from `pad_phrases`."""
        text = self.model.text_hidden_fcs[0](self.embed(ids))
        return text if mode == 'reference' else text * mask[..., None]


def _logit_of_product(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    """Return the logit of the product of two probabilities, given their logits, without loss of precision."""
    terms = torch.broadcast_tensors(-first, -second, -first - second)
    return -torch.stack(terms).logsumexp(0)

"""InstructSAM: Qwen3-VL, the query bank and the bridge, SAM3. Parameters carry the published names."""

import torch
import torch.nn.functional as F
from torch import nn
from transformers.models.qwen3_vl.modeling_qwen3_vl import (
    Qwen3VLTextModel,
    Qwen3VLVisionModel,
    Qwen3VLVisionPatchEmbed,
)

from instructsam.core.model.grounding import Grounding

MAX_PHRASE_TOKENS = 32  # length of the phrase conditioning (paper, section 3.3)


class _PatchEmbed(Qwen3VLVisionPatchEmbed):
    """Qwen's convolution, whose kernel is a whole patch, as the matrix product that it is: on CPUs ten times faster.

    Never made, only put on: another one made would draw random numbers, and a seed would give other weights.
    """

    def forward(self, patches):
        weight = self.proj.weight
        return F.linear(patches.to(weight.dtype), weight.flatten(1), self.proj.bias)


class _Body(nn.Module):
    """The modules, laid out as in the published file (everything under `model.`)."""

    def __init__(self, config):
        super().__init__()
        text, vision = config.qwen.text_config, config.qwen.vision_config
        text._attn_implementation = vision._attn_implementation = 'sdpa'
        self.visual = Qwen3VLVisionModel(vision)
        self.visual.patch_embed.__class__ = _PatchEmbed
        self.language_model = Qwen3VLTextModel(text)
        self.grounding_model = nn.Module()
        self.grounding_model.model = Grounding(config.sam3)
        self.mask_queries = nn.Parameter(torch.empty(config.num_queries, text.hidden_size))
        nn.init.normal_(self.mask_queries, std=text.initializer_range)
        self.mask_hidden_fcs = nn.ModuleList([_bridge(text.hidden_size, config.bridge_dim)])
        self.text_hidden_fcs = nn.ModuleList([_bridge(text.hidden_size, config.bridge_dim)])


def _bridge(width, out_width):
    return nn.Sequential(nn.Linear(width, width), nn.ReLU(inplace=True), nn.Linear(width, out_width))


class InstructSAMModel(nn.Module):
    """The arithmetic of InstructSAM (arXiv 2605.26102). It keeps no state between calls.

    `state_dict()` has exactly the published checkpoint's names and shapes (lm_head is tied to the embeddings and
    therefore absent).
    """

    def __init__(self, config):
        super().__init__()
        self.config = config
        self.model = _Body(config)
        self.eval()

    @property
    def grounding(self):
        return self.model.grounding_model.model

    @property
    def device(self):
        return self.model.mask_queries.device

    @property
    def dtype(self):
        return self.model.mask_queries.dtype

    def embed(self, ids):
        """Input embeddings [..., h] of token `ids` [...]."""
        return self.model.language_model.embed_tokens(ids)

    def encode_image(self, patches, *grids):
        """Qwen's vision tower on images: patches [P, 3 * 2 * 16 * 16] of all of them, a grid (t, h, w) in patches each.

        Returns embeddings [P / 4, h] and the list of deepstack features, each of that shape.
        """
        output = self.model.visual(patches, grid_thw=torch.tensor(grids, device=patches.device))
        return output.pooler_output, output.deepstack_features

    def decode(self, embeds, positions, mask, cache=None, visual=None, deepstack=None):
        """The language model on a stretch of the sequence.

        embeds [B, n, h]; positions [3, B, n] (M-RoPE: time, height, width); mask [B, 1, n, past + n] bool, true where
        a row may look; cache: a transformers Cache holding `past` tokens, extended in place; visual [B, n] bool:
        which rows are image tokens, with their deepstack features. Returns normed hidden states [B, n, h].
        """
        return self.model.language_model(
            None,
            mask,
            positions,
            cache,  # by place, for its name is another from transformers 5.24 on
            inputs_embeds=embeds,
            use_cache=cache is not None,
            visual_pos_masks=visual,
            deepstack_visual_embeds=deepstack,
        ).last_hidden_state

    def token_logits(self, hidden):
        """Next-token logits [..., vocabulary] of hidden states [..., h]; the head is tied to the embeddings."""
        return F.linear(hidden, self.model.language_model.embed_tokens.weight)

    def slot_queries(self, hidden):
        """Hidden states at the query positions [..., K, h] -> the detector's queries [..., K, d]."""
        return self.model.mask_hidden_fcs[0](hidden)

    def padded(self, phrases):
        """Lists of token ids -> ids [G, 32], zeros behind a phrase, and mask [G, 32] bool, true at its tokens."""
        ids = torch.zeros(len(phrases), MAX_PHRASE_TOKENS, dtype=torch.int64)
        mask = torch.zeros(len(phrases), MAX_PHRASE_TOKENS, dtype=torch.bool)
        for row, phrase in enumerate(phrases):
            kept = phrase[:MAX_PHRASE_TOKENS]
            ids[row, : len(kept)] = torch.tensor(kept)
            mask[row, : len(kept)] = True
        return ids.to(self.device), mask.to(self.device)

    def phrase_conditioning(self, phrases, mode):
        """Lists of token ids -> text [G, 32, d] and mask [G, 32] bool, true at a phrase's tokens.

        The phrases' *input embeddings* condition SAM3, not their hidden states; tokens past the 32nd are dropped.
        Behind a phrase stand zeros (consistent) or the bridge's output for token 0 (reference); masked either way.
        """
        ids, mask = self.padded(phrases)
        text = self.model.text_hidden_fcs[0](self.embed(ids))
        return (text if mode == 'reference' else text * mask[..., None]), mask

"""The language model's side of one instruction: a sequence on a key-value cache, query blocks behind its phrases."""

from dataclasses import dataclass

import torch
from transformers import DynamicCache

from instructsam.core.model.token_layout import TokenLayout


@dataclass(frozen=True)
class Prefix:
    """The part of a sequence that only depends on the image. Immutable: sequences copy it when they grow."""

    layout: TokenLayout
    keys_values: tuple[tuple[torch.Tensor, torch.Tensor], ...]  # a layer each, [1, heads, n, head size]


@dataclass(frozen=True)
class Group:
    """One phrase of the answer and its filled instance slots."""

    phrase_ids: tuple[int, ...]  # what conditions SAM3: without tags (consistent) or with them (reference)
    text_ids: tuple[int, ...]  # the phrase itself
    hidden: torch.Tensor  # [K, h] last hidden states at the query positions


@dataclass(frozen=True)
class Step:
    """One forward pass of the language model."""

    start: int  # rows before this pass
    positions: torch.Tensor  # [3, n]
    mask: torch.Tensor  # [n, start + n] bool
    hidden: torch.Tensor  # [1, n, h] after the final norm


def encode_prefix(model, prompter, mode, visual_features, grid):
    """Runs the language model up to the end of the image.

    visual_features: what `model.encode_image` returns; grid (t, rows, columns) in patches. Returns the Prefix and its
    Step.
    """
    merge = model.config.qwen.vision_config.spatial_merge_size
    image, deepstack = visual_features
    layout = TokenLayout(model.config.tokens, model.config.num_queries, mode)
    layout.add_text(prompter.before_image)
    first = len(layout)
    layout.add_image(grid[1] // merge, grid[2] // merge)
    visual = slice(first, len(layout))
    layout.add_text(prompter.after_image)

    embeds = model.embed(torch.tensor([layout.ids], device=model.device))
    embeds[:, visual] = image.to(embeds.dtype)
    is_visual = torch.zeros(1, len(layout), dtype=torch.bool, device=model.device)
    is_visual[:, visual] = True
    cache = DynamicCache(config=model.config.qwen.text_config)
    step = _forward(model, layout, 0, embeds, cache, is_visual, deepstack)
    return Prefix(layout, tuple((layer.keys, layer.values) for layer in cache.layers)), step


class Sequence:
    """Grows token by token, or many tokens at once; remembers the groups that its query blocks filled."""

    def __init__(self, model, prefix):
        self.model = model
        self.groups = []
        self.answer_ids = []
        self.layout = prefix.layout.copy()
        self._phrase = None  # tokens since the last <|object_ref_start|>
        self._cache = DynamicCache(config=model.config.qwen.text_config)
        for layer, (keys, values) in enumerate(prefix.keys_values):
            self._cache.update(keys, values, layer)  # copied: a cache grows by concatenation

    def add_text(self, ids):
        """Reads plain tokens. Returns the Step."""
        start = len(self.layout)
        self.layout.add_text(ids)
        return self._run(start, [])

    def add_answer(self, ids):
        """Writes answer tokens; after each `<|object_ref_end|>` that ends a phrase come the query bank's rows.

        They ride on the same forward pass as the token itself, whether one token is written or many. Returns the Step.
        """
        tokens = self.model.config.tokens
        start = len(self.layout)
        blocks = []
        for token in ids:
            phrase = self._close_phrase() if token == tokens.phrase_end else None
            if phrase is not None:
                blocks.append((phrase, self.layout.add_query_block()))
                continue
            self.layout.add_text([token])
            if token == tokens.phrase_start:
                self._phrase = []
            elif self._phrase is not None:
                self._phrase.append(token)
        self.answer_ids += ids
        return self._run(start, blocks)

    def _close_phrase(self):
        """(what conditions SAM3, the phrase) where the open phrase ends; None where there is none to end."""
        phrase, self._phrase = self._phrase, None
        if not phrase:
            return None
        if self.layout.mode == 'reference':
            tokens = self.model.config.tokens
            return (tokens.phrase_start, *phrase, tokens.phrase_end), tuple(phrase)
        return tuple(phrase), tuple(phrase)

    def _run(self, start, blocks):
        model, layout = self.model, self.layout
        embeds = model.embed(torch.tensor([layout.ids[start:]], device=model.device))
        for _, rows in blocks:
            embeds[0, rows.start - start : rows.stop - start] = model.model.mask_queries
        step = _forward(model, layout, start, embeds, self._cache)
        for (phrase_ids, text_ids), rows in blocks:
            hidden = step.hidden[0, rows.start - start : rows.stop - start]
            self.groups.append(Group(phrase_ids, text_ids, hidden))
        return step


def _forward(model, layout, start, embeds, cache, visual=None, deepstack=None):
    positions = layout.position_ids(start, model.device)
    mask = layout.attention_mask(start, model.device)
    hidden = model.decode(embeds, positions[:, None], mask[None, None], cache, visual, deepstack)
    return Step(start, positions, mask, hidden)

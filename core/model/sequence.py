"""The language model's side of one instruction: a token sequence with a key-value cache, one query block per phrase."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from transformers import DynamicCache

from instructsam.core.model.instructsam import InstructSAMModel, VisualFeatures
from instructsam.core.model.preprocess import Grid
from instructsam.core.model.prompt import Prompter
from instructsam.core.model.token_layout import TokenLayout


@dataclass(frozen=True)
class Prefix:
    """The part of a sequence that depends on the image only. Immutable: a sequence that continues it copies it."""

    layout: TokenLayout
    keys_values: tuple[tuple[torch.Tensor, torch.Tensor], ...]  # one pair per layer, [1, heads, n, head size] each


class PhraseIds(NamedTuple):
    """Token ids of one phrase."""

    conditioning: tuple[int, ...]  # tokens that condition SAM3: without tags (consistent) or with them (reference)
    text: tuple[int, ...]  # tokens of the phrase without tags


@dataclass(frozen=True)
class Group:
    """One phrase of the answer and its filled instance slots."""

    phrase_ids: tuple[int, ...]  # PhraseIds.conditioning
    text_ids: tuple[int, ...]  # PhraseIds.text
    hidden: torch.Tensor  # [K, h] last hidden states at the query positions


@dataclass(frozen=True)
class ForwardPass:
    """Inputs and output of one forward pass of the language model over n rows."""

    start: int  # number of rows before this pass
    positions: torch.Tensor  # [3, n]
    mask: torch.Tensor  # [n, start + n] bool
    hidden: torch.Tensor  # [1, n, h] after the final norm


def encode_prefix(
    model: InstructSAMModel, prompter: Prompter, mode: str, visual: VisualFeatures, grid: Grid
) -> tuple[Prefix, ForwardPass]:
    """Run the language model up to the end of the image.

    Args:
        model: The network.
        prompter: Its tokenizer and chat template.
        mode: One of `core.modes.MODES`.
        visual: The image's features from `model.encode_image`.
        grid: The image's size (1, rows, columns) in patches.

    Returns:
        The prefix, and the forward pass that computed it.
    """
    merge = model.config.vision.spatial_merge_size
    layout = TokenLayout(model.config.tokens, model.config.num_queries, mode)
    layout.add_text(prompter.before_image)
    first = len(layout)
    layout.add_image(grid[1] // merge, grid[2] // merge)
    image_rows = slice(first, len(layout))
    layout.add_text(prompter.after_image)

    embeds = model.embed(torch.tensor([layout.ids], device=model.device))
    embeds[:, image_rows] = visual.embeddings.to(embeds.dtype)
    is_image = torch.zeros(1, len(layout), dtype=torch.bool, device=model.device)
    is_image[:, image_rows] = True
    cache = DynamicCache(config=model.config.text)
    output = _forward(model, layout, 0, embeds, cache, is_image, visual.deepstack)
    layers: list[Any] = cache.layers  # every layer has attention, and so keys and values
    return Prefix(layout, tuple((layer.keys, layer.values) for layer in layers)), output


class TokenSequence:
    """A sequence that grows token by token or by many tokens at once, and collects the groups of its query blocks."""

    def __init__(self, model: InstructSAMModel, prefix: Prefix):
        self.model = model
        self.groups: list[Group] = []
        self.answer_ids: list[int] = []
        self.layout = prefix.layout.copy()
        self._open_phrase: list[int] | None = None  # tokens since the last <|object_ref_start|>; None outside a phrase
        self._cache = DynamicCache(config=model.config.text)
        for layer, (keys, values) in enumerate(prefix.keys_values):
            self._cache.update(keys, values, layer)  # a cache grows by concatenation, so the prefix stays unchanged

    def add_text(self, ids: Sequence[int]) -> ForwardPass:
        """Read plain tokens."""
        start = len(self.layout)
        self.layout.add_text(ids)
        return self._run(start)

    def add_answer(self, ids: Sequence[int]) -> ForwardPass:
        """Write answer tokens; each `<|object_ref_end|>` that ends a phrase is followed by a query block.

        The block is computed in the same forward pass as the token, whether one token is written or many.
        """
        tokens = self.model.config.tokens
        start = len(self.layout)
        blocks: list[tuple[PhraseIds, slice]] = []
        for token in ids:
            phrase = self._close_phrase() if token == tokens.phrase_end else None
            if phrase is not None:
                blocks.append((phrase, self.layout.add_query_block()))
                continue
            self.layout.add_text([token])
            if token == tokens.phrase_start:
                self._open_phrase = []
            elif self._open_phrase is not None:
                self._open_phrase.append(token)
        self.answer_ids += ids
        return self._run(start, blocks)

    def _close_phrase(self) -> PhraseIds | None:
        """End the open phrase and return it; None if no phrase is open or it is empty."""
        ids, self._open_phrase = self._open_phrase, None
        if not ids:
            return None
        text = tuple(ids)
        if self.layout.mode == 'reference':
            tokens = self.model.config.tokens
            return PhraseIds((tokens.phrase_start, *text, tokens.phrase_end), text)
        return PhraseIds(text, text)

    def _run(self, start: int, blocks: Sequence[tuple[PhraseIds, slice]] = ()) -> ForwardPass:
        """Run the rows from `start` on, with the query bank's embeddings at the rows of `blocks`."""
        model, layout = self.model, self.layout
        embeds = model.embed(torch.tensor([layout.ids[start:]], device=model.device))
        for _, rows in blocks:
            embeds[0, rows.start - start : rows.stop - start] = model.model.mask_queries
        output = _forward(model, layout, start, embeds, self._cache)
        for phrase, rows in blocks:
            hidden = output.hidden[0, rows.start - start : rows.stop - start]
            self.groups.append(Group(phrase.conditioning, phrase.text, hidden))
        return output


def _forward(
    model: InstructSAMModel,
    layout: TokenLayout,
    start: int,
    embeds: torch.Tensor,
    cache: DynamicCache,
    is_image: torch.Tensor | None = None,
    deepstack: list[torch.Tensor] | None = None,
) -> ForwardPass:
    """Run the rows of `layout` from `start` on, whose embeddings are `embeds` [1, n, h]."""
    positions = layout.position_ids(start, model.device)
    mask = layout.attention_mask(start, model.device)
    hidden = model.decode(embeds, positions[:, None], mask[None, None], cache, is_image, deepstack)
    return ForwardPass(start, positions, mask, hidden)

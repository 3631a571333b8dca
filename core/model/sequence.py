"""The language model's side of one instruction: a token sequence with a key-value cache, one query block per phrase."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import torch

from instructsam.core.device import to_device
from instructsam.core.model.instructsam import InstructSAMModel, VisualFeatures
from instructsam.core.model.layers.kv_cache import KvCache
from instructsam.core.model.layers.rotary import RotaryTable
from instructsam.core.model.preprocess import Grid
from instructsam.core.model.prompt import Prompter
from instructsam.core.model.token_layout import TokenLayout

MAX_PLANS = 8  # image sizes whose plans are kept


@dataclass(frozen=True)
class Prefix:
    """The part of a sequence that depends on the image only. Sequences that continue it do not change its rows."""

    layout: TokenLayout
    cache: KvCache


class PrefixPlan(NamedTuple):
    """The part of a prefix that depends only on the size of the image."""

    layout: TokenLayout
    image_rows: slice
    ids: torch.Tensor  # [1, n] on the model's device
    rotary: RotaryTable


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
    """One forward pass of the language model over n rows."""

    layout: TokenLayout  # layout of the sequence, which may have grown since
    start: int  # number of rows before this pass
    stop: int  # number of rows after it
    hidden: torch.Tensor  # [1, n, h] after the final norm

    @property
    def positions(self) -> torch.Tensor:
        """The positions of the rows, [3, n]."""
        return self.layout.position_ids(self.start)[:, : self.stop - self.start]

    @property
    def mask(self) -> torch.Tensor:
        """The attention mask [n, start + n] bool, true where a row attends."""
        return self.layout.attention_mask(self.start)[: self.stop - self.start, : self.stop]


def plan_prefix(model: InstructSAMModel, prompter: Prompter, mode: str, grid: Grid) -> PrefixPlan:
    """Return the plan of the prefix of an image, whose size is `grid` = (1, rows, columns) in patches."""
    key = (mode, grid, *prompter.before_image, -1, *prompter.after_image, model.device, model.dtype)
    plan: PrefixPlan | None = model.plans.get(key)
    if plan is None:
        merge = model.config.vision.spatial_merge_size
        layout = TokenLayout(model.config.tokens, model.config.num_queries, mode)
        layout.add_text(prompter.before_image)
        first = len(layout)
        layout.add_image(grid[1] // merge, grid[2] // merge)
        image_rows = slice(first, len(layout))
        layout.add_text(prompter.after_image)
        rotary = model.text_decoder.rotary_rows(layout.position_ids(0, model.device))
        plan = PrefixPlan(layout, image_rows, torch.tensor([layout.ids], device=model.device), rotary)
        if len(model.plans) >= MAX_PLANS:
            model.plans.clear()
        model.plans[key] = plan
    return plan


def encode_prefix(
    model: InstructSAMModel,
    prompter: Prompter,
    mode: str,
    visual: VisualFeatures,
    grid: Grid,
    *,
    needs_hidden: bool = False,
) -> tuple[Prefix, ForwardPass]:
    """Run the language model up to the end of the image.

    Args:
        model: The network.
        prompter: Its tokenizer and chat template.
        mode: One of `core.modes.MODES`.
        visual: The image's features from `model.encode_image`.
        grid: The image's size (1, rows, columns) in patches.
        needs_hidden: Whether the hidden states are needed, and not only the prefix.

    Returns:
        The prefix, and the forward pass that computed it.
    """
    plan = plan_prefix(model, prompter, mode, grid)
    embeds = model.embed(plan.ids)
    embeds[:, plan.image_rows] = visual.embeddings.to(embeds.dtype)
    cache = model.text_decoder.new_cache(len(plan.layout))
    hidden = model.text_decoder(
        embeds,
        plan.rotary,
        cache,
        image_rows=plan.image_rows,
        deepstack=visual.deepstack,
        needs_hidden=needs_hidden,
    )
    return Prefix(plan.layout, cache), ForwardPass(plan.layout, 0, len(plan.layout), hidden)


class Pick:
    """The most probable next token. The device computes it while the host continues; `read` waits for it."""

    def __init__(self, token: torch.Tensor, score: torch.Tensor):
        """Start the transfer of the token's id and its logit, one number each."""
        self.token = token  # [1] int64, on the device
        numbers = torch.cat([token.double(), score.double()])  # float64 holds ids exactly
        self._numbers, self._arrived = numbers, None
        if numbers.is_cuda:
            self._numbers = torch.empty(2, dtype=torch.float64, pin_memory=True)
            self._numbers.copy_(numbers, non_blocking=True)
            self._arrived = torch.cuda.Event()
            self._arrived.record()

    def read(self) -> tuple[int, float]:
        """Return the token's id and its logit, which is NaN if any logit is."""
        if self._arrived is not None:
            self._arrived.synchronize()
        token, score = self._numbers.tolist()
        return int(token), score


class TokenSequence:
    """A sequence that grows token by token or by many tokens at once, and collects the groups of its query blocks."""

    can_run_ahead = True
    """True if a picked token may be run before the host has read it; False if the host may replace it."""

    def __init__(self, model: InstructSAMModel, prefix: Prefix):
        self.model = model
        self.groups: list[Group] = []
        self.answer_ids: list[int] = []
        self.layout = prefix.layout.copy()
        self._open_phrase: list[int] | None = None  # tokens since the last <|object_ref_start|>; None outside a phrase
        self._prefix = prefix
        self._ahead: torch.Tensor | None = None  # hidden state [1, 1, h] of a token that is only in the cache

    @cached_property
    def _cache(self) -> KvCache:
        return self._prefix.cache.branch()

    def add_text(self, ids: Sequence[int]) -> ForwardPass:
        """Run plain tokens, which are not part of the answer."""
        start = len(self.layout)
        self.layout.add_text(ids)
        return self._run(start)

    def add_answer(self, ids: Sequence[int], prompt: Sequence[int] = ()) -> ForwardPass:
        """Append answer tokens, with a query block after each `<|object_ref_end|>` that ends a phrase.

        The plain tokens of `prompt`, which come first, the answer and its blocks take one forward pass.
        """
        tokens = self.model.config.tokens
        start = len(self.layout)
        self.layout.add_text(prompt)
        blocks: list[tuple[PhraseIds, slice]] = []
        for token in ids:
            phrase = self._close_phrase() if token == tokens.phrase_end else None
            if phrase is not None:
                blocks.append((phrase, self.layout.add_query_block()))
                continue
            self._append_text(token)
        self.answer_ids += ids
        return self._run(start, blocks)

    def pick(self, output: ForwardPass) -> Pick:
        """Pick the token that follows the last row of a pass."""
        score, token = self.model.token_logits(output.hidden[:, -1]).max(dim=-1)  # NaN if any logit is
        return Pick(token, score)

    def run_ahead(self, pick: Pick) -> None:
        """Run a picked token before the host has read it; `accept` uses the result."""
        position = self.layout.next_position
        rotary = self.model.text_decoder.rotary_table(position + 1).rows(position, position + 1)
        self._ahead = self.model.text_decoder(self.model.embed(pick.token)[None], rotary, self._cache)

    def accept(self, token: int) -> ForwardPass:
        """Append one answer token; use the result of `run_ahead`, if there is one, unless the token ends a phrase."""
        hidden, ends_phrase = self._ahead, bool(self._open_phrase) and token == self.model.config.tokens.phrase_end
        if hidden is None or ends_phrase:
            return self.add_answer([token])
        self._ahead = None
        start = len(self.layout)
        self._append_text(token)
        self.answer_ids.append(token)
        return ForwardPass(self.layout, start, start + 1, hidden)

    def _append_text(self, token: int) -> None:
        self.layout.add_text([token])
        if token == self.model.config.tokens.phrase_start:
            self._open_phrase = []
        elif token == self.model.config.tokens.phrase_end:
            self._open_phrase = None
        elif self._open_phrase is not None:
            self._open_phrase.append(token)

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
        if self._ahead is not None:
            self._cache.drop(1)
            self._ahead = None
        count = len(self.layout) - start
        queries = [slice(rows.start - start, rows.stop - start) for _, rows in blocks]
        embeds = self._embeds(self.layout.ids[start:], queries)
        hidden = self.model.text_decoder(embeds, self._rotary(start), self._cache, self._mask(start, count, queries))
        for (phrase, _), rows in zip(blocks, queries, strict=True):
            self.groups.append(Group(phrase.conditioning, phrase.text, hidden[0, rows]))
        return ForwardPass(self.layout, start, start + count, hidden)

    def _embeds(self, ids: list[int], queries: Sequence[slice]) -> torch.Tensor:
        """Return the input embeddings [1, n, h] of new rows; those at `queries` are the query bank."""
        model = self.model
        if len(ids) == 1:
            return model.model.language_model.embed_tokens.weight[None, ids[0] : ids[0] + 1]
        embeds = model.embed(to_device([ids], model.device))
        for rows in queries:
            embeds[0, rows] = model.model.mask_queries
        return embeds

    def _rotary(self, start: int) -> RotaryTable:
        """Return the rotary table of the rows from `start` on, all of which are text."""
        positions = [position for position, _, _ in self.layout.positions[start:]]
        table = self.model.text_decoder.rotary_table(max(positions) + 1)
        if positions == list(range(positions[0], positions[0] + len(positions))):
            return table.rows(positions[0], positions[0] + len(positions))
        return table.at(to_device(positions, self.model.device))

    def _mask(self, start: int, count: int, queries: Sequence[slice]) -> torch.Tensor | None:
        """Return the additive mask [n, start + n] of new rows, 0 or -inf; None for a single row, which sees all."""
        if count == 1:
            return None
        model, mode = self.model, self.layout.mode
        visible = torch.ones(count, count, dtype=torch.bool, device=model.device).tril_()
        for rows in queries if mode != 'causal' else ():
            visible[rows, rows.start : rows.stop + (mode == 'reference')] = True
        mask = torch.zeros(count, start + count, dtype=model.dtype, device=model.device)
        mask[:, start:].masked_fill_(visible.logical_not_(), float('-inf'))
        return mask

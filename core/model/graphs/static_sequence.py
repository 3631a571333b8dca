"""The language model's passes on a key-value cache at a fixed address, with everything computed on the device.

Rows and positions are counters on the device, the attention covers the whole cache and is masked, and the most probable
next token stays on the device. So a pass has the same shapes whatever precedes it.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Sequence
from typing import Any

import torch

from instructsam.core.device import to_device
from instructsam.core.model.graphs.capture import Recorder, StaticCalls, smallest_bucket
from instructsam.core.model.instructsam import InstructSAMModel
from instructsam.core.model.layers.kv_cache import KvCache
from instructsam.core.model.sequence import ForwardPass, Group, PhraseIds, Pick, Prefix, TokenSequence

TEXT_BUCKETS = (8, 16, 32, 64, 128)  # numbers of rows of a pass over text
MAX_CALLS = len(TEXT_BUCKETS) + 2


class NewRows:
    """Replaces an empty KvCache in a recorded pass: collects the keys and values of the pass's rows."""

    length = 0

    def __init__(self) -> None:
        self.keys: list[torch.Tensor] = []  # [1, heads, n, d] per layer
        self.values: list[torch.Tensor] = []

    def reserve(self, rows: int) -> None:
        """Do nothing: no memory is shared."""

    def advance(self, rows: int) -> None:
        """Do nothing: there is one pass only."""

    def append(self, layer: int, keys: torch.Tensor, values: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Keep the keys and values of a layer, and return them."""
        self.keys.append(keys)
        self.values.append(values)
        return keys, values


class StaticRows:
    """Replaces a KvCache in a recorded pass: a tensor on the device says where the pass's n rows are written."""

    length = -1  # not 0, which would mean causal attention without a mask

    def __init__(self, cache: KvCache, rows: torch.Tensor):
        """Write to `rows` [n] int64 of `cache`."""
        self._cache, self._rows = cache, rows

    def reserve(self, rows: int) -> None:
        """Do nothing: the memory is fixed."""

    def advance(self, rows: int) -> None:
        """Do nothing: the length is on the device."""

    def append(self, layer: int, keys: torch.Tensor, values: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Write keys and values [1, heads, n, d] of a layer; return those of the whole cache."""
        all_keys, all_values = self._cache.keys[layer], self._cache.values[layer]
        all_keys.index_copy_(2, self._rows, keys)
        all_values.index_copy_(2, self._rows, values)
        return all_keys, all_values


class StaticLanguage:
    """Passes over a cache of fixed capacity, which one sequence at a time may use."""

    def __init__(self, model: InstructSAMModel, mode: str, capacity: int, record: Recorder, wrap: Callable[[Any], Any]):
        """Allocate the cache.

        Args:
            model: The network.
            mode: One of `core.modes.MODES`.
            capacity: Rows of the cache.
            record: Records the passes.
            wrap: Compiles a function, or returns it as it is.
        """
        self.model, self.mode, self.capacity = model, mode, capacity
        device, tokens, slots = model.device, model.config.tokens, model.config.num_queries
        self.cache = model.text_decoder.new_cache(0, capacity)
        self.cache.keys.zero_()
        self.cache.values.zero_()
        self._table = model.text_decoder.rotary_table(capacity + 2)
        self._columns = torch.arange(capacity, device=device)
        self._block_ids = torch.tensor(
            [[tokens.phrase_end, tokens.mask_start, *[tokens.query] * slots, tokens.mask_end]], device=device
        )
        self._calls = StaticCalls(record, wrap, MAX_CALLS)
        self._lock = threading.Lock()
        self._user: weakref.ref[StaticSequence] | None = None
        self._prefix: weakref.ref[Prefix] | None = None  # its rows start the cache

    def claim(self, sequence: StaticSequence, prefix: Prefix) -> bool:
        """Reserve the cache for a sequence as long as it lives; return False if another sequence has it."""
        with self._lock:
            if self._user is not None and self._user() is not None:
                return False
            self._user = weakref.ref(sequence)
        is_there = self._prefix is not None and self._prefix() is prefix
        length = prefix.cache.length
        for own, rows in zip((self.cache.keys, self.cache.values), prefix.cache.rows(), strict=True):
            if not is_there:
                own[..., :length, :] = rows
            own[..., length:, :] = 0  # masked rows have the weight 0, but 0 x NaN is NaN
        self._prefix = weakref.ref(prefix)
        return True

    def decode_step(self, token: torch.Tensor, start: torch.Tensor, position: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Run one token.

        Args:
            token: [1] int64.
            start: [1] int64, its row.
            position: [1] int64.

        Returns:
            Its hidden state [1, 1, h], and the next token [1] and its logit [1].
        """
        return self._run(self.model.embed(token)[None], start, position, None)

    def text_rows(
        self, ids: torch.Tensor, start: torch.Tensor, position: torch.Tensor, last: torch.Tensor
    ) -> tuple[torch.Tensor, ...]:
        """Run text [1, n], padded after the row `last` [1]; see `decode_step`, whose outputs are those of that row."""
        return self._run(self.model.embed(ids), start, position, None, last)

    def query_block(self, start: torch.Tensor, position: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Run the end of a phrase and its query block; see `decode_step`. The hidden states are all [1, K + 3, h]."""
        embeds = self.model.embed(self._block_ids)
        stop = 2 + self.model.config.num_queries
        queries = self.model.model.mask_queries[None].to(embeds.dtype)
        embeds = torch.cat([embeds[:, :2], queries, embeds[:, stop:]], dim=1)
        visible = None if self.mode == 'causal' else (2, stop, stop + (self.mode == 'reference'))
        return self._run(embeds, start, position, visible)

    def _run(
        self,
        embeds: torch.Tensor,
        start: torch.Tensor,
        position: torch.Tensor,
        block: tuple[int, int, int] | None,
        last: torch.Tensor | None = None,
    ) -> tuple[torch.Tensor, ...]:
        """Run rows; rows block[0] to block[1] - 1 also see all before block[2]. `last`: row to return."""
        offsets = self._columns[: embeds.shape[1]]
        rows = start + offsets
        visible = self._columns <= rows[:, None]
        if block is not None:
            is_query = (offsets >= block[0]) & (offsets < block[1])
            visible = visible | (is_query[:, None] & (self._columns < start + block[2]))
        mask = torch.zeros(visible.shape, dtype=embeds.dtype, device=embeds.device)
        mask = mask.masked_fill(visible.logical_not(), float('-inf'))
        cache: Any = StaticRows(self.cache, rows)
        hidden = self.model.text_decoder(embeds, self._table.at(position + offsets), cache, mask)
        if last is not None:
            hidden = hidden.index_select(1, last)
        score, token = self.model.token_logits(hidden[:, -1]).max(dim=-1)
        return hidden, token, score

    def run_token(self, token: torch.Tensor, start: int, position: int) -> tuple[torch.Tensor, ...]:
        """Replay `decode_step`."""
        inputs = (token, *self._counters(start, position))
        return self._calls.get('token', self.decode_step, inputs)(*inputs)

    def run_block(self, start: int, position: int) -> tuple[torch.Tensor, ...]:
        """Replay `query_block`."""
        inputs = self._counters(start, position)
        return self._calls.get('block', self.query_block, inputs)(*inputs)

    def run_text(self, ids: Sequence[int], start: int, position: int) -> tuple[torch.Tensor, ...]:
        """Replay `text_rows`, in several passes if there are many ids."""
        outputs: tuple[torch.Tensor, ...] = ()
        for first in range(0, len(ids), TEXT_BUCKETS[-1]):
            part = list(ids[first : first + TEXT_BUCKETS[-1]])
            bucket = smallest_bucket(TEXT_BUCKETS, len(part))
            assert bucket is not None
            padded = to_device([part + [0] * (bucket - len(part))], self.model.device)
            last = torch.full((1,), len(part) - 1, device=self.model.device)
            inputs = padded, *self._counters(start + first, position + first), last
            outputs = self._calls.get(bucket, self.text_rows, inputs)(*inputs)
        return outputs

    def _counters(self, start: int, position: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Return two numbers on the device; kernels write them there, so nothing is transferred."""
        start_row, first_position = (torch.full((1,), each, device=self.model.device) for each in (start, position))
        return start_row, first_position


class StaticSequence(TokenSequence):
    """A sequence whose passes are replayed; if it outgrows the cache, it continues as a TokenSequence."""

    def __init__(self, model: InstructSAMModel, prefix: Prefix, language: StaticLanguage):
        """Continue `prefix`; `language.claim` must succeed before the first pass."""
        super().__init__(model, prefix)
        self._language: StaticLanguage | None = language
        self._token: tuple[torch.Tensor, torch.Tensor] | None = None  # the next token and its logit

    def pick(self, output: ForwardPass) -> Pick:
        """Pick the token that follows the last pass, which may have computed it."""
        return super().pick(output) if self._token is None else Pick(*self._token)

    def run_ahead(self, pick: Pick) -> None:
        """Run a token that the host has not read yet, for `accept`."""
        start = len(self.layout)
        language = self._language_for(start, 1)
        if language is None:
            super().run_ahead(pick)
            return
        hidden, *token = language.run_token(pick.token, start, self.layout.next_position)
        self._ahead = hidden
        self._keep(*token)

    def _run(self, start: int, blocks: Sequence[tuple[PhraseIds, slice]] = ()) -> ForwardPass:
        """Run the rows from `start` on: text and query blocks in turn."""
        language = self._language_for(start, len(self.layout) - start)
        if language is None:
            return super()._run(start, blocks)
        self._ahead = None  # its row is overwritten
        outputs: Any = ()
        row = start
        for phrase, queries in blocks:
            block = queries.start - 2
            self._run_text(language, row, block)
            outputs = language.run_block(block, self.layout.positions[block][0])
            hidden = outputs[0][0, 2 : 2 + self.model.config.num_queries].clone()
            self.groups.append(Group(phrase.conditioning, phrase.text, hidden))
            row = queries.stop + 1
        hidden, token, score = self._run_text(language, row, len(self.layout)) or outputs
        self._keep(token, score)
        return ForwardPass(self.layout, start, len(self.layout), hidden)

    def _run_text(self, language: StaticLanguage, row: int, stop: int) -> tuple[torch.Tensor, ...]:
        """Run the text rows from `row` to before `stop`, if there are any."""
        if row == stop:
            return ()
        ids, position = self.layout.ids[row:stop], self.layout.positions[row][0]
        if len(ids) == 1:
            return language.run_token(torch.full((1,), ids[0], device=self.model.device), row, position)
        return language.run_text(ids, row, position)

    def _keep(self, token: torch.Tensor, score: torch.Tensor) -> None:
        """Keep the next token, whose buffers the next pass overwrites."""
        self._token = token.clone(), score.clone()

    def _language_for(self, start: int, rows: int) -> StaticLanguage | None:
        """Return the language to run `rows` rows after `start` rows; None: they do not fit, now or later."""
        language = self._language
        if language is not None and start + rows + TEXT_BUCKETS[-1] > language.capacity:
            self._cache.reserve(start + rows - self._cache.length)
            for own, filled in zip(
                (self._cache.keys, self._cache.values), (language.cache.keys, language.cache.values), strict=True
            ):
                own[..., :start, :] = filled[..., :start, :]
            self._cache.length = start
            self._ahead = self._token = self._language = None
        return self._language

"""Token order, positions and attention mask of the language model's sequence.

Attention is hybrid (paper, section 3.2): text is causal, and after each phrase the K queries of the query bank form a
block within which attention is bidirectional. For a phrase that ends before a block of K = 2 queries, then more text
(rows attend to columns):

                              text  /ref  mask   q1    q2  /mask  text
    text                        x
    /ref   <|object_ref_end|>   x     x
    mask   <|mask_start|>       x     x     x
    q1     [SEG]                x     x     x     x     h     r
    q2     [SEG]                x     x     x     x     x     r
    /mask  <|mask_end|>         x     x     x     x     x     x
    text                        x     x     x     x     x     x     x

    x: in every mode    h: in modes consistent and reference    r: in mode reference only

The modes (see core/modes.py) also differ in positions:
- consistent, as trained: Qwen3-VL's 3-axis positions (M-RoPE).
- reference, as in the authors' inference code: a position is the plain sequence index, also for image tokens, and a
  query block starts one position late.
- causal, for the ablation (paper, section 4): positions as in consistent.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace

import torch

from instructsam.core.model.config import Tokens


@dataclass
class TokenLayout:
    """A token sequence that is being written, one row per token.

    It holds lists instead of tensors because decoding appends rows one at a time.
    """

    tokens: Tokens
    num_queries: int  # K, size of the query bank
    mode: str  # one of core.modes.MODES
    ids: list[int] = field(default_factory=list)
    positions: list[tuple[int, int, int]] = field(default_factory=list)  # (time, height, width) of each row
    attends_block: list[int] = field(default_factory=list)  # query block that the row sees as a whole, or -1
    visible_in_block: list[int] = field(default_factory=list)  # query block whose queries all see the row, or -1
    blocks: int = 0  # number of query blocks so far
    branches: list[int] = field(default_factory=list)  # branch of each row; -1: a common row, which all see
    branch: int = -1  # branch of the next row
    branch_start: int = -1  # position of the first row of a branch that is still empty, or -1

    def __len__(self) -> int:
        return len(self.ids)

    def copy(self) -> TokenLayout:
        """Return a copy that can be extended without changing this layout."""
        return replace(
            self,
            ids=self.ids[:],
            positions=self.positions[:],
            attends_block=self.attends_block[:],
            visible_in_block=self.visible_in_block[:],
            branches=self.branches[:],
        )

    @property
    def next_position(self) -> int:
        """Position of the next token: its index (reference), or one past the largest position so far (M-RoPE)."""
        if self.branch_start >= 0:
            return self.branch_start
        if self.mode == 'reference':
            return len(self)
        return max(self.positions[-1]) + 1 if self.positions else 0

    def start_branch(self) -> None:
        """Make the next rows a branch that continues the common rows: all rows before the first branch.

        A branch neither sees other branches nor is seen by them, so that it is computed as if it were the only one.
        """
        common = self.branches.index(0) if self.branch >= 0 else len(self)
        self.branch_start = max(self.positions[common - 1]) + 1
        self.branch += 1

    def add_text(self, ids: Iterable[int]) -> None:
        """Append plain tokens."""
        for token in ids:
            self._append(token, self.next_position)

    def add_image(self, rows: int, columns: int) -> None:
        """Append rows x columns image tokens; with M-RoPE they share one time and form a grid."""
        if self.mode == 'reference':
            self.add_text([self.tokens.image] * (rows * columns))
            return
        start = self.next_position
        for row in range(rows):
            for column in range(columns):
                self._append_at(self.tokens.image, (start, start + row, start + column))

    def add_query_block(self) -> slice:
        """Append `<|object_ref_end|>`, which ends a phrase, `<|mask_start|>`, the K queries and `<|mask_end|>`.

        Returns the slice of the queries' rows.
        """
        block, tokens = self.blocks, self.tokens
        start = self.next_position + (1 if self.mode == 'reference' else 0)
        self._append(tokens.phrase_end, start)
        self._append(tokens.mask_start, start + 1)
        queries = slice(len(self), len(self) + self.num_queries)
        attends_block = -1 if self.mode == 'causal' else block
        for position in range(start + 2, start + 2 + self.num_queries):
            self._append(tokens.query, position, attends_block, visible_in_block=block)
        end_visible_in = block if self.mode == 'reference' else -1
        self._append(tokens.mask_end, start + 2 + self.num_queries, visible_in_block=end_visible_in)
        self.blocks += 1
        return queries

    def _append(self, token: int, position: int, attends_block: int = -1, visible_in_block: int = -1) -> None:
        self._append_at(token, (position, position, position), attends_block, visible_in_block)

    def _append_at(
        self, token: int, position: tuple[int, int, int], attends_block: int = -1, visible_in_block: int = -1
    ) -> None:
        self.ids.append(token)
        self.positions.append(position)
        self.attends_block.append(attends_block)
        self.visible_in_block.append(visible_in_block)
        self.branches.append(self.branch)
        self.branch_start = -1

    def position_ids(self, start: int = 0, device: torch.device | str | None = None) -> torch.Tensor:
        """Return the positions of the rows from `start` on, [3, n] int64."""
        return torch.tensor(self.positions[start:], device=device).T

    def attention_mask(self, start: int = 0, device: torch.device | str | None = None) -> torch.Tensor:
        """Return the attention mask of the rows from `start` on, [n, len] bool, true where a row may attend.

        See the matrix at the top of this module; rows of a branch see the common rows and their own branch only.
        """
        rows = torch.arange(start, len(self), device=device)[:, None]
        columns = torch.arange(len(self), device=device)[None, :]
        attends_block = torch.tensor(self.attends_block[start:], device=device)[:, None]
        visible_in_block = torch.tensor(self.visible_in_block, device=device)[None, :]
        visible = (columns <= rows) | ((attends_block >= 0) & (attends_block == visible_in_block))
        if self.branch < 0:
            return visible
        branches = torch.tensor(self.branches, device=device)
        return visible & ((branches < 0) | (branches == branches[start:, None]))

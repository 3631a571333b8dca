"""Which token stands where in the language model's sequence, at which position, and what it may look at.

Two ways of running the queries (they differ, see README):
- consistent, as trained: Qwen3-VL's 3-axis positions (M-RoPE); queries see everything before them and each other.
- reference, as the authors' inference code runs it: positions are the plain sequence index, also for image tokens; a
  query block starts one position late; queries also see the `<|mask_end|>` behind them.

A third, causal, is there for ablation (paper, section 4): as consistent, but queries see only what is before them.
"""

from dataclasses import dataclass, field

import torch


@dataclass
class Layout:
    """A sequence being written, one row a token. Nothing here is a tensor: rows are appended while text is decoded."""

    tokens: object  # config.Tokens
    num_queries: int  # K
    mode: str
    ids: list[int] = field(default_factory=list)
    positions: list[tuple[int, int, int]] = field(default_factory=list)  # time, height, width
    looks: list[int] = field(default_factory=list)  # block in which the row also sees what comes after it, or -1
    shows: list[int] = field(default_factory=list)  # block whose queries see the row though it comes after them, or -1
    blocks: int = 0  # query blocks so far
    branches: list[int] = field(default_factory=list)  # branch of the row, or -1: the trunk, which every branch sees
    branch: int = -1  # of the rows to come
    fork: int = -1  # position at which the open branch, still empty, starts, or -1

    def __len__(self):
        return len(self.ids)

    def copy(self):
        return Layout(
            self.tokens,
            self.num_queries,
            self.mode,
            self.ids[:],
            self.positions[:],
            self.looks[:],
            self.shows[:],
            self.blocks,
            self.branches[:],
            self.branch,
            self.fork,
        )

    @property
    def next_position(self):
        """Where the next token stands: its index (reference), or past the largest position so far (M-RoPE)."""
        if self.fork >= 0:
            return self.fork
        if self.mode == 'reference':
            return len(self)
        return max(self.positions[-1]) + 1 if self.positions else 0

    def start_branch(self):
        """What follows goes on from the trunk, everything before the first branch, and neither sees the other branches
        nor is seen by them: each branch is as if it were alone with the trunk.
        """
        trunk = self.branches.index(0) if self.branch >= 0 else len(self)
        self.fork = max(self.positions[trunk - 1]) + 1
        self.branch += 1

    def add_text(self, ids):
        """Appends plain tokens."""
        for token in ids:
            self._add(token, self.next_position)

    def add_image(self, rows, columns):
        """Appends rows x columns image tokens; with M-RoPE they share a time and stand on a grid."""
        if self.mode == 'reference':
            self.add_text([self.tokens.image] * (rows * columns))
            return
        start = self.next_position
        for row in range(rows):
            for column in range(columns):
                self._place(self.tokens.image, (start, start + row, start + column))

    def add_query_block(self):
        """Appends `<|object_ref_end|>`, which ends a phrase, `<|mask_start|>`, the K queries and `<|mask_end|>`.

        Returns the slice of the queries' rows.
        """
        start = self.next_position + (1 if self.mode == 'reference' else 0)
        tokens = self.tokens
        ids = [tokens.phrase_end, tokens.mask_start, *[tokens.query] * self.num_queries, tokens.mask_end]
        first = len(self) + 2
        queries = range(2, 2 + self.num_queries)
        for offset, token in enumerate(ids):
            looks = self.blocks if offset in queries and self.mode != 'causal' else -1
            shows = self.blocks if offset in queries or (self.mode == 'reference' and offset == len(ids) - 1) else -1
            self._add(token, start + offset, looks, shows)
        self.blocks += 1
        return slice(first, first + self.num_queries)

    def _add(self, token, position, looks=-1, shows=-1):
        self._place(token, (position,) * 3, looks, shows)

    def _place(self, token, position, looks=-1, shows=-1):
        self.ids.append(token)
        self.positions.append(position)
        self.looks.append(looks)
        self.shows.append(shows)
        self.branches.append(self.branch)
        self.fork = -1

    def position_ids(self, start=0, device=None):
        """Positions of the rows from `start` on, [3, n] int64."""
        return torch.tensor(self.positions[start:], device=device).T

    def attention_mask(self, start=0, device=None):
        """Hybrid attention of the rows from `start` on: [n, len] bool, true where a row may look (paper, section 3.2).

        Text is causal; a query also sees the rest of its block. Branches see the trunk and themselves.
        """
        rows = torch.arange(start, len(self), device=device)[:, None]
        columns = torch.arange(len(self), device=device)[None, :]
        looks = torch.tensor(self.looks[start:], device=device)[:, None]
        shows = torch.tensor(self.shows, device=device)[None, :]
        seen = (columns <= rows) | ((looks >= 0) & (looks == shows))
        if self.branch < 0:
            return seen
        branches = torch.tensor(self.branches, device=device)
        return seen & ((branches < 0) | (branches == branches[start:, None]))

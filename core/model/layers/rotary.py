"""Rotary position embeddings (RoFormer, arXiv 2104.09864) with tables that are computed once.

Both forms give the same numbers as those of transformers, bit for bit, with less than half of their operations.
"""

from __future__ import annotations

from typing import NamedTuple

import torch


class RotaryTable(NamedTuple):
    """Cosines and signed sines of n positions for the form of Qwen3-VL, which pairs the two halves of a head."""

    cos: torch.Tensor  # [n, 1, d], for all heads
    sin: torch.Tensor  # [n, 1, d], negated in the first half

    @classmethod
    def of(cls, cos: torch.Tensor, sin: torch.Tensor) -> RotaryTable:
        """Return the table for cosines and sines [n, d], whose halves are equal."""
        half = sin.shape[-1] // 2
        return cls(cos[:, None], torch.cat([-sin[..., :half], sin[..., half:]], dim=-1)[:, None])

    def rows(self, start: int, stop: int) -> RotaryTable:
        """Return the table of the positions from `start` to before `stop`."""
        return RotaryTable(self.cos[start:stop], self.sin[start:stop])

    def at(self, positions: torch.Tensor) -> RotaryTable:
        """Return the table of `positions` [n]."""
        return RotaryTable(self.cos.index_select(0, positions), self.sin.index_select(0, positions))


def rotate_halves(values: torch.Tensor, table: RotaryTable) -> torch.Tensor:
    """Rotate heads [..., n, heads, d] by the positions of a table with n rows."""
    swapped = values.roll(values.shape[-1] // 2, dims=-1)
    return values * table.cos + swapped * table.sin


def axial_table(rows: int, columns: int, size: int, theta: float, scale: float) -> torch.Tensor:
    """Return the rotations of the cells of a grid for SAM3's form, which pairs neighbouring channels.

    Args:
        rows: Rows of the grid.
        columns: Columns of the grid.
        size: Channels of a head; the first half turns with the column, the second with the row.
        theta: Base of the frequencies.
        scale: Distance between two neighbouring cells.

    Returns:
        Unit complex numbers [rows * columns, size / 2].
    """
    frequencies = 1.0 / (theta ** (torch.arange(0, size, 4).float() / size))
    y, x = (axis.flatten() * scale for axis in torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing='ij'))
    angles = torch.cat([torch.outer(x, frequencies), torch.outer(y, frequencies)], dim=-1)
    return torch.complex(angles.cos(), angles.sin())


def rotate_pairs(values: torch.Tensor, table: torch.Tensor) -> torch.Tensor:
    """Rotate heads [..., n, heads, d], computed in float32, by a table of unit complex numbers [n, d / 2]."""
    pairs = torch.view_as_complex(values.float().unflatten(-1, (-1, 2)))
    return torch.view_as_real(pairs * table[:, None]).flatten(-2).to(values.dtype)

"""Qwen3-VL's vision tower on one image, for inference: the weights of transformers' module, fewer operations.

Everything that depends only on the image's size is computed once per size. Training uses transformers' own forward
pass, which takes several images.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from transformers.models.qwen3_vl.modeling_qwen3_vl import Qwen3VLVisionModel

from instructsam.core.model.layers.rotary import RotaryTable, rotate_halves

MAX_PLANS = 8  # image sizes whose plans are kept
THETA = 10000.0  # base of the rotary frequencies, which no configuration changes


class GridPlan(NamedTuple):
    """Values that depend only on the size of a grid of P patches. Patches of one token are adjacent."""

    neighbours: torch.Tensor  # [P, 4] int64, the learned positions around each patch
    weights: torch.Tensor  # [P, 4] float32, of their bilinear interpolation
    rotary: RotaryTable  # float32


class VisionTower:
    """Runs one image through the vision tower. Its only state is the plans of grids."""

    def __init__(self, model: Qwen3VLVisionModel):
        config: Any = model.config
        self._model: Any = model
        self._heads: int = config.num_heads
        self._size: int = config.hidden_size // config.num_heads
        self._merge: int = config.spatial_merge_size
        self._side = int(config.num_position_embeddings**0.5)  # side of the square of learned positions
        self._levels: list[int] = list(config.deepstack_visual_indexes)
        self._plans: dict[tuple[int, int, torch.device], GridPlan] = {}

    def plan(self, rows: int, columns: int) -> GridPlan:
        """Return the plan of a grid of patches."""
        device = self._model.pos_embed.weight.device
        plan = self._plans.get((rows, columns, device))
        if plan is None:
            if len(self._plans) >= MAX_PLANS:
                self._plans.clear()
            plan = self._plans[rows, columns, device] = self._new_plan(rows, columns, device)
        return plan

    def _new_plan(self, rows: int, columns: int, device: torch.device) -> GridPlan:
        merge = self._merge
        grid = torch.stack(torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing='ij'))
        grid = grid.view(2, rows // merge, merge, columns // merge, merge).transpose(2, 3).flatten(1)  # [2, P]
        last = self._side - 1
        exact = grid * last / torch.tensor([[max(rows - 1, 1)], [max(columns - 1, 1)]])
        low = exact.floor().long()
        above = exact - low  # share of the next learned position
        high = (low + 1).clamp(max=last)
        y, x = (torch.stack(pair, dim=-1) for pair in zip(low, high, strict=True))  # [P, 2] each
        share_y, share_x = (torch.stack([1 - share, share], dim=-1) for share in above)
        neighbours = (y[:, :, None] * self._side + x[:, None, :]).flatten(1)
        weights = (share_y[:, :, None] * share_x[:, None, :]).flatten(1)
        half = self._size // 2
        frequencies = 1.0 / (THETA ** (torch.arange(0, half, 2).float() / half))
        angles = torch.cat([torch.outer(axis.float(), frequencies) for axis in grid], dim=-1)
        angles = torch.cat([angles, angles], dim=-1)
        table = RotaryTable.of(angles.cos(), angles.sin())
        return GridPlan(neighbours.to(device), weights.to(device), RotaryTable(*(each.to(device) for each in table)))

    def __call__(self, patches: torch.Tensor, plan: GridPlan) -> tuple[torch.Tensor, list[torch.Tensor]]:
        """Run the patches [P, n] of an image; see VisualFeatures for the two outputs."""
        model = self._model
        hidden = model.patch_embed(patches)
        positions = (model.pos_embed(plan.neighbours) * plan.weights[:, :, None]).sum(1)
        hidden = hidden + positions.to(hidden.dtype)
        deepstack: dict[int, torch.Tensor] = {}
        for index, block in enumerate(model.blocks):
            hidden = hidden + self._attention(block.attn, block.norm1(hidden), plan.rotary)
            hidden = hidden + block.mlp(block.norm2(hidden))
            if index in self._levels:
                level = self._levels.index(index)
                deepstack[level] = model.deepstack_merger_list[level](hidden)
        levels: Sequence[int] = sorted(deepstack)
        return model.merger(hidden), [deepstack[level] for level in levels]

    def _attention(self, attention: Any, hidden: torch.Tensor, rotary: RotaryTable) -> torch.Tensor:
        qkv = attention.qkv(hidden).unflatten(-1, (3 * self._heads, self._size))  # [P, 3 heads, d]
        query_keys, values = qkv.split([2 * self._heads, self._heads], dim=1)
        query_keys = rotate_halves(query_keys.float(), rotary).to(values.dtype)
        queries, keys = query_keys.transpose(0, 1)[None].split([self._heads, self._heads], dim=1)
        attended = F.scaled_dot_product_attention(queries, keys, values.transpose(0, 1)[None])
        return attention.proj(attended[0].transpose(0, 1).flatten(1))

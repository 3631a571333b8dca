"""AdamW, with Muon for the matrices inside transformer layers (https://kellerjordan.github.io/posts/muon).

Muon's updates are made orthogonal, which lets a small model that is trained from scratch learn as much from fewer
images. Unlike torch.optim.Muon, this one makes all matrices of a shape orthogonal in one batch, which takes half of the
time for the many small matrices of a small model, and shares the work between processes.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.distributed as dist

from instructsam.core.cpu_info import bfloat16_units

_IN_A_LAYER = re.compile(r'\.(layers|blocks)\.\d+\.')
_COEFFICIENTS = (3.4445, -4.7750, 2.0315)  # coefficients of the Newton-Schulz iteration, as in torch.optim.Muon
_STEPS = 5
_MOMENTUM = 0.95
_UPDATE_SCALE = 0.2  # makes an update about as large as AdamW's at the same learning rate


def is_hidden_matrix(name: str, parameter: torch.Tensor) -> bool:
    """Return whether Muon applies: a 2-D weight of a numbered layer, excluding LoRA factors."""
    return parameter.ndim == 2 and bool(_IN_A_LAYER.search(name)) and '.lora_' not in name


class Muon(torch.optim.AdamW):
    """AdamW for most parameter groups, and Muon for those with `orthogonal: True`, at learning rates like AdamW's."""

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Take one step; see torch.optim.Optimizer.step."""
        groups = self.param_groups
        self.param_groups = [group for group in groups if not group.get('orthogonal')]
        try:
            loss = super().step(closure)  # pyright: ignore[reportArgumentType]  # the decorator hides None
        finally:
            self.param_groups = groups
        matrices = [
            (parameter, group)
            for group in groups
            if group.get('orthogonal')
            for parameter in group['params']
            if parameter.grad is not None
        ]
        updates = self._updates([parameter for parameter, _ in matrices])
        for (parameter, group), update in zip(matrices, updates, strict=True):
            scale = _UPDATE_SCALE * max(parameter.shape) ** 0.5
            parameter.mul_(1 - group['lr'] * group['weight_decay']).add_(update, alpha=-group['lr'] * scale)
        return loss

    def _updates(self, parameters: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """Return the orthogonal update of each parameter; processes share the work."""
        rank, world_size = (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)
        updates = []
        for parameter in parameters:
            state = self.state[parameter]
            if not state:
                state['step'] = torch.zeros(())  # AdamW expects it in every state that it loads
                state['momentum'] = torch.zeros_like(parameter)
            state['step'] += 1
            assert parameter.grad is not None  # step() passes only parameters with gradients
            momentum = state['momentum'].lerp_(parameter.grad, 1 - _MOMENTUM)
            updates.append(parameter.grad.lerp(momentum, _MOMENTUM))
        own: dict[torch.Size, list[int]] = {}
        for index, update in enumerate(updates):
            if index % world_size == rank:
                own.setdefault(update.shape, []).append(index)
            else:
                updates[index] = torch.zeros_like(update)
        for indices in own.values():
            stacked = orthogonalise(torch.stack([updates[index] for index in indices]))
            for index, update in zip(indices, stacked.unbind(), strict=True):
                updates[index] = update
        if world_size > 1 and updates:
            flat = torch.cat([update.flatten() for update in updates])
            dist.all_reduce(flat)
            parts = flat.split([update.numel() for update in updates])
            updates = [part.view_as(update) for part, update in zip(parts, updates, strict=True)]
        return updates


def orthogonalise(matrices: torch.Tensor) -> torch.Tensor:
    """Return matrices [N, m, n] with the same singular vectors whose singular values are all about 1 (0.7 to 1.2).

    The Newton-Schulz iteration runs in bfloat16, as in torch.optim.Muon, or in float32 on a CPU without instructions
    for bfloat16, where that is 2.4 times as fast (test/bench/bench_muon.py).
    """
    a, b, c = _COEFFICIENTS
    is_tall = matrices.shape[1] > matrices.shape[2]
    x = (matrices.mT if is_tall else matrices).to(_precision(matrices.device.type))
    x = x / x.norm(dim=(1, 2), keepdim=True).clamp(min=1e-7)
    for _ in range(_STEPS):
        gram = x @ x.mT
        polynomial = torch.baddbmm(gram, gram, gram, beta=b, alpha=c)
        x = torch.baddbmm(x, polynomial, x, beta=a)
    return (x.mT if is_tall else x).to(matrices)


@functools.cache
def _precision(device_type: str) -> torch.dtype:
    return torch.float32 if device_type == 'cpu' and not bfloat16_units() else torch.bfloat16

"""Gathers tensors that FSDP has sharded, to save them, and shards them again, so that files hold whole tensors.

torch.distributed.checkpoint.state_dict does the same for weights, but it keys an optimizer's state by parameter names:
the optimizer.pt of a sharded run would differ from that of other runs, which could no longer resume each other.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn
from torch.distributed.tensor import DTensor, distribute_tensor


def gathered(value: Any, *, keep: bool) -> Any:
    """Return a tensor, or nested dictionaries and lists of tensors, with whole tensors on the CPU.

    All processes have to call it.

    Args:
        value: The tensor or container.
        keep: Return the whole tensors; False: None instead of each sharded tensor, which bounds the memory of processes
            that do not save.
    """
    if isinstance(value, DTensor):
        whole = value.full_tensor()
        return whole.cpu() if keep else None
    if isinstance(value, Mapping):
        return {name: gathered(each, keep=keep) for name, each in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(gathered(each, keep=keep) for each in value)
    return value


def sharded_like(tensor: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """Return a whole tensor sharded as `like` is; `tensor` itself if `like` is whole."""
    if not isinstance(like, DTensor):
        return tensor
    device = like.to_local().device
    return distribute_tensor(tensor.to(device), like.device_mesh, like.placements, src_data_rank=None)


@torch.no_grad()
def load_model(module: nn.Module, tensors: Mapping[str, torch.Tensor]) -> None:
    """Load whole tensors, one for each entry of its state_dict, into `module`."""
    for name, own in module.state_dict().items():
        own.copy_(sharded_like(tensors[name], own))


def load_optimizer(optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> None:
    """Load a state_dict with whole tensors into `optimizer`."""
    parameters = [parameter for group in optimizer.param_groups for parameter in group['params']]
    moments = {}
    for number, values in state['state'].items():
        moments[number] = {
            name: sharded_like(value, parameters[number]) if getattr(value, 'ndim', 0) else value
            for name, value in values.items()
        }
    optimizer.load_state_dict({**state, 'state': moments})

"""Linear layers that read the same input, computed as one matrix product.

Small products are slow: on CPUs they do not fill a core's vector units, and on GPUs each is a separate kernel launch.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn


class JointLinear:
    """Linear layers of one input. The layers stay where they are in the model, with their parameters and names.

    `join` concatenates their weights and makes each weight a view of the result, so that memory does not grow. Before
    that, and if a layer is trainable, wrapped (LoRA) or has been given another tensor since, each layer is computed
    alone.
    """

    def __init__(self) -> None:
        self._weight: torch.Tensor | None = None  # [sum of the outputs, inputs]
        self._bias: torch.Tensor | None = None
        self._sizes: list[int] = []
        self._pointers: tuple[int, ...] = ()  # addresses of the layers' weights in it

    @torch.inference_mode(mode=False)
    @torch.no_grad()
    def join(self, layers: Sequence[Any]) -> None:
        """Make the weights of `layers` views of one tensor, if all are plain linear layers that are frozen."""
        if not all(type(layer) is nn.Linear and _is_frozen(layer) for layer in layers):
            return
        self._sizes = [layer.out_features for layer in layers]
        self._weight = _joined([layer.weight for layer in layers])
        self._bias = None if layers[0].bias is None else _joined([layer.bias for layer in layers])
        self._pointers = _pointers(layers)

    def __call__(self, values: torch.Tensor, *layers: Any) -> tuple[torch.Tensor, ...]:
        """Return the output of each of `layers`, which must be those that were joined."""
        if (weight := self._current_weight(layers)) is not None:
            return F.linear(values, weight, self._bias).split(self._sizes, dim=-1)
        return tuple(layer(values) for layer in layers)

    def side_by_side(self, values: torch.Tensor, *layers: Any) -> torch.Tensor:
        """Return the outputs one after the other in one tensor, [..., sum of the outputs]."""
        if (weight := self._current_weight(layers)) is not None:
            return F.linear(values, weight, self._bias)
        return torch.cat([layer(values) for layer in layers], dim=-1)

    def _current_weight(self, layers: Sequence[Any]) -> torch.Tensor | None:
        """Return the joint weight if the layers' weights are still views of it and frozen; else None."""
        if self._weight is None or torch.compiler.is_compiling():  # a compiler cannot compare addresses
            return self._weight
        return self._weight if _pointers(layers) == self._pointers else None


def _is_frozen(layer: nn.Linear) -> bool:
    parameters = [layer.weight] if layer.bias is None else [layer.weight, layer.bias]
    return all(type(each.data) is torch.Tensor and not each.requires_grad and not each.is_meta for each in parameters)


def _joined(parameters: Sequence[nn.Parameter]) -> torch.Tensor:
    """Return the concatenation of parameters, and make them views of it."""
    joint = torch.cat([parameter.data for parameter in parameters])
    for parameter, part in zip(parameters, joint.split([len(each) for each in parameters]), strict=True):
        parameter.data = part
    return joint


def _pointers(layers: Sequence[Any]) -> tuple[int, ...]:
    """Return the addresses of the layers' weights, with 0 for a layer that is trainable or not a plain linear layer.

    It is called for every pass, and `layer.weight` would take ten times as long as the look-up in the dict.
    """
    weights = [layer._parameters['weight'] if type(layer) is nn.Linear else None for layer in layers]
    return tuple([0 if weight is None or weight.requires_grad else weight.data_ptr() for weight in weights])

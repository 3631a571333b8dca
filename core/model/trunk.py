"""EfficientNet-Lite0 up to stride 16: a pretrained network that reads the image once for both encoders.

It is an optional part of a model. Its coarsest map replaces the image as the input of SAM3's vision encoder and of
Qwen's vision tower; its finer maps are added to SAM3's pyramid. The network is EfficientNet (arXiv 1905.11946)
without squeeze-and-excitation and with ReLU6 (the Lite variants of tensorflow/tpu). Its batch normalisation is folded
into the convolutions (train.weights.trunk).
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import nn

STRIDE = 16
"""Pixels per cell of the coarsest map along each axis."""

_STEM = 32
_STAGES = (  # channels, blocks, kernel, stride, expansion; the original has two more stages
    (16, 1, 3, 1, 1),
    (24, 2, 3, 2, 6),
    (40, 2, 5, 2, 6),
    (80, 3, 3, 2, 6),
    (112, 3, 5, 1, 6),
)
FINE_CHANNELS, MIDDLE_CHANNELS, COARSE_CHANNELS = (_STAGES[stage][0] for stage in (1, 2, 4))


class TrunkMaps(NamedTuple):
    """Feature maps of B images of S x S px."""

    fine: torch.Tensor  # [B, 24, S / 4, S / 4]
    middle: torch.Tensor  # [B, 40, S / 8, S / 8]
    coarse: torch.Tensor  # [B, 112, S / 16, S / 16]


class _SameConv(nn.Conv2d):
    """A convolution that pads as TensorFlow's SAME does for even sizes: with a stride of 2, more at the far sides.

    There the kernel gets a row and a column of zeros in front, and all sides the same padding: the same result without
    a copy of the map.
    """

    def __init__(self, channels: int, out: int, kernel: int, stride: int = 1, groups: int = 1):
        super().__init__(channels, out, kernel, stride, padding=kernel // 2, groups=groups)

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        excess = self.stride[0] - 1
        weight = F.pad(self.weight, (excess, 0, excess, 0)) if excess else self.weight
        return self._conv_forward(values, weight, self.bias)


class _Block(nn.Module):
    """An inverted residual block (MobileNetV2, arXiv 1801.04381)."""

    def __init__(self, channels: int, out: int, kernel: int, stride: int, expansion: int):
        super().__init__()
        width = channels * expansion
        expand = [_SameConv(channels, width, 1), nn.ReLU6(inplace=True)] if expansion > 1 else []
        depthwise = [_SameConv(width, width, kernel, stride, groups=width), nn.ReLU6(inplace=True)]
        self.layers = nn.Sequential(*expand, *depthwise, _SameConv(width, out, 1))
        self.is_residual = stride == 1 and channels == out

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        return values + self.layers(values) if self.is_residual else self.layers(values)


class Trunk(nn.Module):
    """EfficientNet-Lite0 without its last two stages and its head, 0.7 M parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(_SameConv(3, _STEM, 3, 2), nn.ReLU6(inplace=True))
        self.stages = nn.ModuleList()
        channels = _STEM
        for out, blocks, kernel, stride, expansion in _STAGES:
            first = _Block(channels, out, kernel, stride, expansion)
            others = [_Block(out, out, kernel, 1, expansion) for _ in range(blocks - 1)]
            self.stages.append(nn.Sequential(first, *others))
            channels = out

    def forward(self, pixels: torch.Tensor) -> TrunkMaps:
        """Return the maps of `pixels` [B, 3, S, S] in -1 to 1, S a multiple of 16."""
        values, maps = self.stem(pixels.contiguous(memory_format=torch.channels_last)), []  # twice as fast on CPUs
        for stage in self.stages:
            values = stage(values)
            maps.append(values)
        return TrunkMaps(maps[1], maps[2], maps[4])

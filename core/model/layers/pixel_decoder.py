"""SAM3's pixel decoder, split where the phrase comes in.

At each level it enlarges the coarser map, adds the pyramid's map, and convolves the sum. Convolution is linear, so that
the pyramid's maps, which all phrases of an image share, are convolved once. The convolution of an enlarged map is a
transposed convolution of the small one, with 16 instead of 36 multiplications for every four pixels. Except for
rounding, the results are those of transformers' module.

Maps have their channels last, which makes the transposed convolutions twice as fast on CPUs. Where gradients are
computed they are contiguous, because with channels last the gradient of a normalisation over groups takes three times
as long.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F


class PixelLevel(NamedTuple):
    """The part of a level of the pixel decoder that depends only on images and weights."""

    convolved: torch.Tensor  # [B, d, 2h, 2w] the pyramid's map after the convolution
    enlarging: torch.Tensor  # [d, d, 4, 4] transposed convolution of the coarser map [G, d, h, w]


def prepare_levels(decoder: Any, maps: Sequence[torch.Tensor]) -> tuple[PixelLevel, ...]:
    """Return the levels of a Sam3PixelDecoder for the pyramid's finer maps [B, d, h, w], coarse to fine."""
    layers = zip(decoder.conv_layers, maps, strict=False)  # SAM3 has one layer more than maps
    return tuple(PixelLevel(_in_memory_format(layer(level)), _enlarging(layer.weight)) for layer, level in layers)


def decode_pixels(decoder: Any, coarse: torch.Tensor, levels: Sequence[PixelLevel]) -> torch.Tensor:
    """Return the output of a Sam3PixelDecoder, [G, d, 4h, 4w].

    Args:
        decoder: The module.
        coarse: [G, d, h, w] the coarsest map.
        levels: The two finer levels, of the image of each of the G groups or of one image.
    """
    maps = _in_memory_format(coarse)
    for norm, level in zip(decoder.norms, levels, strict=False):
        enlarged = F.conv_transpose2d(maps, level.enlarging, stride=2, padding=1)
        maps = F.relu(norm(enlarged + level.convolved))
    return maps


def _in_memory_format(maps: torch.Tensor) -> torch.Tensor:
    """Return maps [B, d, h, w] in the memory format that the module's docstring names."""
    return maps.contiguous(memory_format=torch.contiguous_format if torch.is_grad_enabled() else torch.channels_last)


def _enlarging(weight: torch.Tensor) -> torch.Tensor:
    """Return the transposed convolution [in, out, 4, 4] that doubles a map by repetition and then convolves it.

    weight: [out, in, 3, 3]. Output pixel p of one axis reads the doubled map at p + k - 1 with weight k. Two of these
    are the same pixel of the small map, whose weights are added.
    """
    padded = F.pad(weight, (1, 1, 1, 1))
    pairs = padded[..., :-1, :] + padded[..., 1:, :]
    return (pairs[..., :-1] + pairs[..., 1:]).flip(2, 3).transpose(0, 1).contiguous()

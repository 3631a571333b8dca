"""SAM3's features for many phrases of each image: whatever no phrase changes is computed once per image.

At each level, SAM3's pixel decoder enlarges the coarser map, adds the pyramid's map, and convolves the sum. Convolution
is linear, so that the pyramid's maps, which all phrases of an image share, are convolved once. The convolution of an
enlarged map is a transposed convolution of the small one, with 16 instead of 36 multiplications for every four pixels.
Except for rounding, the results are those of `Grounding.pixel_embeddings`. Maps are kept contiguous, because with
channels last, the gradient of a normalisation over groups takes three times as long on CPUs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F

from instructsam.core.model.grounding import Grounding, ImageFeatures


@dataclass(frozen=True)
class SharedFeatures:
    """Features of B images for the detector."""

    coarse: torch.Tensor  # [B, d, h, w] the pyramid's coarsest level
    position: torch.Tensor  # [1, d, h, w] its position encoding
    convolved: tuple[torch.Tensor, ...] = ()  # [B, d, 2h, 2w] and [B, d, 4h, 4w]: the finer levels; (): boxes only

    @classmethod
    def of(cls, sam: Grounding, features: ImageFeatures) -> SharedFeatures:
        """Return the features of B images, with the finer levels convolved by the pixel decoder's layers."""
        finer = features.pyramid[-2::-1]
        layers: Any = sam.mask_decoder.pixel_decoder.conv_layers  # SAM3 has one more than levels
        convolved = tuple(layer(level).contiguous() for layer, level in zip(layers, finer, strict=False))
        return cls(features.pyramid[-1], features.position[:1], convolved)

    def of_phrases(self, samples: Sequence[int]) -> PhraseFeatures:
        """Return the features for P phrases; samples: the index of each phrase's image."""
        indices = torch.tensor(samples, device=self.coarse.device)
        coarse = select_images(ImageFeatures((self.coarse,), self.position), indices)
        return PhraseFeatures(coarse, self.convolved, indices)


@dataclass(frozen=True)
class PhraseFeatures:
    """Features for P phrases of B images."""

    image: ImageFeatures  # the coarsest level alone, of the image of each phrase
    convolved: tuple[torch.Tensor, ...]  # of the B images, see SharedFeatures
    samples: torch.Tensor  # [P] index of each phrase's image


def select_images(features: ImageFeatures, indices: torch.Tensor) -> ImageFeatures:
    """Return the features of the images at `indices` [P], one after the other."""
    # index_select instead of level[indices], whose gradient several threads sum in an undefined order.
    return ImageFeatures(tuple(level.index_select(0, indices) for level in features.pyramid), features.position[:1])


def pixel_maps(
    sam: Grounding, features: PhraseFeatures, encoded: torch.Tensor, text: torch.Tensor, text_mask: torch.Tensor
) -> torch.Tensor:
    """Return the output of the pixel decoder, [P, d, 4h, 4w]; see Grounding.pixel_embeddings."""
    decoder: Any = sam.mask_decoder.pixel_decoder
    height, width = features.image.pyramid[-1].shape[-2:]
    maps = sam.conditioned_map(encoded, text, text_mask, (height, width))
    for layer, norm, convolved in zip(decoder.conv_layers, decoder.norms, features.convolved, strict=False):
        enlarged = F.conv_transpose2d(maps, _enlarging(layer.weight), stride=2, padding=1)
        maps = F.relu(norm(enlarged + convolved.index_select(0, features.samples)))
    return maps


def _enlarging(weight: torch.Tensor) -> torch.Tensor:
    """Return the transposed convolution [in, out, 4, 4] that doubles a map by repetition and then convolves it.

    weight: [out, in, 3, 3]. Output pixel p of one axis reads the doubled map at p + k - 1 with weight k. Two of these
    are the same pixel of the small map, whose weights are added.
    """
    padded = F.pad(weight, (1, 1, 1, 1))
    pairs = padded[..., :-1, :] + padded[..., 1:, :]
    return (pairs[..., :-1] + pairs[..., 1:]).flip(2, 3).transpose(0, 1).contiguous()

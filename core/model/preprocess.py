"""Image preprocessing for the two encoders: a uint8 RGB image to their input tensors, with torch alone.

Both resizes run on uint8, as in the published pipeline, which the CPU reproduces exactly. torch has no antialiased
resize of uint8 on a GPU: an image that is on the GPU is resized there as floats and rounded once at the end instead of
after each direction. That differs by at most 1/255 for bilinear; bicubic, which overshoots, by a few steps at sharp
edges.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F

from instructsam.core.device import move
from instructsam.core.errors import ImageError, ModelError
from instructsam.core.model.config import read_json
from instructsam.core.model.trunk import STRIDE

if TYPE_CHECKING:
    from transformers.models.qwen3_vl.configuration_qwen3_vl import Qwen3VLVisionConfig

    from instructsam.core.model.config import ModelConfig

MAX_ASPECT_RATIO = 200  # Qwen's limit
MAX_QWEN_PIXELS = 1 << 25  # twice the published limit

Grid = tuple[int, int, int]
"""Size of an image in Qwen's patches: (time, rows, columns); time is 1."""


def to_chw(image: np.ndarray[Any, Any] | torch.Tensor) -> torch.Tensor:
    """Check `image` [H, W, 3] uint8 RGB (numpy or torch) and return it as a torch view [3, H, W] uint8.

    Raises ImageError for anything else.
    """
    if isinstance(image, np.ndarray):
        image = _to_torch(image)
    if not isinstance(image, torch.Tensor):
        raise ImageError(f'an image is a numpy array or torch tensor [H, W, 3] uint8 RGB, got {type(image).__name__}')
    if image.dtype != torch.uint8 or image.ndim != 3 or image.shape[-1] != 3:
        raise ImageError(
            f'an image is [H, W, 3] uint8 RGB, got {list(image.shape)} of {str(image.dtype).removeprefix("torch.")}'
        )
    height, width = image.shape[:2]
    if not height or not width:
        raise ImageError(f'the image is empty: {width} x {height} px')
    if max(height, width) > MAX_ASPECT_RATIO * min(height, width):
        raise ImageError(
            f'the image is {width} x {height} px: its sides may differ by a factor of at most {MAX_ASPECT_RATIO}. '
            'Crop or pad it'
        )
    return image.permute(2, 0, 1)


def example_image(height: int, width: int) -> np.ndarray:
    """Return color gradients, [height, width, 3] uint8 RGB, for runs whose answer does not matter."""
    y, x = np.mgrid[:height, :width]
    return np.stack([x + y, 2 * y, x ^ y], axis=-1).astype(np.uint8)


def _to_torch(array: np.ndarray) -> torch.Tensor:
    """Return `array` as a tensor, without a copy if possible."""
    if array.dtype == np.uint8 and not array.flags.writeable:
        array = array.copy()  # torch has no read-only tensors
    if any(stride < 0 for stride in array.strides):
        array = np.ascontiguousarray(array)  # torch has no negative strides
    try:
        return torch.from_numpy(array)
    except (TypeError, ValueError) as error:  # ValueError for another byte order, or strides between elements
        raise ImageError(f'an image is uint8, got an array of {array.dtype}') from error


def resize(image: torch.Tensor, height: int, width: int, mode: str) -> torch.Tensor:
    """Resize [3, H, W] uint8 to [3, height, width] uint8, antialiased; mode 'bilinear' or 'bicubic'."""
    batch = image[None]
    if image.device.type == 'cpu':
        # A contiguous NCHW copy, because the kernel for channels-last memory rounds differently.
        return F.interpolate(batch.contiguous(), size=(height, width), mode=mode, antialias=True)[0]
    resized = F.interpolate(batch.float(), size=(height, width), mode=mode, antialias=True)
    return resized.round().clamp(0, 255).to(torch.uint8)[0]


def normalise(image: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Map uint8 0 to 255 to -1 to 1 (mean and standard deviation 0.5)."""
    return ((image.float() / 255 - 0.5) / 0.5).to(dtype)


def sam_pixels(image: torch.Tensor, size: int, device: torch.device | str, dtype: torch.dtype) -> torch.Tensor:
    """Return the input of SAM3 or of a trunk, [1, 3, size, size] in -1 to 1 for `image` [3, H, W] uint8.

    The image is stretched to a square: its aspect ratio is not kept.
    """
    return normalise(move(resize(image, size, size, 'bilinear'), device), dtype)[None]


@dataclass(frozen=True)
class QwenPreprocessor:
    """Qwen's image input: resized to multiples of 32 px within a pixel budget, then cut into patches."""

    min_pixels: int
    max_pixels: int
    patch_size: int = 16  # px
    merge_size: int = 2  # patches per language-model token, in each direction
    temporal_patch_size: int = 2  # number of times the image is repeated

    @classmethod
    def from_folder(cls, folder: str | Path) -> QwenPreprocessor:
        """Read `folder`/preprocessor_config.json. Raises ModelError if it is missing or unusable."""
        path = Path(folder) / 'preprocessor_config.json'
        raw = read_json(path)
        try:
            size = raw.get('size') or {}
            return cls(
                min_pixels=int(size.get('shortest_edge') or raw['min_pixels']),
                max_pixels=int(size.get('longest_edge') or raw['max_pixels']),
                patch_size=int(raw['patch_size']),
                merge_size=int(raw['merge_size']),
                temporal_patch_size=int(raw['temporal_patch_size']),
            )
        except (ValueError, TypeError, KeyError, AttributeError, OverflowError) as error:
            raise ModelError(f'{path} is not an image preprocessor of Qwen: {error!r}') from error

    def __post_init__(self) -> None:
        """Raise ModelError if the limits contradict each other or allow images of any size."""
        if not 1 <= self.min_pixels <= self.max_pixels <= MAX_QWEN_PIXELS:
            raise ModelError(
                f'the image preprocessor resizes to {self.min_pixels} to {self.max_pixels} px, expected a range within '
                f'1 to {MAX_QWEN_PIXELS} px'
            )

    def check(self, vision: Qwen3VLVisionConfig) -> None:
        """Raise ModelError if the patches are not those that the vision tower of `vision` reads."""
        for own, stated in (
            ('patch_size', vision.patch_size),
            ('merge_size', vision.spatial_merge_size),
            ('temporal_patch_size', vision.temporal_patch_size),
        ):
            if getattr(self, own) != stated:
                raise ModelError(
                    f'{own} is {getattr(self, own)} in preprocessor_config.json, {stated} in config.json: the files do '
                    'not belong together'
                )

    def limited(self, max_pixels: int) -> QwenPreprocessor:
        """Return a preprocessor whose images have at most `max_pixels`, or its own limit if that is less."""
        limit = min(max_pixels, self.max_pixels)
        return replace(self, max_pixels=limit, min_pixels=min(limit, self.min_pixels))

    def target_size(self, height: int, width: int) -> tuple[int, int]:
        """Return (height, width) px after Qwen's smart resize: multiples of patch x merge within the pixel budget."""
        unit = self.patch_size * self.merge_size
        new_height = round(height / unit) * unit
        new_width = round(width / unit) * unit
        if new_height * new_width > self.max_pixels:
            scale = math.sqrt(height * width / self.max_pixels)
            new_height = max(unit, math.floor(height / scale / unit) * unit)
            new_width = max(unit, math.floor(width / scale / unit) * unit)
        elif new_height * new_width < self.min_pixels:
            scale = math.sqrt(self.min_pixels / (height * width))
            new_height = math.ceil(height * scale / unit) * unit
            new_width = math.ceil(width * scale / unit) * unit
        return new_height, new_width

    def __call__(
        self, image: torch.Tensor, device: torch.device | str, dtype: torch.dtype
    ) -> tuple[torch.Tensor, Grid]:
        """Cut `image` [3, H, W] uint8 into patches [P, 3 * t * p * p] in -1 to 1.

        Patches that are merged into one token are adjacent. Returns the patches and their grid.
        """
        height, width = self.target_size(*image.shape[1:])
        pixels = normalise(move(resize(image, height, width, 'bicubic'), device), dtype)
        patch, merge = self.patch_size, self.merge_size
        rows, columns = height // patch, width // patch
        patches = pixels.reshape(3, rows // merge, merge, patch, columns // merge, merge, patch)
        patches = patches.permute(1, 4, 2, 5, 0, 3, 6)  # rows, columns, merged rows, merged columns, 3, patch, patch
        patches = patches.reshape(rows * columns, 3, 1, patch, patch)
        patches = patches.expand(-1, -1, self.temporal_patch_size, -1, -1)
        return patches.reshape(rows * columns, -1), (1, rows, columns)


@dataclass(frozen=True)
class TrunkPreprocessor:
    """Qwen's image input in a model with a trunk: none, because the vision tower reads the trunk's coarsest map."""

    rows: int  # side of the square map, in cells
    merge_size: int  # cells per language-model token, in each direction

    def limited(self, max_pixels: int) -> TrunkPreprocessor:
        """Return this preprocessor: the trunk's input has one size."""
        del max_pixels
        return self

    def __call__(
        self, image: torch.Tensor, device: torch.device | str, dtype: torch.dtype
    ) -> tuple[torch.Tensor, Grid]:
        """Return no patches [0], and the grid."""
        del image
        return torch.empty(0, device=device, dtype=dtype), (1, self.rows, self.rows)


Preprocessor = QwenPreprocessor | TrunkPreprocessor


def load_preprocessor(folder: str | Path, config: ModelConfig) -> Preprocessor:
    """Return the image preprocessor of Qwen's vision tower in a model folder.

    Raises ModelError if its file is missing, unusable or does not fit `config`.
    """
    if config.trunk is not None:
        return TrunkPreprocessor(config.trunk.image_size // STRIDE, config.vision.spatial_merge_size)
    preprocessor = QwenPreprocessor.from_folder(folder)
    preprocessor.check(config.vision)
    return preprocessor

"""Masks from box prompts: SAM2, as in the paper, or SAM3's tracker, which has SAM2's decoder on SAM3's backbone.

The models of transformers are used without their processors, which need torchvision: boxes are in px of the square
that the image is stretched to.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from transformers import Sam2Model, Sam3TrackerModel

from instructsam.core import builtin
from instructsam.core.device import check_finite, resolve_device, resolve_dtype
from instructsam.core.errors import InstructSAMError, ModelError
from instructsam.core.model.config import read_json
from instructsam.core.model.preprocess import resize, to_chw
from instructsam.core.rle import Rle
from instructsam.core.text import shorten
from instructsam.train.data_engine.masks.stage import clipped, empty_mask, object_mask
from instructsam.train.data_engine.rows import ObjectMask, SegmentedObject

STABILITY_OFFSET = 1.0
"""Distance in logits of the two thresholds whose masks the stability compares (SAM's automatic masks)."""

MOST_NAMED = 3  # tensors in an error


@dataclass(frozen=True)
class _Kind:
    """A class of transformers, the types of the models that it reads, and the normalisation that they have."""

    model: type[Sam2Model] | type[Sam3TrackerModel]
    types: tuple[str, ...]
    mean: tuple[float, float, float]
    std: tuple[float, float, float]


KINDS = {
    'sam2': _Kind(Sam2Model, ('sam2', 'sam2_video'), (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    'sam3-tracker': _Kind(
        Sam3TrackerModel, ('sam3_tracker', 'sam3_tracker_video', 'sam3_video'), (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)
    ),
}


class PromptedMasks:
    """A backend of stage masks: all boxes of an image in one call of the decoder.

    Args:
        kind: One of KINDS.
        name: Model folder or hub id.
        device: auto or a torch device.
        dtype: auto or one of core.modes.DTYPES.
        revision: Commit, tag or branch of a hub id; empty: its main branch.

    Raises:
        ModelError: The model cannot be loaded, or its file lacks tensors.
    """

    def __init__(self, kind: str, name: str, device: str = 'auto', dtype: str = 'auto', revision: str = '') -> None:
        self._kind = KINDS[kind]
        where = resolve_device(device)
        self._model = _load(self._kind, builtin.folder(name, revision), resolve_dtype(dtype, where)).to(where)
        self._side: int = self._model.config.prompt_encoder_config.image_size

    @torch.inference_mode()
    def __call__(self, image: np.ndarray, objects: Sequence[SegmentedObject]) -> list[ObjectMask]:
        """Return one mask per object of an image [H, W, 3] uint8 RGB; a box outside the image has an empty one.

        Raises:
            ImageError: The image cannot be used.
            ModelError: The model computes numbers that are not finite.
        """
        boxes = [clipped(each.box, image) for each in objects]
        given = [box for box in boxes if box is not None]
        if not given:
            return [empty_mask(image) for _ in objects]
        height, width = image.shape[:2]
        scale = torch.tensor([self._side / width, self._side / height] * 2)
        prompts = (torch.tensor(given) * scale)[None].to(self._model.device, self._model.dtype)  # [1, N, 4]
        embeddings = self._model.get_image_embeddings(self._pixels(image))
        output = self._model(image_embeddings=embeddings, input_boxes=prompts, multimask_output=False)
        check_finite(output.pred_masks, 'the masks')
        scores = output.iou_scores[0, :, 0].float().tolist()
        presence = output.object_score_logits[0, :, 0].float().tolist()
        found = iter(zip(given, output.pred_masks[0, :, 0], scores, presence, strict=True))
        return [empty_mask(image) if box is None else self._mask(image, *next(found)) for box in boxes]

    def _pixels(self, image: np.ndarray) -> torch.Tensor:
        """Return the model's input [1, 3, side, side]."""
        square = resize(to_chw(image), self._side, self._side, 'bilinear').to(self._model.device).float() / 255
        mean, std = (
            torch.tensor(each, device=square.device)[:, None, None] for each in (self._kind.mean, self._kind.std)
        )
        return ((square - mean) / std).to(self._model.dtype)[None]

    def _mask(self, image: np.ndarray, box: Any, logits: torch.Tensor, score: float, presence: float) -> ObjectMask:
        """Return the mask of logits [h, w]; one at a time is in memory at full size."""
        full = F.interpolate(logits.float()[None, None], image.shape[:2], mode='bilinear', align_corners=False)[0, 0]
        inner, outer = int((full > STABILITY_OFFSET).sum()), int((full > -STABILITY_OFFSET).sum())
        return object_mask(
            Rle.encode((full > 0).cpu().numpy()),
            box,
            predicted_iou=score,
            stability=inner / outer if outer else 0.0,
            object_score=presence,
        )


def _load(kind: _Kind, folder: Path, dtype: torch.dtype) -> Any:
    """Load a model. Raises ModelError; transformers itself only warns about other types and missing tensors."""
    model_type = read_json(folder / 'config.json').get('model_type')
    if model_type not in kind.types:
        name = next(name for name, each in KINDS.items() if each is kind)
        raise ModelError(
            f'the model in {folder} is of the type {shorten(repr(model_type))}, expected {" or ".join(kind.types)} for '
            f'the backend {name}: give another model or backend'
        )
    try:
        loaded: Any = kind.model.from_pretrained(folder, dtype=dtype, output_loading_info=True)
    except InstructSAMError:
        raise
    except Exception as error:  # of many types, for folders of something else
        raise ModelError(f'{folder} is not a model of {kind.model.__name__}: {shorten(error)}') from error
    model, info = loaded
    wrong = sorted(map(str, (*info['missing_keys'], *info['mismatched_keys'])))
    if wrong:
        raise ModelError(
            f'{folder} is not a model of {kind.model.__name__}: {len(wrong)} tensors are missing or differ in shape, '
            f'such as {", ".join(wrong[:MOST_NAMED])}. Give the folder of another model or another backend'
        )
    return model.eval()

"""Masks from phrases: SAM3 finds all instances of an object's phrase, and each object gets the one in its box."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.optimize import linear_sum_assignment

from instructsam.core.engine import EncodedImage, InstructSAM
from instructsam.core.errors import InstructionError
from instructsam.core.result import Instance
from instructsam.train.data_engine.coordinates import box_iou
from instructsam.train.data_engine.masks.stage import clipped, empty_mask, object_mask
from instructsam.train.data_engine.rows import ObjectMask, SegmentedObject
from instructsam.train.engines.concept import ConceptEngine

LEAST_SCORE = 0.1
"""Score above which an instance may be the one in the box: the box decides, so it is lower than for an answer."""


class ConceptMasks:
    """A backend of stage masks over the built-in model or any other InstructSAM model.

    It has no estimate of a mask's IoU and no stability; its object score is the logit of the instance's score.

    Args:
        name: Built-in model, folder or hub id.
        device: auto or a torch device.
        dtype: auto or one of core.modes.DTYPES.
        revision: Commit, tag or branch of a hub id; empty: its main branch.

    Raises:
        ModelError: The model cannot be loaded.
    """

    def __init__(self, name: str, device: str = 'auto', dtype: str = 'auto', revision: str = '') -> None:
        self._engine = ConceptEngine.from_engine(InstructSAM.from_pretrained(name, device, dtype, revision=revision))

    def __call__(self, image: np.ndarray, objects: Sequence[SegmentedObject]) -> list[ObjectMask]:
        """Return one mask per object of an image [H, W, 3] uint8 RGB; an object that is not found has an empty one.

        Objects of one phrase share its instances, each of which goes to one object at most.

        Raises:
            ImageError: The image cannot be used.
            ModelError: The model computes numbers that are not finite.
        """
        encoded = self._engine.encode(image)
        masks = [empty_mask(image) for _ in objects]
        for phrase in dict.fromkeys(each.phrase for each in objects):
            members = [index for index, each in enumerate(objects) if each.phrase == phrase]
            instances = self._instances(encoded, phrase)
            boxes = [clipped(objects[index].box, image) for index in members]
            ious = np.array([[_iou(box, instance) for instance in instances] for box in boxes])
            if not ious.size:
                continue
            for row, column in zip(*linear_sum_assignment(ious, maximize=True), strict=True):
                box, instance = boxes[row], instances[column]
                if box is not None and ious[row, column] > 0:
                    score = float(np.clip(instance.score, 1e-6, 1 - 1e-6))
                    masks[members[row]] = object_mask(
                        instance.mask, box, object_score=float(np.log(score / (1 - score)))
                    )
        return masks

    def _instances(self, encoded: EncodedImage, phrase: str) -> Sequence[Instance]:
        try:
            answer = self._engine.answer_for([phrase])
            return self._engine.segment(encoded, phrase, answer=answer, score_threshold=LEAST_SCORE).instances
        except InstructionError:  # A phrase that the model cannot be asked for finds nothing, which the filter names.
            return ()


def _iou(box: tuple[float, float, float, float] | None, instance: Instance) -> float:
    x0, y0, x1, y1 = map(float, instance.box)
    return 0.0 if box is None else box_iou(box, (x0, y0, x1, y1))

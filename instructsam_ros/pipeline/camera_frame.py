"""One camera image in the pipeline: decoded and encoded once, however many instructions it answers."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import Header

from instructsam.core.modes import MAX_MEGAPIXELS
from instructsam.core.result import Result
from instructsam_ros.conversions.images import to_rgb
from instructsam_ros.pipeline.newest import NewestDict
from instructsam_ros.pipeline.settings import INSTRUCTION, Settings

if TYPE_CHECKING:  # importing the engine imports torch
    from instructsam.core import InstructSAM
    from instructsam.core.engine import EncodedImage
    from instructsam_ros.pipeline.answer import Answer
    from instructsam_ros.pipeline.protocols import Caller

KEPT_ANSWERS = 16
"""Answers about one frame: a camera that stands still may be asked any number of different things about its frame."""


class CameraFrame:
    """A received image message with everything computed from it so far.

    Apart from `message`, `header`, `received_s` and the rounds it is used by one thread only, the one that computes
    answers.
    """

    def __init__(self, message: Image | CompressedImage, received_s: float) -> None:
        """Wrap `message`, which was received at `received_s` (time.perf_counter())."""
        self.header: Header = message.header
        self.received_s = received_s
        self.stamp_round = 0  # set by the camera stream, see DepthBuffer.put_image
        self.transform_round: int | None = None  # set by the subscriber, see TransformLookup.put_image
        self.image: np.ndarray | None = None  # [H, W, 3] uint8 RGB, after decode()
        self.is_new = True  # until the first instruction is answered on it
        self.answers: NewestDict[Hashable, Answer] = NewestDict(KEPT_ANSWERS)  # by Query.key
        self.message = message
        self._max_megapixels = MAX_MEGAPIXELS
        self._encoded: EncodedImage | None = None

    @property
    def size(self) -> tuple[int, int]:
        """Height and width in px; (0, 0) for a compressed image that could not be decoded."""
        if self.image is not None:
            height, width = self.image.shape[:2]
            return height, width
        return getattr(self.message, 'height', 0), getattr(self.message, 'width', 0)

    def decode(self, max_megapixels: float | None = None) -> np.ndarray:
        """Decode the message into `image`, once.

        Args:
            max_megapixels: Largest image that is decoded; None: as in the call before.

        Raises:
            ImageFormatError: The message is not an image that can be used.
        """
        self._max_megapixels = max_megapixels or self._max_megapixels
        if self.image is None:
            self.image = to_rgb(self.message, self._max_megapixels)
        return self.image

    def encode(self, engine: InstructSAM, caller: Caller) -> EncodedImage:
        """Run the image encoders, once. Raises what InstructSAM.encode raises."""
        if self._encoded is None:
            self._encoded = engine.encode(self.decode(), cancelled=caller.is_encoding_cancelled)
        return self._encoded

    def segment(self, engine: InstructSAM, instruction: str, settings: Settings, caller: Caller) -> Result:
        """Segment what `instruction` names. Raises what InstructSAM.segment raises.

        The time of encoding is part of the first result only, because later ones reuse the encoded image.
        """
        encoded = self.encode(engine, caller)
        is_new, self.is_new = self.is_new, False
        result = engine.segment(
            encoded,
            instruction,
            score_threshold=settings.score_threshold,
            answer=engine.answer_for([instruction]) if settings.answer == INSTRUCTION else None,
            max_new_tokens=settings.max_new_tokens,
            time_budget_s=settings.time_budget_s or None,
            suppress_duplicates=settings.suppress_duplicates,
            cancelled=caller.is_cancelled,
        )
        if is_new:
            return result
        encoding_ms = encoded.timings_ms
        own_ms = {step: max(0.0, ms - encoding_ms.get(step, 0.0)) for step, ms in result.timings_ms.items()}
        return replace(result, timings_ms=own_ms)

    def release(self) -> None:
        """Drop everything that is large and can be computed again."""
        self.image = self._encoded = None
        self.answers.clear()

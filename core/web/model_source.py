"""The engine as a source of answers."""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from instructsam.core.errors import CancelledError
from instructsam.core.model.prompt import check_instruction
from instructsam.core.spatial.geometry import locate
from instructsam.core.web.scene import scene_of_depth
from instructsam.core.web.source import Answer, Cancelled, Question

if TYPE_CHECKING:
    from instructsam.core.engine import EncodedImage, InstructSAM

POLL_S = 0.05  # interval at which a question that waits for the model checks for cancellation
MOST_ENCODED = 4  # encoded images that are kept for further questions; each takes some 10 to 100 MB


class ModelSource:
    """Answers with an engine in this process, one question at a time.

    The engine is re-entrant, but two questions at once would each take twice as long. The newest images stay encoded,
    so that further questions about one of them take only the remaining work.
    """

    has_camera = False
    takes_depth = True

    def __init__(self, engine: InstructSAM) -> None:
        self.name = engine.name
        self._engine = engine
        self._is_busy = threading.Lock()
        self._encoded: OrderedDict[bytes, EncodedImage] = OrderedDict()

    def answer(self, question: Question, cancelled: Cancelled) -> Answer:
        """See `Source`."""
        check_instruction(question.instruction)  # before the image is encoded
        image = question.image
        assert image is not None, 'a source without a camera is asked about an image'
        with self._turn(cancelled):
            encoded, is_new = self._encode(image, cancelled)
            result = self._engine.segment(
                encoded, question.instruction, score_threshold=question.threshold, cancelled=cancelled
            )
        note = ''
        if not is_new:  # the result has the times of the encoding as well, which this question did not take
            spent = {step: ms - encoded.timings_ms.get(step, 0.0) for step, ms in result.timings_ms.items()}
            result = replace(result, timings_ms={step: max(0.0, ms) for step, ms in spent.items()})
            note = 'the image was encoded for an earlier question'
        if question.depth is None or question.camera is None:
            return Answer(image, result, note=note)
        result = locate(result, question.depth, question.camera)
        return Answer(image, result, scene_of_depth(result, image, question.depth, question.camera), note)

    def newest_image(self) -> None:
        """Return None: a model has no camera."""

    def close(self) -> None:
        """Forget the encoded images."""
        self._encoded.clear()

    def _encode(self, image: np.ndarray, cancelled: Cancelled) -> tuple[EncodedImage, bool]:
        """Return the encoded image, and whether it was not among those kept."""
        key = hashlib.sha256(repr(image.shape).encode() + np.ascontiguousarray(image).tobytes()).digest()
        encoded = self._encoded.pop(key, None)
        is_new = encoded is None
        if encoded is None:
            encoded = self._engine.encode(image, cancelled=cancelled)
        self._encoded[key] = encoded  # as the newest
        while len(self._encoded) > MOST_ENCODED:
            self._encoded.popitem(last=False)
        return encoded, is_new

    @contextmanager
    def _turn(self, cancelled: Cancelled) -> Generator[None, None, None]:
        """Wait for the model. Raises CancelledError."""
        while not self._is_busy.acquire(timeout=POLL_S):
            if cancelled():
                raise CancelledError('a newer question has replaced this one')
        try:
            yield
        finally:
            self._is_busy.release()

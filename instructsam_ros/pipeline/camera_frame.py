"""One image on its way through the model: converted and encoded once, however many instructions it answers."""

from dataclasses import replace

from instructsam_ros.conversions.images import to_rgb
from instructsam_ros.pipeline.settings import INSTRUCTION


class Shot:
    """Made of a sensor_msgs Image or CompressedImage; used by one thread."""

    def __init__(self, message, received_s):
        """`received_s` is time.perf_counter() when the message came."""
        self.header = message.header
        self.received_s = received_s
        self.image = None  # [H, W, 3] uint8 RGB, after convert()
        self.is_new = True  # until the first instruction on it
        self.answers = {}  # what was asked -> the Answer, for those who ask the same
        self._message = message
        self._frame = None

    @property
    def size(self):
        """(height, width) px; (0, 0) for a compressed image that could not be decoded."""
        if self.image is not None:
            return self.image.shape[:2]
        return getattr(self._message, 'height', 0), getattr(self._message, 'width', 0)

    def convert(self):
        """Makes `image` of the message, once. Raises ImageFormatError."""
        if self.image is None:
            self.image = to_rgb(self._message)

    def encode(self, engine, cancelled):
        """Runs the image encoders, once. Raises what engine.encode raises."""
        if self._frame is None:
            self._frame = engine.encode(self.image, cancelled=cancelled)

    def release(self):
        """Gives up what is large and can be made again."""
        self.image = self._frame = None
        self.answers.clear()

    def segment(self, engine, instruction, settings, cancelled):
        """The Result for the text `instruction`; raises what engine.segment raises.

        The time of encoding is part of the first result only: later ones had it for nothing.
        """
        is_new, self.is_new = self.is_new, False
        result = engine.segment(
            self._frame,
            instruction,
            score_threshold=settings.score_threshold,
            answer=engine.answer_for([instruction]) if settings.answer == INSTRUCTION else None,
            max_new_tokens=settings.max_new_tokens,
            time_budget_s=settings.time_budget_s or None,
            suppress_duplicates=settings.suppress_duplicates,
            cancelled=cancelled,
        )
        if is_new:
            return result
        encoding_ms = self._frame.timings_ms
        own_ms = {stage: max(0.0, ms - encoding_ms.get(stage, 0.0)) for stage, ms in result.timings_ms.items()}
        return replace(result, timings_ms=own_ms)

"""Runs the perception node with an engine that finds the red and the green things of a picture.

Images of any size are answered in milliseconds, so that the node is under test and not its engine.
"""

import sys
from types import SimpleNamespace

import numpy as np

from instructsam.core.errors import CancelledError, InstructionError
from instructsam.core.result import STEPS, Instance, Result
from instructsam.core.rle import Rle
from instructsam_ros.node import perception_node

CHANNELS = {'red': 0, 'green': 1}
CONTRAST = 60  # grey levels by which a channel exceeds the others


class FuzzEngine:
    """Stands in for instructsam.core.InstructSAM and has its interface."""

    def __init__(self, model, revision, device, dtype, mode, **options):
        self.name, self.device, self.precision, self.warning = model, device, 'float32', ''

    def encode(self, image, cancelled=None):
        """Keep the picture."""
        if cancelled is not None and cancelled():
            raise CancelledError
        height, width = image.shape[:2]
        return SimpleNamespace(
            height=height, width=width, image=image, timings_ms={'image_encoders': 1.0, 'prefill': 1.0}
        )

    def answer_for(self, phrases):
        """Return the phrases."""
        return phrases

    def segment(self, encoded, instruction, *, score_threshold, cancelled=None, **_):
        """Find what is much redder, or greener, than the rest of its own colour."""
        if cancelled is not None and cancelled():
            raise CancelledError
        if not instruction.strip():
            raise InstructionError('the instruction is empty')
        found = []
        for number, (color, channel) in enumerate(CHANNELS.items()):
            others = encoded.image[..., [each for each in range(3) if each != channel]].max(axis=-1)
            mask = encoded.image[..., channel].astype(np.int16) - others > CONTRAST
            score = 0.9 - 0.1 * number
            if mask.any() and score > score_threshold:
                found.append(Instance(Rle.encode(mask), score, f'{color} thing', number))
        phrases = ', '.join(instance.phrase for instance in found)
        times_ms = dict.fromkeys(STEPS, 1.0)
        return Result(instruction, phrases, encoded.height, encoded.width, tuple(found), timings_ms=times_ms)


if __name__ == '__main__':
    perception_node.DIAGNOSTICS_PERIOD_S = 0.1
    sys.exit(perception_node.main(engine_factory=FuzzEngine))

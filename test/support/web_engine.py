"""Stands in for the engine behind the page; the instruction selects its behavior.

wait          waits until `go_on` is set, checking for cancellation
nothing       finds nothing
fail TEXT     raises RuntimeError(TEXT)
bad TEXT      raises InstructionError(TEXT)
anything else finds two discs
"""

import threading
from types import SimpleNamespace

import numpy as np

from instructsam.core.errors import CancelledError, InstructionError, ModelError
from instructsam.core.result import STEPS, Instance, Result
from instructsam.core.rle import Rle


class PageEngine:
    """Has the interface of instructsam.core.InstructSAM that the page uses."""

    name = 'stand-in'
    warning = 'a stand-in, not a model'

    def __init__(self):
        self.encoded = self.cancelled = self.at_once = self.most_at_once = 0
        self.begun, self.go_on = threading.Event(), threading.Event()

    def from_pretrained(self, name, **_):
        if name == 'missing':
            raise ModelError('there is no model missing')
        return self

    def encode(self, image, *, cancelled=None):
        self.encoded += 1
        return SimpleNamespace(
            height=image.shape[0], width=image.shape[1], timings_ms={'image_encoders': 10.0, 'prefill': 5.0}
        )

    def segment(self, encoded, instruction, *, score_threshold, cancelled):
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            return self._segment(encoded, instruction, score_threshold, cancelled)
        finally:
            self.at_once -= 1

    def _segment(self, encoded, instruction, threshold, cancelled):
        verb, _, argument = instruction.partition(' ')
        if verb == 'fail':
            raise RuntimeError(argument)
        if verb == 'bad':
            raise InstructionError(argument)
        if verb == 'wait':
            self.begun.set()
            while not self.go_on.wait(0.02):
                if cancelled():
                    self.cancelled += 1
                    raise CancelledError('no longer wanted')
        height, width = encoded.height, encoded.width
        rows, columns = np.mgrid[:height, :width]
        discs = [
            (columns - x * width) ** 2 + (rows - y * height) ** 2 < (0.15 * height) ** 2
            for x, y in ((0.3, 0.4), (0.7, 0.6))
        ]
        found = (
            ()
            if verb == 'nothing'
            else tuple(Instance(Rle.encode(disc), 0.9 - 0.2 * i, 'red <mug>', i) for i, disc in enumerate(discs))
        )
        return Result(
            instruction,
            'red <mug>',
            height,
            width,
            tuple(each for each in found if each.score > threshold),
            phrases=('red <mug>',),
            warning=self.warning,
            timings_ms=dict.fromkeys(STEPS, 1.0) | {'image_encoders': 10.0, 'prefill': 6.0},
        )

"""Runs the perception node with a stand-in for the engine, whose behavior the instruction selects.

    sleep S       works for S seconds without the CPU, checking for cancellation often
    burn S        works for S seconds holding Python's lock in short slices, checking for cancellation often
    stuck S       works for S seconds without checking for cancellation
    nothing       finds nothing
    fail TEXT     raises RuntimeError(TEXT)
    bad TEXT      raises InstructionError(TEXT)
    anything else returns ten masks at once

The log says when the work on an instruction begins and ends, and a result's answer holds the work done so far as JSON.
Models: `slow S` takes S seconds to load, `missing` does not load, `heavy S` takes S seconds to encode an image.
Diagnostics are published ten times as often as by the node alone, so that tests need not wait long for them.

The process ends with the one that started it if that has set STANDIN_PARENT to its id: a node that outlives killed
tests would answer those of a later run that draws the same ROS domain.
"""

import json
import os
import sys
import threading
import time
from types import SimpleNamespace

from scenery import ellipses

from instructsam.core import CancelledError, InstructionError, ModelError
from instructsam.core.result import STEPS, Instance, Result
from instructsam.core.rle import Rle
from instructsam_ros.node import perception_node

STEP_S = 0.002


class StandInEngine:
    """Stands in for instructsam.core.InstructSAM and has its interface."""

    def __init__(self, model, device, dtype, mode, revision, **options):
        self.name = model
        self.device = device
        self.precision = 'float32'
        self.warning = 'a stand-in, not a model'
        self.done = {'encoded': 0, 'segmented': 0, 'cancelled': 0}
        kind, _, argument = model.partition(' ')
        self._encoding_s = float(argument) if kind == 'heavy' else 0.0
        self._masks = {}
        if kind == 'missing':
            raise ModelError('there is no such model')
        if kind == 'slow':
            time.sleep(float(argument))

    def encode(self, image, cancelled=None):
        self.done['encoded'] += 1
        start_s = time.perf_counter()
        _work(self._encoding_s, cancelled)
        self._encoding_ms = (time.perf_counter() - start_s) * 1e3 if self._encoding_s else 10.0
        timings_ms = {'image_encoders': self._encoding_ms, 'prefill': 5.0}
        return SimpleNamespace(height=image.shape[0], width=image.shape[1], timings_ms=timings_ms)

    def answer_for(self, phrases):
        return phrases

    def segment(self, frame, instruction, *, score_threshold, answer, cancelled, **_):
        self.done['segmented'] += 1
        verb, _, argument = instruction.partition(' ')
        shown = ' '.join(instruction[:100].split())  # on one line, as the entries of the log are
        print(f"begins '{shown}'", flush=True)
        if verb == 'fail':
            raise RuntimeError(argument)
        if verb == 'bad':
            raise InstructionError(argument)
        try:
            if verb in ('sleep', 'burn', 'stuck'):
                _work(float(argument), None if verb == 'stuck' else cancelled, burn=verb == 'burn')
                print(f"ends '{shown}'", flush=True)
        except CancelledError:
            self.done['cancelled'] += 1
            raise
        masks = () if verb == 'nothing' else self._prepared(frame.height, frame.width)
        instances = [Instance(mask, 0.95 - 0.05 * i, 'box', i) for i, mask in enumerate(masks)]
        return Result(
            instruction=instruction,
            answer=json.dumps({**self.done, 'forced': answer}),
            height=frame.height,
            width=frame.width,
            instances=tuple(i for i in instances if i.score > score_threshold),
            warning=self.warning,
            timings_ms=dict.fromkeys(STEPS, 1.0) | {'image_encoders': self._encoding_ms, 'prefill': 6.0},
        )

    def _prepared(self, height, width):
        """Return ten ellipses, which are encoded once per image size."""
        if (height, width) not in self._masks:
            self._masks[height, width] = [Rle.encode(ellipse) for ellipse in ellipses(height, width)]
        return self._masks[height, width]


def _work(seconds, cancelled, burn=False):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if cancelled is not None and cancelled():
            raise CancelledError
        if burn:
            step_end = time.monotonic() + STEP_S
            while time.monotonic() < step_end:
                pass
        else:
            time.sleep(STEP_S)


def _end_with_parent(parent):
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)


if __name__ == '__main__':
    if 'STANDIN_PARENT' in os.environ:
        threading.Thread(target=_end_with_parent, args=(int(os.environ['STANDIN_PARENT']),), daemon=True).start()
    perception_node.DIAGNOSTICS_PERIOD_S = 0.1
    sys.exit(perception_node.main(engine_factory=StandInEngine))

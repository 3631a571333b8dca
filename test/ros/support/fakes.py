"""Fakes of what surrounds the pipeline, for tests without a ROS graph."""

from types import SimpleNamespace

import numpy as np

from instructsam.core import CancelledError
from instructsam.core.result import Instance, Result
from instructsam.core.rle import Rle
from instructsam_ros.pipeline.scheduling.result_publisher import OutgoingMessage
from instructsam_ros.pipeline.settings import Settings


class FakeSettings:
    """A SettingsSource whose settings the test replaces."""

    def __init__(self):
        self.value = Settings()

    def current(self):
        return self.value


class FakePublisher:
    """Records the published messages."""

    def __init__(self):
        self.published = []

    def publish(self, message):
        self.published.append(message)


class FakeResults:
    """Stands in for a ResultPublisher, with one topic. A message is (instruction text, answer or error text)."""

    def __init__(self):
        self.publisher = FakePublisher()
        self.bug = None  # raised instead of making a message

    def result_messages(self, frame, instruction, answer):
        if self.bug is not None:
            raise self.bug
        return [OutgoingMessage(self.publisher, (instruction.text, answer))]

    def error_messages(self, frame, instruction, text):
        return [OutgoingMessage(self.publisher, (instruction.text, text))]


class FakeClient:
    """A GoalClient that records its notifications."""

    def __init__(self):
        self.stages = []
        self.outcome = None

    def notify_stage(self, stage):
        self.stages.append(stage)

    def notify_end(self, outcome):
        assert self.outcome is None
        self.outcome = outcome


class FakeEngine:
    """Finds `finds` equal instances in every image, or raises `error`; `log` records its calls."""

    def __init__(self, log=None):
        self.log = [] if log is None else log
        self.finds = 1
        self.error = None
        self.finish_reason = 'stop'
        self.arguments = {}  # arguments of the latest segment() call

    def encode(self, image, *, cancelled):
        self.log.append('encode')
        if cancelled():
            raise CancelledError
        height, width = image.shape[:2]
        return SimpleNamespace(height=height, width=width, timings_ms={'image_encoders': 10.0, 'prefill': 5.0})

    def answer_for(self, phrases):
        return phrases

    def segment(self, encoded, instruction, *, cancelled, **arguments):
        self.log.append('segment')
        self.arguments = arguments
        if cancelled():
            raise CancelledError
        if self.error is not None:
            raise self.error
        mask = np.zeros((encoded.height, encoded.width), bool)
        mask[10:30, 10:40] = True
        instances = tuple(Instance(Rle.encode(mask), 0.9, 'mug', slot=0) for _ in range(self.finds))
        times_ms = {'image_encoders': 10.0, 'prefill': 6.0, 'masks': 1.0}
        phrases = ('mug',) if instances else ()
        size = encoded.height, encoded.width
        return Result(instruction, 'mug', *size, instances, phrases, self.finish_reason, timings_ms=times_ms)

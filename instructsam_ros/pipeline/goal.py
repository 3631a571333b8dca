"""One goal of the action `segment` on its way through the node: what is asked, of which image, and how it ended."""

import threading
from dataclasses import dataclass, replace

from instructsam_ros.msg import InstanceArray

SUCCEEDED, ABORTED, CANCELED = 'succeeded', 'aborted', 'canceled'


@dataclass(frozen=True, eq=False)
class Outcome:
    """How a request ended; `message` says why where it did not succeed."""

    state: str
    answer: InstanceArray
    points: object = None  # PointCloud2 where it was asked for


class Request:
    """Ends exactly once, by whoever is first: the worker, a cancel, the time limit, or the end of the session.

    `goal` is a Segment.Goal; `stream` the camera's Stream; `shot` the image where it is known from the start. `on_end`
    is called with the Outcome, `on_stage` with each new stage, both from any thread.
    """

    def __init__(self, goal, stream, settings, on_end, on_stage, shot=None):
        self.goal = goal
        self.stream = stream
        self.shot = shot
        self.has_own_image = shot is not None
        self.settings = replace(settings, score_threshold=goal.score_threshold) if goal.score_threshold else settings
        self._asks = self.settings.engine_key(goal.instruction)
        self._on_end = on_end
        self._on_stage = on_stage
        self._lock = threading.Lock()
        self._stage = None
        self._outcome = None

    @property
    def is_open(self):
        return self._outcome is None

    @property
    def outcome(self):
        """The Outcome, None while it is open."""
        return self._outcome

    def wants(self, header):
        """Whether an image that has just come is the one that it waits for."""
        kind, stamp = self.goal.freshness, self.goal.stamp
        return self.shot is None and (kind == self.goal.NEXT or (kind == self.goal.STAMP and header.stamp == stamp))

    def is_ready(self):
        """Whether there is an image to ask about."""
        return self.shot is not None or (self.goal.freshness == self.goal.NEWEST and self.stream.has_image)

    def shares(self, other, shot):
        """Whether the answer for `other`, which is about to be worked out on `shot`, is this one's, too."""
        if self._asks != other._asks or self.stream is not other.stream or other.has_own_image:
            return False
        return self.shot is shot or (self.shot is None and self.goal.freshness == self.goal.NEWEST)

    def may_use(self, shot):
        """Whether `shot`, which is in hand, is one that it can be answered on."""
        is_newest = self.goal.freshness == self.goal.NEWEST and not self.stream.mailbox.waiting
        return self.shot is shot or (self.shot is None and is_newest)

    def stage(self, name):
        """Tells the client, once for each stage."""
        if self.is_open and name != self._stage:
            self._stage = name
            self._on_stage(name)

    def succeed(self, answer, points):
        return self._end(Outcome(SUCCEEDED, answer, points))

    def abort(self, message):
        return self._fail(ABORTED, message)

    def cancel(self):
        return self._fail(CANCELED, 'canceled by the client')

    def _fail(self, state, message):
        header = self.shot.header if self.shot is not None else self.goal.image.header
        answer = InstanceArray(
            header=header, instruction=self.goal.instruction, status=InstanceArray.STATUS_ERROR, message=message
        )
        return self._end(Outcome(state, answer))

    def _end(self, outcome):
        """Whether this was the first end."""
        with self._lock:
            if self._outcome is not None:
                return False
            self._outcome = outcome
        self._on_end(outcome)
        return True

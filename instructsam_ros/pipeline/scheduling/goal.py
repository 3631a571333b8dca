"""A goal of the action `segment` inside the pipeline: its query, its frame and its outcome."""

import threading
from dataclasses import dataclass, replace

from builtin_interfaces.msg import Time
from sensor_msgs.msg import PointCloud2
from std_msgs.msg import Header

from instructsam_ros.action import Segment
from instructsam_ros.msg import InstanceArray
from instructsam_ros.pipeline.camera_frame import CameraFrame
from instructsam_ros.pipeline.depth_sync import NoDepthError
from instructsam_ros.pipeline.protocols import Caller, DepthPair, GoalClient
from instructsam_ros.pipeline.scheduling.camera_stream import CameraStream
from instructsam_ros.pipeline.settings import Settings

SUCCEEDED, ABORTED, CANCELED = 'succeeded', 'aborted', 'canceled'


@dataclass(frozen=True, eq=False)
class Outcome:
    """The end of a goal. If it did not succeed, `answer` has the status ERROR and its message says why."""

    state: str  # SUCCEEDED, ABORTED or CANCELED
    answer: InstanceArray
    points: PointCloud2 | None = None  # if the goal asked for them


class GoalDepth:
    """The DepthSource of a goal that contains its image."""

    def __init__(self, goal: Segment.Goal) -> None:
        self._goal = goal

    def find_depth(self, stamp: Time, settings: Settings, caller: Caller) -> DepthPair:
        """Return the depth that came with the goal.

        Raises:
            NoDepthError: None came with it.
        """
        if not self._goal.depth.data:
            raise NoDepthError('the goal has an image but no depth')
        if not self._goal.camera_info.width:
            raise NoDepthError('the goal has an image and depth, but its camera_info is not filled in')
        return DepthPair(self._goal.depth, self._goal.camera_info)


class GoalRequest:
    """A goal from its acceptance to its end.

    It ends exactly once, by whichever comes first: an answer, an error, a cancel, the time limit or deactivation. The
    methods that end it are thread-safe; `frame` is guarded by the scheduler's lock.
    """

    def __init__(
        self,
        goal: Segment.Goal,
        stream: CameraStream,
        settings: Settings,
        client: GoalClient,
        own_frame: CameraFrame | None = None,
    ) -> None:
        """Wrap an accepted goal.

        Args:
            goal: The goal message.
            stream: The camera that the goal is about.
            settings: The node's settings; a score threshold in the goal replaces theirs.
            client: Is notified of every stage and of the end.
            own_frame: The image that came with the goal, if one did.
        """
        self.goal = goal
        self.stream = stream
        self.settings = replace(settings, score_threshold=goal.score_threshold) if goal.score_threshold else settings
        self.has_own_image = own_frame is not None
        self.size_bytes = len(goal.image.data) + len(goal.depth.data)
        self.frame = own_frame  # the frame that the goal is answered on; None until it is known
        self._client = client
        self._lock = threading.Lock()
        self._stage: str | None = None
        self._outcome: Outcome | None = None

    @property
    def is_open(self) -> bool:
        """True if the goal has not ended."""
        return self._outcome is None

    def waits_for(self, header: Header) -> bool:
        """Return whether the goal is about the frame with `header`, which has just arrived."""
        freshness = self.goal.freshness
        return self.frame is None and (
            freshness == Segment.Goal.NEXT or (freshness == Segment.Goal.STAMP and header.stamp == self.goal.stamp)
        )

    @property
    def awaited_stamp(self) -> Time | None:
        """The stamp of the frame that it waits for; None if it waits for none or for any."""
        return self.goal.stamp if self.frame is None and self.goal.freshness == Segment.Goal.STAMP else None

    def is_ready(self) -> bool:
        """Return whether its frame is available."""
        return self.frame is not None or (self.goal.freshness == Segment.Goal.NEWEST and self.stream.has_frame)

    def can_join(self, other: 'GoalRequest', frame: CameraFrame) -> bool:
        """Return whether the answer to `other` on `frame` is this goal's answer as well."""
        if self.goal.instruction != other.goal.instruction or self.settings != other.settings:
            return False
        if self.stream is not other.stream or other.has_own_image:
            return False
        is_newest = self.goal.freshness == Segment.Goal.NEWEST and self.stream.is_newest(frame)
        return self.frame is frame or (self.frame is None and is_newest)

    def can_use(self, frame: CameraFrame) -> bool:
        """Return whether the goal can be answered on `frame`, the current one of its stream."""
        is_newest = self.goal.freshness == Segment.Goal.NEWEST and not self.stream.mailbox.has_message
        return self.frame is frame or (self.frame is None and is_newest)

    def report_stage(self, stage: str) -> None:
        """Notify the client of `stage` (a constant of Segment.Feedback) if it is a new one."""
        if self.is_open and stage != self._stage:
            self._stage = stage
            self._client.notify_stage(stage)

    def succeed(self, answer: InstanceArray, points: PointCloud2 | None) -> bool:
        """End the goal with an answer. Returns whether it was still open."""
        return self._end(Outcome(SUCCEEDED, answer, points))

    def abort(self, message: str) -> bool:
        """End the goal because of an error. Returns whether it was still open."""
        return self._fail(ABORTED, message)

    def cancel(self) -> bool:
        """End the goal because its client canceled it. Returns whether it was still open."""
        return self._fail(CANCELED, 'canceled by the client')

    def _fail(self, state: str, message: str) -> bool:
        header = self.frame.header if self.frame is not None else self.goal.image.header
        answer = InstanceArray(
            header=header, instruction=self.goal.instruction, status=InstanceArray.STATUS_ERROR, message=message
        )
        return self._end(Outcome(state, answer))

    def _end(self, outcome: Outcome) -> bool:
        with self._lock:
            if self._outcome is not None:
                return False
            self._outcome = outcome
        self._client.notify_end(outcome)
        return True

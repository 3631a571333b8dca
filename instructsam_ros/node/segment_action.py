"""The action `~/segment`: goals of clients become requests of the scheduler, and their outcomes go back.

A goal that cannot be served is accepted and then aborted, since a rejection cannot say why. Cancels and time limits end
a goal at once, however long the model continues: the worker cancels unwanted work at the engine's next check.
"""

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from rclpy.action.server import ActionServer, CancelResponse, ServerGoalHandle
from rclpy.callback_groups import ReentrantCallbackGroup
from rclpy.clock import Clock
from rclpy.executors import Executor
from rclpy.node import Node
from rclpy.task import Future
from rclpy.timer import Timer
from sensor_msgs.msg import PointCloud2

from instructsam_ros.action import Segment
from instructsam_ros.conversions.stamps import is_set
from instructsam_ros.node import qos
from instructsam_ros.pipeline.camera_frame import CameraFrame
from instructsam_ros.pipeline.protocols import SettingsSource
from instructsam_ros.pipeline.scheduling.camera_stream import CameraStream
from instructsam_ros.pipeline.scheduling.goal import ABORTED, SUCCEEDED, GoalRequest, Outcome
from instructsam_ros.pipeline.scheduling.scheduler import Scheduler
from instructsam_ros.pipeline.scheduling.statistics import Statistics

RESULT_TIMEOUT_S = 60  # time for a client to fetch a result


class ActionClientLink:
    """GoalClient that forwards to the client of a goal handle."""

    def __init__(self, handle: ServerGoalHandle, executor: Executor) -> None:
        self.ended: Any = Future()  # Future of the Outcome; not generic in every ROS distribution
        self.ended.add_done_callback(lambda _: executor.wake())
        self._handle = handle

    def notify_stage(self, stage: str) -> None:
        """Publish the stage as feedback."""
        self._handle.publish_feedback(Segment.Feedback(stage=stage))

    def notify_end(self, outcome: Outcome) -> None:
        """Let the executor send the outcome."""
        self.ended.set_result(outcome)


@dataclass(frozen=True, eq=False)
class OpenGoal:
    """An accepted goal that has not ended."""

    request: GoalRequest
    link: ActionClientLink
    timer: Timer | None  # ends the goal at its time limit


class SegmentAction:
    """Action server. All callbacks run in the executor's thread and return at once."""

    def __init__(
        self,
        node: Node,
        scheduler: Scheduler,
        streams: Mapping[str, CameraStream],
        settings: SettingsSource,
        statistics: Statistics,
        clock: Clock,
    ) -> None:
        """Start the action server.

        Args:
            node: The node that has the action.
            scheduler: Receives the goals.
            streams: By name of the camera; the first one serves the goals that name none.
            settings: What goals are answered with.
            statistics: Where ended goals are counted.
            clock: Measures time limits; a steady one, so that they also work while simulated time stands still.
        """
        self._node = node
        self._scheduler = scheduler
        self._streams = streams
        self._settings = settings
        self._statistics = statistics
        self._clock = clock
        self._open: dict[bytes, OpenGoal] = {}  # open goals by goal id
        self._group = ReentrantCallbackGroup()
        self._server = ActionServer(
            node,
            Segment,
            '~/segment',
            self._execute,
            callback_group=self._group,
            handle_accepted_callback=self._accept,
            cancel_callback=self._cancel,
            result_timeout=RESULT_TIMEOUT_S,
            goal_service_qos_profile=qos.ACTION,
            result_service_qos_profile=qos.ACTION,
            cancel_service_qos_profile=qos.ACTION,
        )

    @property
    def is_idle(self) -> bool:
        """True if every goal has ended and its result has been handed to rclpy."""
        return not self._open

    def _accept(self, handle: ServerGoalHandle) -> None:
        goal, executor = handle.request, self._node.executor
        assert executor is not None, 'goals are accepted by an executor'
        fault = _fault(goal, self._streams)
        stream = next(iter(self._streams.values())) if fault or not goal.camera else self._streams[goal.camera]
        own_frame = CameraFrame(goal.image, time.perf_counter()) if len(goal.image.data) else None
        link = ActionClientLink(handle, executor)
        request = GoalRequest(goal, stream, self._settings.current(), link, own_frame)
        timer = None
        if goal.timeout_s > 0 and not fault:
            reason = f'no result within the {goal.timeout_s:g} s that the goal allows'
            expire = partial(request.abort, reason)
            timer = self._node.create_timer(goal.timeout_s, expire, clock=self._clock, callback_group=self._group)
        self._open[bytes(handle.goal_id.uuid)] = OpenGoal(request, link, timer)
        handle.execute()
        if fault:
            request.abort(fault)
        else:
            self._scheduler.ask(request)

    def _cancel(self, handle: ServerGoalHandle) -> CancelResponse:
        open_goal = self._open.get(bytes(handle.goal_id.uuid))
        is_canceled = open_goal is not None and open_goal.request.cancel()
        return CancelResponse.ACCEPT if is_canceled else CancelResponse.REJECT

    async def _execute(self, handle: ServerGoalHandle) -> Segment.Result:
        key = bytes(handle.goal_id.uuid)
        open_goal = self._open[key]
        outcome: Outcome = await open_goal.link.ended
        if open_goal.timer is not None:
            self._node.destroy_timer(open_goal.timer)
        if outcome.state == SUCCEEDED:
            handle.succeed()
        elif outcome.state == ABORTED:
            handle.abort()
            instruction = open_goal.request.goal.instruction
            self._node.get_logger().warning(f"goal '{instruction}' aborted: {outcome.answer.message}")
        else:
            handle.canceled()
        self._statistics.count_goal(outcome.state)
        del self._open[key]
        return Segment.Result(answer=outcome.answer, points=outcome.points or PointCloud2())


def _fault(goal: Segment.Goal, streams: Mapping[str, CameraStream]) -> str:
    """Return why a goal cannot be served, '' if it can."""
    if not goal.instruction.strip():
        return 'the instruction is empty: say what to look for'
    if goal.camera and goal.camera not in streams:
        names = ', '.join(filter(None, streams)) or 'none with a name'
        return f"there is no camera '{goal.camera}', the cameras are: {names}"
    if goal.freshness not in (Segment.Goal.NEWEST, Segment.Goal.NEXT, Segment.Goal.STAMP):
        return f'freshness is NEWEST 0, NEXT 1 or STAMP 2, got {goal.freshness}'
    if goal.freshness == Segment.Goal.STAMP and not len(goal.image.data) and not is_set(goal.stamp):
        return 'the goal asks for the image of a stamp, and its stamp is 0, which means that it is not set'
    if not 0 <= goal.score_threshold <= 1:  # also true for NaN
        return f"score_threshold is from 0 (the node's own) to 1, got {goal.score_threshold:g}"
    if not 0 <= goal.timeout_s < math.inf:
        return f'timeout_s is seconds, 0 for no limit, got {goal.timeout_s:g}'
    return ''

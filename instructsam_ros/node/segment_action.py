"""The action `~/segment`: goals of clients become requests of the scheduler, and their outcomes go back.

A goal that cannot be served is accepted and then aborted, since a rejection cannot say why. Cancels and time limits end
a goal at once, however long the model continues: the worker cancels unwanted work at the engine's next check.

A goal holds its images until it ends, and its result until the client has had time to fetch it.
"""

import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

from action_msgs.msg import GoalStatus
from rclpy.action.server import ActionServer, CancelResponse, ServerGoalHandle
from rclpy.callback_groups import ReentrantCallbackGroup
from rclpy.clock import Clock, ClockType  # pyright: ignore[reportPrivateImportUsage]  (Humble has it only here)
from rclpy.executors import Executor
from rclpy.node import Node
from rclpy.task import Future
from rclpy.timer import Timer
from sensor_msgs.msg import CameraInfo, Image, PointCloud2

from instructsam.core.text import shorten
from instructsam_ros.action import Segment
from instructsam_ros.conversions.stamps import LONGEST_S, is_set
from instructsam_ros.msg import InstanceArray
from instructsam_ros.node import qos
from instructsam_ros.node.lifecycle import AsyncLifecycleNode
from instructsam_ros.pipeline.camera_frame import CameraFrame
from instructsam_ros.pipeline.protocols import SettingsSource
from instructsam_ros.pipeline.scheduling.camera_stream import CameraStream
from instructsam_ros.pipeline.scheduling.error_log import FAILURES
from instructsam_ros.pipeline.scheduling.goal import ABORTED, SUCCEEDED, GoalRequest, Outcome
from instructsam_ros.pipeline.scheduling.scheduler import Scheduler

RESULT_TIMEOUT_S = 60
"""Time for a client to fetch a result. In a burst of thousands of goals its request may wait for that long."""

MOST_RESULT_BYTES = 64 << 20
"""Size of the results beyond which the oldest are dropped earlier, after FETCH_S seconds."""

FETCH_S = 5.0


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


class KeptResult(NamedTuple):
    """A result that a client may still fetch."""

    result: Segment.Result
    ended_s: float  # time.monotonic()
    size_bytes: int  # size of its points, which are the large part


class WallClockNode:
    """The node with a clock that cannot stop, for the action server.

    rclpy measures by the node's clock how long it keeps ended goals. Under simulated time that clock may stand still or
    go back, and the goals would never be freed.
    """

    def __init__(self, node: Node) -> None:
        self._node = node
        self._clock = Clock(clock_type=ClockType.SYSTEM_TIME)

    def get_clock(self) -> Clock:
        """Return the clock of the operating system."""
        return self._clock

    def __getattr__(self, name: str) -> Any:
        return getattr(self._node, name)


class GoalServer(ActionServer):
    """ActionServer in which the failure of one request affects neither the others nor the end of its goal.

    rclpy executes the requests of several clients together, and an exception of one loses those after it. It also keeps
    a goal whose client could not be told of its acceptance, with its images, as long as the node runs, and never gives
    it to handle_accepted_callback.
    """

    def __init__(
        self,
        *args: Any,
        end_goal: Callable[[ServerGoalHandle], None],
        report: Callable[[str, BaseException], object],
        **kwargs: Any,
    ) -> None:
        """Create an ActionServer.

        Args:
            args: Those of rclpy's ActionServer.
            end_goal: Called with the handle of a goal that was accepted but not passed to handle_accepted_callback.
            report: Called with a description of the request that failed, and the exception.
            kwargs: Those of rclpy's ActionServer.
        """
        super().__init__(*args, **kwargs)
        self._end_goal = end_goal
        self._report_failure = report

    async def execute(self, taken_data: dict[str, Any]) -> None:
        """Execute each request that was taken: of the kinds goal, cancel, result and expired (see rclpy's Waitable)."""
        for kind, request in taken_data.items():
            new_goal = bytes(request[1].goal_id.uuid) if kind == 'goal' else b''
            is_new = new_goal not in self._handles
            try:
                await super().execute({kind: request})
            except FAILURES as error:
                self._report_failure(f'the {kind} requests of the action', error)
            handle = self._handles.get(new_goal)
            if is_new and handle is not None and handle.status == GoalStatus.STATUS_ACCEPTED:
                self._end_goal(handle)

    @property
    def _handles(self) -> dict[bytes, ServerGoalHandle]:
        """The goals that rclpy keeps, by id; empty in a version of rclpy that keeps them elsewhere."""
        return getattr(self, '_goal_handles', {})


class SegmentAction:
    """Action server. All callbacks run in the executor's thread and return at once."""

    def __init__(
        self,
        node: AsyncLifecycleNode,
        scheduler: Scheduler,
        streams: Mapping[str, CameraStream],
        settings: SettingsSource,
        clock: Clock,
    ) -> None:
        """Start the action server.

        Args:
            node: The node that has the action; ended goals are counted in its statistics.
            scheduler: Receives the goals.
            streams: Camera streams by name; the first one serves the goals that name none.
            settings: Settings that goals are answered with.
            clock: Measures time limits; a steady one, so that they also work while simulated time stands still.
        """
        self._node = node
        self._scheduler = scheduler
        self._streams = streams
        self._settings = settings
        self._clock = clock
        self._open: dict[bytes, OpenGoal] = {}  # open goals by goal id
        self._kept: deque[KeptResult] = deque()
        self._group = ReentrantCallbackGroup()
        node.create_timer(1.0, self._drop_results, clock=clock, callback_group=self._group)
        self._server = GoalServer(
            WallClockNode(node),
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
            end_goal=lambda handle: handle.execute(),
            report=node.log.report_bug,
        )

    @property
    def is_idle(self) -> bool:
        """True if no goal is open. Results may still have to be sent to clients."""
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
            return
        try:
            self._scheduler.ask(request)
        except FAILURES as error:
            request.abort(self._node.log.report_bug('accepting a goal', error))

    def _cancel(self, handle: ServerGoalHandle) -> CancelResponse:
        open_goal = self._open.get(bytes(handle.goal_id.uuid))
        if open_goal is None:
            return CancelResponse.REJECT
        # Accepted even if the goal has just ended otherwise: rclpy skips the goal after a rejected one when a request
        # is about all goals.
        open_goal.request.cancel()
        return CancelResponse.ACCEPT

    async def _execute(self, handle: ServerGoalHandle) -> Segment.Result:
        key = bytes(handle.goal_id.uuid)
        open_goal = self._open.get(key)
        try:
            if open_goal is None:
                raise RuntimeError('the node could not accept the goal')
            outcome: Outcome = await open_goal.link.ended
            result = self._end(handle, open_goal, outcome)
        except FAILURES as error:  # rclpy aborts the goal, which has no other end
            text = self._node.log.report_bug('a goal', error)
            result = Segment.Result(answer=InstanceArray(status=InstanceArray.STATUS_ERROR, message=text))
        finally:
            self._open.pop(key, None)
            _drop_images(handle.request)
        self._kept.append(KeptResult(result, time.monotonic(), len(result.points.data)))
        return result

    def _end(self, handle: ServerGoalHandle, open_goal: OpenGoal, outcome: Outcome) -> Segment.Result:
        self._scheduler.forget(open_goal.request)
        if open_goal.timer is not None:
            self._node.destroy_timer(open_goal.timer)
        self._node.statistics.count_goal(outcome.state)
        if outcome.state == SUCCEEDED:
            handle.succeed()
        elif outcome.state == ABORTED:
            handle.abort()
            instruction, reason = shorten(handle.request.instruction), shorten(outcome.answer.message)
            self._node.log.warning('aborted goal', f"goal '{instruction}' aborted: {reason}")
        else:
            handle.canceled()
        return Segment.Result(answer=outcome.answer, points=outcome.points or PointCloud2())

    def _drop_results(self) -> None:
        """Empty the results that have been kept for long enough; rclpy frees them later."""
        total_bytes = sum(kept.size_bytes for kept in self._kept)
        while self._kept:
            oldest = self._kept[0]
            age_s = time.monotonic() - oldest.ended_s
            if age_s < (FETCH_S if total_bytes > MOST_RESULT_BYTES else RESULT_TIMEOUT_S):
                return
            total_bytes -= oldest.size_bytes
            oldest.result.points = PointCloud2()
            oldest.result.answer = InstanceArray(
                status=InstanceArray.STATUS_ERROR, message='the result was not fetched in time, and was dropped'
            )
            self._kept.popleft()


def _drop_images(goal: Segment.Goal) -> None:
    """Empty the images of a goal that has ended; rclpy keeps the goal until its result expires."""
    goal.image, goal.depth, goal.camera_info = Image(), Image(), CameraInfo()


def _fault(goal: Segment.Goal, streams: Mapping[str, CameraStream]) -> str:
    """Return the reason why a goal cannot be served, '' if it can."""
    if not goal.instruction.strip():
        return 'the instruction is empty: say what to look for'
    if goal.camera and goal.camera not in streams:
        names = ', '.join(filter(None, streams)) or 'none with a name'
        return f"there is no camera '{shorten(goal.camera)}', the cameras are: {names}"
    if not len(goal.image.data) and (goal.image.height or len(goal.depth.data) or goal.camera_info.height):
        return 'the image of the goal has no data: depth and camera_info are used with such an image only'
    if goal.freshness not in (Segment.Goal.NEWEST, Segment.Goal.NEXT, Segment.Goal.STAMP):
        return f'freshness is NEWEST 0, NEXT 1 or STAMP 2, got {goal.freshness}'
    if goal.freshness == Segment.Goal.STAMP and not len(goal.image.data) and not is_set(goal.stamp):
        return 'the goal asks for the image of a stamp, and its stamp is 0, which means that it is not set'
    if not 0 <= goal.score_threshold <= 1:  # also true for NaN
        return f"score_threshold is from 0 (the node's own) to 1, got {goal.score_threshold:g}"
    if not 0 <= goal.timeout_s <= LONGEST_S:
        return f'timeout_s is seconds up to {LONGEST_S:.0f}, 0 for no limit, got {goal.timeout_s:g}'
    return ''

"""The action `~/segment`: goals from clients to requests of the worker, and their ends back.

A goal that cannot be served is accepted and aborted, since a rejection could not say why. Cancels and time limits end
a goal at once, however long the model goes on: the worker gives up what nobody waits for at its next chance.
"""

import math

from rclpy.action import ActionServer, CancelResponse
from rclpy.callback_groups import ReentrantCallbackGroup
from rclpy.task import Future
from sensor_msgs.msg import PointCloud2

from instructsam_ros.action import Segment
from instructsam_ros.node import parameters, qos
from instructsam_ros.pipeline.camera_frame import Shot
from instructsam_ros.pipeline.goal import ABORTED, CANCELED, SUCCEEDED, Request

KEPT_S = 60  # for a client to fetch a result


class SegmentAction:
    """All callbacks run in the executor's thread and return at once."""

    def __init__(self, node, worker, streams, statistics, clock):
        """`streams`: {name of the camera: Stream}, the first one is asked where a goal names none; clock: for time
        limits, a steady one.
        """
        self._node = node
        self._worker = worker
        self._streams = streams
        self._statistics = statistics
        self._clock = clock
        self._open = {}  # id of a goal -> (Request, Future of its Outcome, timer or None)
        self._group = ReentrantCallbackGroup()
        self._server = ActionServer(
            node,
            Segment,
            '~/segment',
            self._execute,
            callback_group=self._group,
            handle_accepted_callback=self._accept,
            cancel_callback=self._cancel,
            result_timeout=KEPT_S,
            goal_service_qos_profile=qos.ACTION,
            result_service_qos_profile=qos.ACTION,
            cancel_service_qos_profile=qos.ACTION,
        )

    def destroy(self):
        self._server.destroy()

    @property
    def is_idle(self):
        """Whether every goal has ended and its client has been told."""
        return not self._open

    def _accept(self, handle):
        goal, future = handle.request, Future()
        executor = self._node.executor
        future.add_done_callback(lambda _: executor.wake())
        fault = _fault(goal, self._streams)
        stream = next(iter(self._streams.values())) if fault or not goal.camera else self._streams[goal.camera]
        own = Shot(goal.image, self._clock.now().nanoseconds * 1e-9) if len(goal.image.data) else None
        request = Request(
            goal,
            stream,
            parameters.settings(self._node),
            future.set_result,
            lambda stage: handle.publish_feedback(Segment.Feedback(stage=stage)),
            own,
        )
        timer = None
        if goal.timeout_s > 0 and not fault:
            reason = f'no result within the {goal.timeout_s:g} s that the goal allows'
            timer = self._node.create_timer(
                goal.timeout_s, lambda: request.abort(reason), clock=self._clock, callback_group=self._group
            )
        self._open[bytes(handle.goal_id.uuid)] = request, future, timer
        handle.execute()
        if fault:
            request.abort(fault)
        else:
            self._worker.ask(request)

    def _cancel(self, handle):
        request, *_ = self._open.get(bytes(handle.goal_id.uuid), (None,))
        return CancelResponse.ACCEPT if request is not None and request.cancel() else CancelResponse.REJECT

    async def _execute(self, handle):
        key = bytes(handle.goal_id.uuid)
        request, future, timer = self._open[key]
        outcome = await future
        if timer is not None:
            self._node.destroy_timer(timer)
        {SUCCEEDED: handle.succeed, ABORTED: handle.abort, CANCELED: handle.canceled}[outcome.state]()
        self._statistics.count_goal(outcome.state)
        if outcome.state == ABORTED:
            self._node.get_logger().warning(f"goal '{request.goal.instruction}' aborted: {outcome.answer.message}")
        del self._open[key]
        return Segment.Result(answer=outcome.answer, points=outcome.points or PointCloud2())


def _fault(goal, streams):
    """Why a goal cannot be served, '' where it can."""
    if not goal.instruction.strip():
        return 'the instruction is empty: say what to look for'
    if goal.camera and goal.camera not in streams:
        names = ', '.join(filter(None, streams)) or 'none with a name'
        return f"there is no camera '{goal.camera}', there are: {names}"
    if goal.freshness not in (goal.NEWEST, goal.NEXT, goal.STAMP):
        return f'freshness is NEWEST 0, NEXT 1 or STAMP 2, got {goal.freshness}'
    if not 0 <= goal.score_threshold <= 1:  # NaN, too
        return f"score_threshold is from 0 (the node's own) to 1, got {goal.score_threshold:g}"
    if not 0 <= goal.timeout_s < math.inf:
        return f'timeout_s is seconds, 0 for no limit, got {goal.timeout_s:g}'
    return ''

"""Jobs of the worker: each computes one answer and delivers it, to the result topics or to goals."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from builtin_interfaces.msg import Time
from rclpy.clock import Clock

from instructsam.core import CancelledError, InstructionError
from instructsam_ros.conversions.point_clouds import cloud
from instructsam_ros.conversions.stamps import is_set, nanoseconds
from instructsam_ros.pipeline.answer import Answer, Query, answer_query, timed
from instructsam_ros.pipeline.camera_frame import CameraFrame
from instructsam_ros.pipeline.protocols import DepthSource
from instructsam_ros.pipeline.scheduling.error_log import FAILURES, ErrorLog, explain
from instructsam_ros.pipeline.scheduling.goal import GoalDepth
from instructsam_ros.pipeline.scheduling.scheduler import GoalWork, Scheduler, StreamWork
from instructsam_ros.pipeline.scheduling.statistics import Statistics
from instructsam_ros.pipeline.tracker_pool import TrackerPool
from instructsam_ros.pipeline.transforms import TransformLookup

if TYPE_CHECKING:  # importing the engine imports torch
    from instructsam.core import InstructSAM

ENCODING_STEPS = ('conversion', 'image_encoders')


@dataclass(frozen=True)
class JobContext:
    """Objects that every job uses."""

    scheduler: Scheduler
    transforms: TransformLookup
    statistics: Statistics
    error_log: ErrorLog
    clock: Clock  # the node's clock, which image stamps are compared with
    on_answer: Callable[[StreamWork, Answer], None] | None = None  # called with each published answer of a stream


class Job(ABC):
    """Computes and delivers one answer; it is the Caller of its own query. Used in the worker's thread."""

    def __init__(
        self,
        context: JobContext,
        frame: CameraFrame,
        query: Query,
        depth_source: DepthSource,
        trackers: TrackerPool,
    ) -> None:
        self._context = context
        self._frame = frame
        self._query = query
        self._depth_source = depth_source
        self._trackers = trackers

    def run(self, engine: InstructSAM) -> bool:
        """Answer the query and deliver the answer or the error; return False if the error is not the input's."""
        try:
            answer = answer_query(
                engine,
                self._frame,
                self._query,
                depth_source=self._depth_source,
                transforms=self._context.transforms.in_round(self._frame.transform_round),
                trackers=self._trackers,
                caller=self,
            )
            self.deliver(answer)
        except CancelledError:
            self.on_cancelled()
        except FAILURES as error:
            self.on_error(error)
            if not explain(error).is_user_error:
                self._frame.release()
                return False
        finally:
            self.finish()
        return True

    @abstractmethod
    def is_cancelled(self) -> bool:
        """Return whether the answer is no longer wanted (see Caller)."""

    @abstractmethod
    def is_encoding_cancelled(self) -> bool:
        """Return whether the encoded image is no longer wanted (see Caller)."""

    @abstractmethod
    def report_step(self, step: str) -> None:
        """Report that `step` begins (see Caller)."""

    @abstractmethod
    def deliver(self, answer: Answer) -> None:
        """Publish the answer, or send it to the clients of the goals."""

    @abstractmethod
    def on_cancelled(self) -> None:
        """Handle the cancellation of the query."""

    @abstractmethod
    def on_error(self, error: BaseException) -> None:
        """Send the reason why there is no answer."""

    @abstractmethod
    def finish(self) -> None:
        """Clean up after the job, however it ended."""


class StreamJob(Job):
    """Answers the instruction in force on a camera's frame and publishes the result on the camera's topics."""

    def __init__(self, work: StreamWork, context: JobContext) -> None:
        query = Query(work.instruction.text, work.settings, work.instruction)
        super().__init__(
            context, work.frame, query, work.stream.depth.in_round(work.frame.stamp_round), work.stream.trackers
        )
        self._work = work
        self._is_first_on_frame = work.frame.is_new

    def is_cancelled(self) -> bool:
        """Return whether another instruction, a goal, a task or the end of the session supersedes the work."""
        return self._context.scheduler.is_superseded(self._work)

    def is_encoding_cancelled(self) -> bool:
        """Return whether not even the encoded image is needed."""
        return self._context.scheduler.is_encoding_superseded(self._work)

    def report_step(self, step: str) -> None:
        """Do nothing: a stream has no client that follows its progress."""

    def deliver(self, answer: Answer) -> None:
        """Publish the result, unless it has been superseded meanwhile, and count it."""
        work, times_ms = self._work, dict(answer.times_ms)
        with timed(times_ms, 'messages'):
            messages = work.stream.results.result_messages(work.frame, work.instruction, answer)
        if self._context.scheduler.publish_if_current(work, messages):
            self._context.statistics.count_result('', self._seconds_since(work.frame.header.stamp))
            self._count_times(times_ms)
            if self._context.on_answer is not None:
                self._context.on_answer(work, answer)
            if answer.geometry_message and work.stream.depth.received:  # a camera without depth is not worth a warning
                kind = f'no 3D geometry{work.stream.of_camera}'
                self._context.error_log.warning(kind, f'{kind}: {answer.geometry_message}')

    def on_cancelled(self) -> None:
        """Leave the frame to be answered later."""
        self._context.scheduler.postpone(self._work)

    def on_error(self, error: BaseException) -> None:
        """Publish the error as a result, unless the instruction has been superseded meanwhile."""
        work, context = self._work, self._context
        if context.scheduler.is_closed:  # The node may have been destroyed already.
            return
        text = context.error_log.report(error)
        messages = work.stream.results.error_messages(work.frame, work.instruction, text)
        is_refused = isinstance(error, InstructionError)
        if context.scheduler.publish_if_current(work, messages, is_refused=is_refused):
            context.statistics.count_result(text, self._seconds_since(work.frame.header.stamp))

    def finish(self) -> None:
        """Do nothing: the stream keeps the frame for the next instruction."""

    def _count_times(self, times_ms: dict[str, float]) -> None:
        """Record how long each step took, without the steps that an earlier job did on this frame."""
        if self._is_first_on_frame:
            times_ms['receive_to_publish'] = (time.perf_counter() - self._frame.received_s) * 1e3
        for step, ms in times_ms.items():
            if self._is_first_on_frame or step not in ENCODING_STEPS:
                self._context.statistics.add_time(step, ms)

    def _seconds_since(self, stamp: Time) -> float | None:
        return (self._context.clock.now().nanoseconds - nanoseconds(stamp)) * 1e-9 if is_set(stamp) else None


class GoalJob(Job):
    """Answers goals that ask the same about the same frame."""

    def __init__(self, work: GoalWork, context: JobContext) -> None:
        first = work.requests[0]
        text = first.goal.instruction
        if first.has_own_image:
            query, depth_source = Query(text, first.settings, track_group=None), GoalDepth(first.goal)
        else:
            current = context.scheduler.instruction
            group = current if current is not None and current.text == text else text
            query, depth_source = (
                Query(text, first.settings, group),
                first.stream.depth.in_round(work.frame.stamp_round),
            )
        super().__init__(context, work.frame, query, depth_source, first.stream.trackers)
        self._work = work

    def is_cancelled(self) -> bool:
        """Return whether all goals, or the session, have ended."""
        return self._context.scheduler.is_abandoned(self._work)

    def is_encoding_cancelled(self) -> bool:
        """Return the same as is_cancelled(): without its goals the encoded image is not needed."""
        return self.is_cancelled()

    def report_step(self, step: str) -> None:
        """Report the step to every goal's client."""
        for request in self._work.requests:
            request.report_stage(step)

    def deliver(self, answer: Answer) -> None:
        """End every goal with the answer."""
        frame, requests = self._frame, self._work.requests
        message = answer.to_msg(frame.header, self._query.text, 0)
        points = None
        if any(request.goal.points for request in requests):
            points = cloud(answer.result, frame.decode(), answer.geometry_header(frame.header))
        for request in requests:
            request.succeed(message, points if request.goal.points else None)

    def on_cancelled(self) -> None:
        """Do nothing: the clients were notified when the goals ended."""

    def on_error(self, error: BaseException) -> None:
        """Abort every goal with the reason."""
        text = self._context.error_log.report(error)
        for request in self._work.requests:
            request.abort(text)

    def finish(self) -> None:
        """Notify the scheduler that the goals have ended."""
        self._context.scheduler.finish_goals(self._work)

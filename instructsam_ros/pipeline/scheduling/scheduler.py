"""Decides what the model does next: tasks first, then goals, then the cameras in turn.

Pure state: it starts no thread and never waits for the model, so it can be tested call by call. The worker's thread
takes work from it; every other thread only submits frames, instructions, goals and tasks.

Lock discipline: one lock guards this object, its camera streams and the `frame` of every goal. Public methods take it
and hold it briefly; apart from wait_for_work() they never block otherwise. Methods with a leading underscore expect the
caller to hold it. The is_...() methods are the exception: they read without the lock, because the engine calls them
many times per second, partly while another lock is held. Each value that they read is replaced as a whole, and a stale
one only delays a cancellation until the next call.
"""

import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from instructsam_ros.action import Segment
from instructsam_ros.pipeline.camera_frame import CameraFrame
from instructsam_ros.pipeline.instruction import Instruction
from instructsam_ros.pipeline.protocols import SettingsSource
from instructsam_ros.pipeline.scheduling.camera_stream import CameraStream
from instructsam_ros.pipeline.scheduling.goal import GoalRequest
from instructsam_ros.pipeline.scheduling.result_publisher import OutgoingMessage
from instructsam_ros.pipeline.scheduling.statistics import Statistics
from instructsam_ros.pipeline.settings import CONTINUOUS, ON_INSTRUCTION, Settings

MOST_WAITING_BYTES = 1 << 30
"""Size of the images that came with the waiting goals, above which more of them are refused."""


class Session:
    """The time from activate() to deactivate(), compared by identity: work of an earlier session is discarded."""


@dataclass(frozen=True, eq=False)
class StreamWork:
    """Answer the instruction in force on a frame of a camera."""

    session: Session
    stream: CameraStream
    instruction: Instruction
    frame: CameraFrame
    settings: Settings


@dataclass(frozen=True, eq=False)
class GoalWork:
    """Answer goals that ask the same about the same frame."""

    session: Session
    frame: CameraFrame
    requests: tuple[GoalRequest, ...]  # never empty


Task: TypeAlias = Callable[[], None]
"""A function that needs the worker's thread, such as loading the model."""

Work: TypeAlias = Task | GoalWork | StreamWork


class Scheduler:
    """Queues of frames, instructions, goals and tasks, and the rules for who is next.

    A new instruction supersedes the one before: running work is cancelled at the engine's next check, and nothing that
    belongs to the old one is published once instruct() has returned. Goals go before the streams: work on a stream is
    cancelled for a goal and repeated afterwards.
    """

    def __init__(self, streams: Sequence[CameraStream], settings: SettingsSource, statistics: Statistics) -> None:
        """Create a scheduler without a session; `streams` has one entry per camera."""
        self._streams = tuple(streams)
        self._settings = settings
        self._statistics = statistics

        self._changed = threading.Condition()  # guards everything below, and the streams
        self._turns = deque(streams)  # the camera whose turn it is comes first
        self._tasks: deque[Task] = deque()
        self._waiting: list[GoalRequest] = []  # in order of arrival
        self._running: tuple[GoalRequest, ...] = ()  # answered together right now
        self._kept: list[CameraFrame] = []  # of finished goals, not released since something needed them
        self._is_closed = False
        self._session: Session | None = None
        self._instruction: Instruction | None = None  # None: stopped, or none has been received
        self._instruction_count = 0
        self._refused: Instruction | None = None  # instruction that the engine cannot use; reported once, not retried

    # Called from any thread

    @property
    def instruction(self) -> Instruction | None:
        """The instruction in force."""
        return self._instruction

    @property
    def session(self) -> Session | None:
        """The current session; None while the node is not active."""
        return self._session

    @property
    def is_closed(self) -> bool:
        """True if close() has been called."""
        return self._is_closed

    def offer(self, stream: CameraStream, frame: CameraFrame) -> None:
        """Store a new frame of a camera and give it to the goals that wait for it; without a session, drop it.

        Goals whose frame is lost, since later ones have arrived, are aborted.
        """
        with self._changed:
            if self._session is None:  # The node is shutting down, and its subscriptions are closed soon.
                return
            takers = [each for each in self._waiting if each.stream is stream and each.waits_for(frame.header)]
            for request in takers:
                request.frame = frame
            stream.put_frame(frame, is_used=bool(takers))
            lost = self._take_goals_of_lost_frames(stream)
            self._changed.notify()
        for request, reason in lost.items():
            request.abort(reason)

    def _take_goals_of_lost_frames(self, stream: CameraStream) -> dict[GoalRequest, str]:
        """Return the waiting goals whose frame will not come, with the reason; they wait no longer."""
        lost = {}
        for request in self._waiting:
            stamp = request.awaited_stamp if request.stream is stream else None
            if stamp is not None and (reason := stream.reason_if_lost(stamp)):
                lost[request] = reason
        self._waiting = [each for each in self._waiting if each not in lost]
        return lost

    def instruct(self, text: str) -> Instruction | None:
        """Make `text` the instruction in force, '' to stop, and return it.

        Repeating the text in force changes nothing in continuous mode, and in any mode while its answer is still being
        computed: a publisher that repeats itself must not keep the model from ever finishing.
        """
        with self._changed:
            current = self._instruction
            if (
                current is not None
                and text == current.text
                and (not self._is_done(current) or self._settings.current().trigger == CONTINUOUS)
            ):
                return current
            self._instruction = None
            for stream in self._streams:
                stream.must_answer_current = False
            if text:
                self._instruction_count += 1
                self._instruction = Instruction(text, self._instruction_count)
            self._changed.notify()
            return self._instruction

    def _is_done(self, instruction: Instruction) -> bool:
        """Return whether an instruction was refused, or answered by a camera and all others that have images."""
        others = [stream for stream in self._streams if stream.answered is not instruction]
        is_answered = len(others) < len(self._streams) and not any(stream.has_frame for stream in others)
        return is_answered or instruction is self._refused

    def ask(self, request: GoalRequest) -> None:
        """Queue a goal, or abort it with the reason why it cannot be served."""
        with self._changed:
            reason = self._rejection_reason(request)
            if not reason:
                # Before it is queued, so that no later stage can overtake this one.
                request.report_stage(Segment.Feedback.QUEUED if request.is_ready() else Segment.Feedback.WAITING)
                self._waiting.append(request)
                self._changed.notify()
        if reason:
            request.abort(reason)

    def _rejection_reason(self, request: GoalRequest) -> str:
        if self._session is None:
            return 'the node is not active: configure and activate it, then ask again'
        most = self._settings.current().max_waiting_goals
        if len(self._waiting) >= most:
            return f'{most} goals are waiting already (parameter max_waiting_goals): try again later'
        waiting_bytes = sum(each.size_bytes for each in self._waiting)
        if request.size_bytes and waiting_bytes + request.size_bytes > MOST_WAITING_BYTES:
            return f'the images of the waiting goals take {waiting_bytes >> 20} MB already: try again later'
        if not request.has_own_image and request.goal.freshness == Segment.Goal.STAMP:
            try:
                request.frame = request.stream.find_frame(request.goal.stamp)
            except ValueError as error:
                return str(error)
        return ''

    def forget(self, request: GoalRequest) -> None:
        """Drop a goal that has ended, with its images."""
        with self._changed:
            if request in self._waiting:
                self._waiting.remove(request)

    def submit(self, task: Task) -> None:
        """Queue a function for the worker's thread; it runs as soon as the model is idle."""
        with self._changed:
            self._tasks.append(task)
            self._changed.notify()

    def activate(self) -> None:
        """Start a session: from now on there is work for frames, instructions and goals."""
        with self._changed:
            self._session = Session()
            self._changed.notify()

    def deactivate(self, reason: str = 'the node was deactivated') -> None:
        """End the session: cancel running work, abort all goals and drop all frames.

        Nothing is published once this has returned.
        """
        with self._changed:
            self._session = None
            for stream in self._streams:
                stream.clear()
            open_requests = [*self._running, *self._waiting]
            self._waiting, self._kept = [], []
        for request in open_requests:
            request.abort(reason)

    def close(self) -> None:
        """End the session permanently: wait_for_work() returns None."""
        with self._changed:
            self._is_closed = True
            self._session = None
            self._changed.notify()

    # Called from the worker's thread

    def wait_for_work(self) -> Work | None:
        """Wait until there is work and return it, or None after close()."""
        with self._changed:
            while not self._is_closed:
                if (work := self._next_work()) is not None:
                    return work
                self._changed.wait()
            return None

    def next_work(self) -> Work | None:
        """Return the next work without waiting, or None if there is none."""
        with self._changed:
            return self._next_work()

    def _next_work(self) -> Work | None:
        if self._tasks:
            return self._tasks.popleft()
        if self._session is None:
            return None
        if (request := self._ready_goal()) is not None:
            return self._join_equal_goals(self._session, request)
        instruction = self._instruction
        if instruction is None or instruction is self._refused:
            return None
        settings = self._settings.current()
        for stream in list(self._turns):
            if stream.has_work(instruction, settings.trigger):
                self._turns.remove(stream)
                self._turns.append(stream)
                if (frame := stream.take_for_stream(settings.trigger)) is not None:
                    return StreamWork(self._session, stream, instruction, frame, settings)
        return None

    def _ready_goal(self) -> GoalRequest | None:
        return next((request for request in self._waiting if request.is_open and request.is_ready()), None)

    def _join_equal_goals(self, session: Session, first: GoalRequest) -> GoalWork | None:
        """Return the work on the first goal and all others that it answers as well."""
        frame = first.frame or first.stream.take_for_goal()
        if frame is None:
            return None
        requests = tuple(
            each for each in self._waiting if each.is_open and (each is first or each.can_join(first, frame))
        )
        self._waiting = [each for each in self._waiting if each.is_open and each not in requests]
        self._running = requests
        for request in requests:
            request.frame = frame
        return GoalWork(session, frame, requests)

    def is_superseded(self, work: StreamWork) -> bool:
        """Return whether the answer is no longer wanted: another instruction, a goal, a task or the session's end."""
        return not self.is_in_force(work) or bool(self._tasks) or self._ready_goal() is not None

    def is_in_force(self, work: StreamWork) -> bool:
        """Return whether the session and the instruction of an answer are still the current ones."""
        return self._session is work.session and self._instruction is work.instruction

    def is_encoding_superseded(self, work: StreamWork) -> bool:
        """Return whether even the encoded image is no longer wanted.

        It serves any instruction, so a new one is no reason to stop, unless it needs a newer image. Nor is a goal that
        can be answered on the same frame.
        """
        is_outdated = (
            self._instruction is not work.instruction
            and work.settings.trigger == ON_INSTRUCTION
            and work.stream.mailbox.has_message
        )
        request = self._ready_goal()
        goal_needs_another = request is not None and not (request.stream is work.stream and request.can_use(work.frame))
        return self._session is not work.session or is_outdated or goal_needs_another or bool(self._tasks)

    def is_abandoned(self, work: GoalWork) -> bool:
        """Return whether the answer is no longer wanted: every goal has ended, or the session has."""
        return self._session is not work.session or not any(request.is_open for request in work.requests)

    def publish_if_current(
        self, work: StreamWork, messages: Sequence[OutgoingMessage], *, is_refused: bool = False
    ) -> bool:
        """Publish the messages unless the work has been superseded; return whether they were published.

        This holds the same lock as instruct() and deactivate(), which therefore can guarantee that nothing follows
        them.

        Args:
            work: The work that is done.
            messages: Its result.
            is_refused: Whether the engine cannot use the instruction, which therefore must not be tried again.
        """
        with self._changed:
            if self._session is not work.session:
                return False
            if self._instruction is not work.instruction:
                self._postpone(work)
                return False
            work.stream.answered = work.instruction
            self._refused = work.instruction if is_refused else None
            for message in messages:
                message.publish()
            return True

    def publish_carried(self, work: StreamWork, messages: Sequence[OutgoingMessage]) -> bool:
        """Publish messages about a later image that an answer was carried to, unless it is no longer in force.

        Holds the lock for the reason that publish_if_current() does; called in the thread that carries the masks.
        """
        with self._changed:
            if not self.is_in_force(work):
                return False
            for message in messages:
                message.publish()
            return True

    def postpone(self, work: StreamWork) -> None:
        """Note that the work was cancelled; the frame is answered later unless there is no instruction any more."""
        with self._changed:
            if self._session is work.session:
                self._postpone(work)

    def _postpone(self, work: StreamWork) -> None:
        self._statistics.superseded += self._instruction is not work.instruction
        work.stream.must_answer_current = self._instruction is not None

    def finish_goals(self, work: GoalWork) -> None:
        """Note that the work on goals has ended, and release the frames of goals that nothing else needs any more."""
        with self._changed:
            self._running = ()
            frames = [frame for frame in self._kept if frame is not work.frame] + [work.frame]
            self._kept = [frame for frame in frames if self._is_needed(frame)]
            unneeded = [frame for frame in frames if frame not in self._kept]
        for frame in unneeded:
            frame.release()

    def _is_needed(self, frame: CameraFrame) -> bool:
        """Return whether a stream or a waiting goal may be answered on the frame."""
        used = [stream.frame for stream in self._streams] + [request.frame for request in self._waiting]
        return any(frame is each for each in used) or any(stream.mailbox.holds(frame) for stream in self._streams)

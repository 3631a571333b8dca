"""Python client of the perception node, for programs that need no other knowledge of ROS.

Example::

    with Perception() as perception:
        for mug in perception.find('the mugs', timeout=5.0):  # best score first
            print(mug.mask.shape, mug.score, mug.center)  # (height, width), 0 to 1, [3] m
"""

# pyright: reportMissingTypeStubs=false
# ROS message packages have no stubs.

import queue
import threading
import time
import uuid
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from typing import Any, Literal, cast

from action_msgs.msg import GoalStatus
from builtin_interfaces.msg import Time
from rclpy.action.client import ActionClient, ClientGoalHandle
from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from std_msgs.msg import String
from unique_identifier_msgs.msg import UUID

from instructsam.core.errors import CancelledError, InstructSAMError
from instructsam_ros.action import Segment
from instructsam_ros.conversions.instances import depth_msg, image_msg
from instructsam_ros.conversions.stamps import LONGEST_S
from instructsam_ros.dds import check_environment
from instructsam_ros.detections import Detections, Instance, carried_detections_from_msg, detections_from_msg
from instructsam_ros.msg import InstanceArray, TrackedInstanceArray
from instructsam_ros.node import qos
from instructsam_ros.own_node import OwnNode

__all__ = ['Detections', 'Instance', 'Perception', 'PerceptionError']

GRACE_S = 2.0  # added to a time limit, so that the node can report itself that the limit has passed
RETRY_S = 1.0  # time until the first repetition of a request that got no response
MOST_UNCARRIED = 5  # answers in a row that are not carried to a later image, after which watch(tracked=True) gives up
STEP_S = 0.2  # longest uninterrupted wait; Ctrl-C and close() take effect between two waits


class PerceptionError(InstructSAMError, RuntimeError):
    """There is no answer; the message says why.

    An answer in which nothing matches is not an error but an empty Detections.
    """


class Perception:
    """Client of one perception node.

    It has its own ROS context and thread, so that it can be used in any program, also in callbacks of other nodes and
    from several threads. Close it, or use it as a context manager.

    Args:
        node: Name of the perception node, including its namespace.
        instruction_topic: Topic on which the node receives instructions; only watch() and stop() publish there.
    """

    def __init__(self, node: str = 'perception', instruction_topic: str = 'instruction') -> None:
        check_environment()
        self._ros = OwnNode(f'perception_client_{uuid.uuid4().hex[:8]}')
        self._node = self._ros.node
        self._name = node.strip('/')
        self._is_closed = False
        self._changed = threading.Condition()  # guards _is_closed and _users
        self._users = 0  # calls that use what close() destroys, and goals whose cancellation is not answered yet
        self._action: Any = ActionClient(
            self._node,
            Segment,
            f'/{self._name}/segment',
            goal_service_qos_profile=qos.ACTION,
            result_service_qos_profile=qos.ACTION,
            cancel_service_qos_profile=qos.ACTION,
            feedback_sub_qos_profile=qos.ACTION,
        )
        self._instruction: Any = self._node.create_publisher(String, instruction_topic, qos.LATCHED)
        self._ros.start_thread()

    def find(
        self,
        instruction: str,
        timeout: float = 5.0,
        *,
        freshness: Literal['newest', 'next'] | Time = 'newest',
        score_threshold: float = 0.0,
        camera: str = '',
        image: Image | CompressedImage | None = None,
        depth: Image | CompressedImage | None = None,
        camera_info: CameraInfo | None = None,
        on_stage: Callable[[str], object] | None = None,
        cancelled: Callable[[], bool] | None = None,
    ) -> Detections:
        """Find the objects that `instruction` names in one image.

        Args:
            instruction: A phrase or sentence that names the objects.
            timeout: Time from now to the answer, s.
            freshness: 'newest' for the newest image, 'next' for the first one that arrives after this call, or the
                stamp of an image.
            score_threshold: Lowest score of an object, 0 to 1; 0 uses the node's parameter.
            camera: Name of the camera, if the node has several; '' is the first.
            image: An image to use instead of the camera's; a compressed one is decoded here, since goals hold raw ones.
            depth: The depth of `image`: 16UC1 mm or 32FC1 m, aligned to it and of the same size; likewise.
            camera_info: The intrinsics of `image` and `depth`; all three must have the same header.frame_id.
            on_stage: Called with the name of each stage when it begins, in another thread. The last stages may be
                missing: rclpy drops feedback that it takes after the result.
            cancelled: Checked several times per second; once it returns true, the goal is cancelled.

        Returns:
            The objects, best score first; empty if nothing matches.

        Raises:
            ValueError: The time limit is NaN, or longer than a year.
            PerceptionError: There is no such node, the time limit has passed, the node reports why it cannot answer,
                its answer is malformed, or `image` or `depth` cannot be decoded.
            CancelledError: `cancelled` returned true.
            Exception: What `on_stage` or `cancelled` raises.
        """
        if not timeout <= LONGEST_S:  # also true for NaN
            raise ValueError(f'timeout is seconds up to {LONGEST_S:.0f}, got {timeout:g}')
        end_s = time.monotonic() + timeout
        image, depth = _decoded(image, depth)
        with self._in_use():
            is_there = self._wait(self._action.wait_for_server, timeout, cancelled)
        if not is_there:
            raise PerceptionError(f'there is no node /{self._name} with an action segment: start it, or check its name')
        goal: Any = Segment.Goal(
            instruction=instruction,
            camera=camera,
            score_threshold=float(score_threshold),
            points=True,
            timeout_s=max(0.001, end_s - time.monotonic()),
        )
        _set_freshness(goal, freshness)
        for name, value in (('image', image), ('depth', depth), ('camera_info', camera_info)):
            if value is not None:
                setattr(goal, name, value)
        response = self._send_goal(goal, on_stage, end_s + GRACE_S, cancelled)
        answer = response.result.answer
        if response.status == GoalStatus.STATUS_UNKNOWN:
            raise PerceptionError(f'/{self._name} no longer has the result of the goal: ask again')
        # A result that was dropped before it was fetched belongs to a goal that succeeded.
        if response.status != GoalStatus.STATUS_SUCCEEDED or answer.status == InstanceArray.STATUS_ERROR:
            raise PerceptionError(answer.message or 'the goal was aborted without a reason')
        return _read(detections_from_msg, response.result.answer, response.result.points)

    def watch(
        self, instruction: str, timeout: float | None = None, *, camera: str = '', tracked: bool = False
    ) -> Iterator[Detections]:
        """Make `instruction` the node's instruction and yield a Detections for every image that it answers.

        The instruction stays in force when the loop ends; stop() ends it. Results that arrive while the caller is busy
        are dropped: the next one is always the newest.

        Args:
            instruction: A phrase or sentence that names the objects.
            timeout: Longest time without a result, s; None waits forever.
            camera: Name of the camera whose images are meant, if the node has several.
            tracked: Yield one for every image instead, to which the node has carried the newest answer. Its parameter
                track_rate_hz must be set.

        Raises:
            PerceptionError: There was no result in time, the result is an error or malformed, or masks are not carried.
        """
        newest: queue.Queue[Any] = queue.Queue(maxsize=1)
        uncarried = 0  # answers since the last message of carried masks

        def replace_newest(message: Any) -> None:
            with suppress(queue.Empty):
                newest.get_nowait()
            newest.put_nowait(message)

        def on_answer(message: Any) -> None:
            nonlocal uncarried
            if message.instruction != instruction:
                return
            if not tracked or message.status == InstanceArray.STATUS_ERROR:
                replace_newest(message)
            elif (uncarried := uncarried + 1) > MOST_UNCARRIED:
                replace_newest(PerceptionError(f'/{self._name} does not carry masks: set its parameter track_rate_hz'))

        def on_carried(message: Any) -> None:
            nonlocal uncarried
            if message.result.instruction == instruction:
                uncarried = 0
                replace_newest(message)

        subscribe = self._node.create_subscription
        prefix = f'/{self._name}/{camera}/' if camera else f'/{self._name}/'
        with self._in_use():
            subscriptions = [subscribe(InstanceArray, f'{prefix}instances', on_answer, 10)]
            if tracked:
                subscriptions.append(subscribe(TrackedInstanceArray, f'{prefix}tracked/instances', on_carried, 10))
        try:
            self._publish(instruction)
            while True:
                message = self._next_message(newest, timeout)
                if isinstance(message, PerceptionError):
                    raise message
                if isinstance(message, TrackedInstanceArray):
                    yield _read(carried_detections_from_msg, message)
                elif message.status == InstanceArray.STATUS_ERROR:
                    raise PerceptionError(message.message)
                else:
                    yield _read(detections_from_msg, message)
        finally:
            for subscription in subscriptions:
                self._ros.run_soon(partial(self._node.destroy_subscription, subscription))

    def stop(self) -> None:
        """End the instruction of watch(). Raises PerceptionError if the client is closed."""
        self._publish('')

    def _publish(self, instruction: str) -> None:
        with self._in_use():
            self._instruction.publish(String(data=instruction))

    def close(self) -> None:
        """Stop the thread and leave ROS; calls in other threads, and later ones, end with a PerceptionError."""
        with self._changed:
            if self._is_closed:
                return
            self._is_closed = True
            # The other threads cancel their goals first. A request that the node has not taken would end with this
            # client.
            self._changed.wait_for(lambda: not self._users, GRACE_S)
        self._ros.stop()
        self._action.destroy()
        self._ros.close()

    def __enter__(self) -> 'Perception':
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _send_goal(
        self,
        goal: Any,
        on_stage: Callable[[str], object] | None,
        end_s: float,
        cancelled: Callable[[], bool] | None,
    ) -> Any:
        """Send a goal and return the action's response; cancel the goal if there is none by `end_s`."""
        errors: list[Exception] = []
        sent: list[tuple[Any, Any]] = []  # the id of each request's goal, and the future of its handle
        followed: Any = None  # the goal whose feedback counts: of several requests, each makes a goal

        def send() -> Any:
            nonlocal followed
            goal_id: Any = UUID(uuid=list(uuid.uuid4().bytes))
            followed = goal_id

            def on_feedback(message: Any) -> None:
                try:
                    if on_stage is not None and goal_id == followed:
                        on_stage(message.feedback.stage)
                except Exception as error:  # raised below, in the caller's thread
                    errors.append(error)

            sent.append((goal_id, self._action.send_goal_async(goal, on_feedback, goal_id)))
            return sent[-1][1]

        def raise_error() -> None:
            if errors:
                raise errors[0]

        def is_cancelled() -> bool:
            raise_error()
            return cancelled is not None and cancelled()

        with ExitStack() as end:
            end.enter_context(self._in_use())
            try:
                handle = self._response(send, end_s, is_cancelled)
                followed = handle.goal_id
                self._ros.run_soon(lambda: [self._cancel(*each) for each in sent if each[0] != handle.goal_id])
                response = self._response(handle.get_result_async, end_s, is_cancelled)
                raise_error()
                return response
            except BaseException:  # nothing will fetch the answer, so the node need not compute it
                self._ros.run_soon(partial(self._cancel_all, sent, end.pop_all()))
                raise

    def _cancel_all(self, sent: Sequence[tuple[Any, Any]], end: ExitStack) -> None:
        """Cancel goals, which are in use until the node has answered that: `end` is closed then."""
        open_ids = {bytes(goal_id.uuid) for goal_id, _ in sent}

        def on_answer(goal_id: Any) -> None:
            open_ids.discard(bytes(goal_id.uuid))
            if not open_ids:
                end.close()

        for goal_id, accepted in sent:
            self._cancel(goal_id, accepted, partial(on_answer, goal_id))
        if not sent:
            end.close()

    def _cancel(self, goal_id: Any, accepted: Any, on_answer: Callable[[], object] = bool) -> None:
        """Cancel a goal, now and again once it is accepted, since the node may not know it yet.

        Args:
            goal_id: The goal's UUID.
            accepted: The future of its handle, which never comes if the node's response is lost.
            on_answer: Called when the node has answered the last request.
        """
        handle: Any = ClientGoalHandle(self._action, goal_id, None)

        def on_cancelled(_: object) -> None:
            on_answer()

        def cancel(_: object) -> None:
            handle.cancel_goal_async().add_done_callback(on_cancelled)

        if not accepted.done():
            handle.cancel_goal_async()
            accepted.add_done_callback(cancel)
        else:
            cancel(None)

    @contextmanager
    def _in_use(self) -> Generator[None, None, None]:
        """Delay close() by the block. Raises PerceptionError if the client is closed."""
        with self._changed:
            self._raise_if_closed()
            self._users += 1
        try:
            yield
        finally:
            with self._changed:
                self._users -= 1
                self._changed.notify_all()

    def _response(self, request: Callable[[], Any], end_s: float, cancelled: Callable[[], bool] | None = None) -> Any:
        """Return the result of the future that `request()` returns. Raises CancelledError if `cancelled()` is true.

        The request is repeated at growing intervals until there is a response: the first response of a server to a new
        client is lost if their endpoints have not discovered each other yet.
        """
        done, retry_s = threading.Event(), RETRY_S
        futures: list[Any] = []
        errors: list[Exception] = []

        def on_done(_: object) -> None:
            done.set()

        def send() -> None:
            try:
                futures.append(request())
                futures[-1].add_done_callback(on_done)
            except Exception as error:  # raised below, in the caller's thread
                errors.append(error)
                done.set()

        while not done.is_set() and time.monotonic() < end_s:
            # rclpy registers a request after sending it. Sent from the thread that takes the responses, none of these
            # can come in between, where it would be lost.
            self._ros.run_soon(send)
            self._wait(done.wait, min(retry_s, end_s - time.monotonic()), cancelled)
            retry_s *= 2
        if errors:
            raise errors[0]
        for future in futures:
            if future.done():
                return future.result()
        raise PerceptionError(f'/{self._name} does not answer: it may have ended')

    def _next_message(self, messages: 'queue.Queue[Any]', timeout: float | None) -> Any:
        end_s = float('inf') if timeout is None else time.monotonic() + timeout
        while True:
            try:
                return messages.get(timeout=STEP_S)
            except queue.Empty:
                self._raise_if_closed()
                if time.monotonic() > end_s:
                    raise PerceptionError(f'no result of /{self._name} for {timeout:g} s') from None

    def _wait(self, wait: Callable[[float], bool], timeout: float, cancelled: Callable[[], bool] | None = None) -> bool:
        """Call `wait(seconds)` in short steps until it returns true; return whether it did within `timeout`."""
        end_s = time.monotonic() + timeout
        while not wait(max(0.0, min(STEP_S, end_s - time.monotonic()))):
            self._raise_if_closed()
            if cancelled is not None and cancelled():
                raise CancelledError('the caller no longer wants this answer')
            if time.monotonic() >= end_s:
                return False
        return True

    def _raise_if_closed(self) -> None:
        if self._is_closed:
            raise PerceptionError('the client was closed')


def _decoded(image: Any, depth: Any) -> tuple[Any, Any]:
    """Return an image and its depth, Image, CompressedImage or None, as Image or None."""
    if not isinstance(image, CompressedImage) and not isinstance(depth, CompressedImage):
        return image, depth
    # These import OpenCV, which most programs with a client do not need.
    from instructsam_ros.conversions.depth import to_depth  # noqa: PLC0415
    from instructsam_ros.conversions.images import ImageFormatError, to_rgb  # noqa: PLC0415

    try:
        if isinstance(image, CompressedImage):
            image = image_msg(to_rgb(image), cast(Any, image).header)
        if isinstance(depth, CompressedImage):
            depth = depth_msg(to_depth(depth), cast(Any, depth).header)
    except ImageFormatError as error:
        raise PerceptionError(str(error)) from error
    return image, depth


def _set_freshness(goal: Any, freshness: str | Time) -> None:
    if freshness == 'newest':
        goal.freshness = Segment.Goal.NEWEST
    elif freshness == 'next':
        goal.freshness = Segment.Goal.NEXT
    elif isinstance(freshness, Time):
        goal.freshness, goal.stamp = Segment.Goal.STAMP, freshness
    else:
        raise ValueError(f"freshness is 'newest', 'next' or a stamp (builtin_interfaces/Time), got {freshness!r}")


def _read(read: Callable[..., Detections], *messages: object) -> Detections:
    try:
        return read(*messages)
    except ValueError as error:  # GeometryError among them
        raise PerceptionError(f'the answer is malformed: {error}') from error

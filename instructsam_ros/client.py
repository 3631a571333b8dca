"""Python client of the perception node, for programs that need no other knowledge of ROS.

Example::

    with Perception() as perception:
        for mug in perception.find('the mugs', timeout=5.0):  # best score first
            print(mug.mask.shape, mug.score, mug.center)  # (height, width), 0 to 1, [3] m
"""

# pyright: reportMissingTypeStubs=false
# ROS message packages have no stubs.

import queue
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from typing import Any, Literal, cast

from action_msgs.msg import GoalStatus
from builtin_interfaces.msg import Time
from rclpy.duration import Duration
from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from std_msgs.msg import String

from instructsam_ros.action import Segment
from instructsam_ros.conversions.instances import depth_msg, image_msg
from instructsam_ros.conversions.stamps import LONGEST_S
from instructsam_ros.dds import check_environment
from instructsam_ros.detections import Detections, Instance, carried_detections_from_msg, detections_from_msg
from instructsam_ros.goal_sender import STEP_S, GoalSender, PerceptionError
from instructsam_ros.msg import InstanceArray, TrackedInstanceArray
from instructsam_ros.node import qos
from instructsam_ros.own_node import OwnNode, default_instruction_topic, split_name

__all__ = ['Detections', 'Instance', 'Perception', 'PerceptionError']

GRACE_S = 2.0  # added to a time limit, so that the node can report itself that the limit has passed
POLL_S = 0.02  # between two looks at the subscriptions in the graph
MOST_UNCARRIED = 5  # answers in a row without carried masks, after which watch(tracked=True) raises,
UNCARRIED_S = 5.0  # but not before this time: a low track_rate_hz skips many answers


class Perception:
    """Client of one perception node.

    It has its own ROS context and thread, so that it can be used in any program, also in callbacks of other nodes and
    from several threads. Close it, or use it as a context manager.

    Args:
        node: Name of the perception node, including its namespace.
        instruction_topic: Topic on which the node receives instructions, '' for `instruction` in its namespace; only
            watch() and stop() publish there.
    """

    def __init__(self, node: str = 'perception', instruction_topic: str = '') -> None:
        check_environment()
        self._ros = OwnNode(f'perception_client_{uuid.uuid4().hex[:8]}')
        self._node = self._ros.node
        self._name = node.strip('/')
        self._goals = GoalSender(self._ros, self._name)
        topic = instruction_topic or default_instruction_topic(node)
        self._instruction: Any = self._node.create_publisher(String, topic, qos.LATCHED)
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
                its answer is malformed, `image` has no data or is missing beside `depth` or `camera_info`, or one of
                them cannot be decoded.
            CancelledError: `cancelled` returned true.
            Exception: What `on_stage` or `cancelled` raises.
        """
        if not timeout <= LONGEST_S:  # also true for NaN
            raise ValueError(f'timeout is seconds up to {LONGEST_S:.0f}, got {timeout:g}')
        end_s = time.monotonic() + timeout
        image, depth = _decoded(image, depth)
        if image is not None and not len(cast(Any, image).data):  # the node would take the camera's image
            raise PerceptionError('the image has no data')
        self._goals.wait_for_server(timeout, cancelled)
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
        response = self._goals.send(goal, on_stage, end_s + GRACE_S, cancelled)
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
            timeout: Longest time without a result, and before that until the node has the instruction, s; None waits
                forever.
            camera: Name of the camera whose images are meant, if the node has several.
            tracked: Yield one for every image instead, to which the node has carried the newest answer. Its parameter
                track_rate_hz must be set.

        Raises:
            PerceptionError: The node did not receive the instruction or there was no result in time, the result is an
                error or malformed, or masks are not carried.
        """
        newest: queue.Queue[Any] = queue.Queue(maxsize=1)
        uncarried_s: list[float] = []  # time.monotonic() of each answer since the last message of carried masks

        def replace_newest(message: Any) -> None:
            with suppress(queue.Empty):
                newest.get_nowait()
            newest.put_nowait(message)

        def on_answer(message: Any) -> None:
            if message.instruction != instruction:
                return
            if not tracked or message.status == InstanceArray.STATUS_ERROR:
                replace_newest(message)
                return
            uncarried_s.append(time.monotonic())
            if len(uncarried_s) > MOST_UNCARRIED and uncarried_s[-1] - uncarried_s[0] > UNCARRIED_S:
                replace_newest(PerceptionError(f'/{self._name} does not carry masks: set its parameter track_rate_hz'))

        def on_carried(message: Any) -> None:
            if message.result.instruction == instruction:
                uncarried_s.clear()
                replace_newest(message)

        subscribe = self._node.create_subscription
        prefix = f'/{self._name}/{camera}/' if camera else f'/{self._name}/'
        with self._goals.in_use():
            subscriptions = [subscribe(InstanceArray, f'{prefix}instances', on_answer, 10)]
            if tracked:
                subscriptions.append(subscribe(TrackedInstanceArray, f'{prefix}tracked/instances', on_carried, 10))
        try:
            self._publish(instruction, timeout)
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

    def stop(self, timeout: float = 5.0) -> None:
        """End the instruction of watch(), or of any other program.

        Args:
            timeout: Longest time until the node is discovered, and then until it has received the message, s.

        Raises:
            PerceptionError: The node did not receive it in time, or the client is closed.
        """
        self._publish('', timeout)

    def _publish(self, instruction: str, timeout: float | None) -> None:
        """Publish an instruction and return once the node has received it.

        The message would be lost with this client if that was closed before the node has discovered its publisher, or
        before the middleware has sent it.
        """
        limit_s = float('inf') if timeout is None else timeout
        with self._goals.in_use():
            topic = self._instruction.topic_name
            if not self._goals.wait(self._wait_until_read, limit_s):
                raise PerceptionError(
                    f'/{self._name} does not read instructions on {topic}: start it, or check its name and '
                    'instruction_topic'
                )
            self._instruction.publish(String(data=instruction))
            if not self._goals.wait(self._wait_until_received, limit_s):
                raise PerceptionError(
                    f'/{self._name} has not confirmed the instruction within {limit_s:g} s: it, or another reader of '
                    f'{topic}, is stuck or has just died; try again'
                )

    def _wait_until_read(self, seconds: float) -> bool:
        """Wait until the node's subscriptions are matched, for at most `seconds`; return whether they are.

        Subscriptions of other nodes do not count: a recorder may be discovered first.
        """
        end_s = time.monotonic() + seconds
        reader = split_name(self._name)
        while True:
            readers = self._node.get_subscriptions_info_by_topic(self._instruction.topic_name)
            count = sum((each.node_name, each.node_namespace) == reader for each in readers)
            if 0 < count <= self._instruction.get_subscription_count():
                return True
            if time.monotonic() >= end_s:
                return False
            time.sleep(POLL_S)

    def _wait_until_received(self, seconds: float) -> bool:
        return self._instruction.wait_for_all_acked(Duration(seconds=seconds))

    def close(self) -> None:
        """Stop the thread and leave ROS; calls in other threads, and later ones, end with a PerceptionError."""
        self._goals.close()

    def __enter__(self) -> 'Perception':
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _next_message(self, messages: 'queue.Queue[Any]', timeout: float | None) -> Any:
        end_s = float('inf') if timeout is None else time.monotonic() + timeout
        while True:
            try:
                return messages.get(timeout=STEP_S)
            except queue.Empty:
                self._goals.raise_if_closed()
                if time.monotonic() > end_s:
                    raise PerceptionError(f'no result of /{self._name} for {timeout:g} s') from None


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

"""Asking the perception node from Python, without a thought about ROS: `Perception().find('the mug by the sink')`.

with Perception() as perception:
    for mug in perception.find('the mugs', timeout=5.0):     # best score first
        mug.mask, mug.score, mug.center                      # [H, W] bool, 0 to 1, [3] m
"""

import queue
import threading
import time
import uuid
from contextlib import contextmanager, suppress
from dataclasses import dataclass

import numpy as np
import rclpy
from action_msgs.msg import GoalStatus
from rclpy.action import ActionClient
from rclpy.executors import SingleThreadedExecutor
from rclpy.signals import SignalHandlerOptions
from scipy.spatial.transform import Rotation
from std_msgs.msg import String

from instructsam_ros.action import Segment
from instructsam_ros.conversions.instances import rle_from_msg
from instructsam_ros.conversions.point_clouds import read_cloud
from instructsam_ros.msg import InstanceArray
from instructsam_ros.node import qos

GRACE_S = 2.0  # beyond a time limit, for the node to say itself that it is over
ASK_AGAIN_S = 1.0
STEP_S = 0.2  # waits are cut so, for Ctrl-C


class PerceptionError(RuntimeError):
    """There is no answer; the message says why. 'Nothing matches' is none: that is an empty Found."""


@dataclass(frozen=True, eq=False)
class Instance:
    """One object. What is in 3D is in the frame `Found.frame_id`, and None where it was not measured."""

    mask: np.ndarray  # [H, W] bool, of the image
    score: float  # 0 to 1
    phrase: str  # the noun phrase that it was found by
    track_id: int  # the same for the same object over time; -1: ids are not kept
    center: np.ndarray | None = None  # [3] m, of its box
    rotation: np.ndarray | None = None  # [3, 3], columns: length, width, height away from the support
    size_m: np.ndarray | None = None  # [3], of its box along these
    points: np.ndarray | None = None  # [N, 3] m, on its visible surface; only from find()
    why_not: str = ''  # there is nothing in 3D


@dataclass(frozen=True, eq=False)
class Found:
    """The answer about one image: a sequence of Instance, best score first, empty where nothing matches."""

    instances: tuple[Instance, ...]
    message: InstanceArray  # as it came: header, answer, times

    @property
    def frame_id(self):
        """Frame of what is in 3D; '' where nothing was measured, see message.geometry_message."""
        return self.message.geometry_frame_id

    @property
    def stamp_s(self):
        """When the image was taken, s."""
        return self.message.header.stamp.sec + self.message.header.stamp.nanosec * 1e-9

    def __len__(self):
        return len(self.instances)

    def __iter__(self):
        return iter(self.instances)

    def __getitem__(self, index):
        return self.instances[index]


class Perception:
    """One perception node as a person talks to it. Has its own ROS context and thread: usable in any program, also
    within callbacks of other nodes, and from several threads. Close it, or use it as a context manager.
    """

    def __init__(self, node='perception', instruction_topic='instruction'):
        """`node` is the name of the perception node, with its namespace where it has one."""
        self._context = rclpy.Context()
        rclpy.init(context=self._context, signal_handler_options=SignalHandlerOptions.NO)
        self._node = rclpy.create_node(f'perception_client_{uuid.uuid4().hex[:8]}', context=self._context)
        self._name = node.strip('/')
        self._is_closed = False
        self._changed = threading.Condition()  # guards the next
        self._questions = 0  # that wait for their answer
        self._action = ActionClient(
            self._node,
            Segment,
            f'/{self._name}/segment',
            goal_service_qos_profile=qos.ACTION,
            result_service_qos_profile=qos.ACTION,
            cancel_service_qos_profile=qos.ACTION,
            feedback_sub_qos_profile=qos.ACTION,
        )
        self._instruction = self._node.create_publisher(String, instruction_topic, qos.LATCHED)
        self._executor = SingleThreadedExecutor(context=self._context)
        self._executor.add_node(self._node)
        self._thread = threading.Thread(target=self._spin, daemon=True)
        self._thread.start()

    def find(
        self,
        instruction,
        timeout=5.0,
        *,
        fresh='newest',
        score_threshold=0.0,
        camera='',
        image=None,
        depth=None,
        camera_info=None,
        on_stage=None,
    ):
        """What `instruction` names, a Found.

        timeout: s, from now to the answer. fresh: 'newest' (the newest image), 'next' (the first that comes after the
        question), or the stamp of an image (builtin_interfaces/Time). score_threshold: 0 is the node's own. camera: its
        name, where the node has several. image, depth, camera_info: sensor_msgs to ask about in place of a camera's.
        on_stage: called with the stage's name whenever a new one begins, in another thread.

        Raises PerceptionError: there is no such node, the time is over, the node says why it cannot answer.
        """
        end_s = time.monotonic() + timeout
        if not self._wait(self._action.wait_for_server, timeout):
            raise PerceptionError(f'there is no node /{self._name} with an action segment: start it, or check its name')
        goal = Segment.Goal(
            instruction=instruction,
            camera=camera,
            score_threshold=float(score_threshold),
            points=True,
            timeout_s=max(0.001, end_s - time.monotonic()),
        )
        if isinstance(fresh, str):
            if fresh not in ('newest', 'next'):
                raise ValueError(f"fresh is 'newest', 'next' or a stamp, got {fresh!r}")
            goal.freshness = Segment.Goal.NEXT if fresh == 'next' else Segment.Goal.NEWEST
        else:
            goal.freshness, goal.stamp = Segment.Goal.STAMP, fresh
        for name, value in (('image', image), ('depth', depth), ('camera_info', camera_info)):
            if value is not None:
                setattr(goal, name, value)
        told = (lambda feedback: on_stage(feedback.feedback.stage)) if on_stage else None
        with self._question():
            handle = self._answer(lambda: self._action.send_goal_async(goal, told), end_s + GRACE_S)
            try:
                response = self._answer(handle.get_result_async, end_s + GRACE_S)
            except BaseException:  # nobody will fetch the answer, so the node need not work on it
                handle.cancel_goal_async()
                raise
        if response.status != GoalStatus.STATUS_SUCCEEDED:
            raise PerceptionError(response.result.answer.message or 'the goal was not served')
        return _found(response.result.answer, response.result.points)

    def watch(self, instruction, timeout=None):
        """Yields a Found for every image that the node answers, from now on.

        The node is told `instruction` over its topic, which stays after the loop; `stop()` ends it. Results that are
        not looked at in time are left out: the next one is always the newest. timeout: s without a result until
        PerceptionError; None: waits for ever. Results that are errors raise PerceptionError, too.
        """
        newest = queue.Queue(maxsize=1)

        def keep(message):
            if message.instruction == instruction:
                with suppress(queue.Empty):
                    newest.get_nowait()
                newest.put_nowait(message)

        subscription = self._node.create_subscription(InstanceArray, f'/{self._name}/instances', keep, 10)
        try:
            self._instruction.publish(String(data=instruction))
            while True:
                message = self._newest(newest, timeout)
                if message.status == InstanceArray.STATUS_ERROR:
                    raise PerceptionError(message.message)
                yield _found(message)
        finally:
            self._node.destroy_subscription(subscription)

    def stop(self):
        """Takes back the instruction of `watch`."""
        self._instruction.publish(String(data=''))

    def close(self):
        """Ends the thread and leaves ROS; questions of other threads end in PerceptionError."""
        if self._is_closed:
            return
        self._is_closed = True
        with self._changed:  # they cancel their goals first
            self._changed.wait_for(lambda: not self._questions, GRACE_S)
        self._executor.shutdown()
        self._thread.join()
        self._action.destroy()
        self._node.destroy_node()
        self._context.try_shutdown()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def _spin(self):
        with suppress(rclpy.executors.ExternalShutdownException, rclpy.executors.ShutdownException):
            self._executor.spin()

    def _newest(self, messages, timeout):
        end_s = time.monotonic() + timeout if timeout is not None else float('inf')
        while True:
            try:
                return messages.get(timeout=STEP_S)
            except queue.Empty:
                self._check()
                if time.monotonic() > end_s:
                    raise PerceptionError(f'no result of /{self._name} for {timeout:g} s') from None

    @contextmanager
    def _question(self):
        with self._changed:
            self._questions += 1
        try:
            yield
        finally:
            with self._changed:
                self._questions -= 1
                self._changed.notify_all()

    def _check(self):
        if self._is_closed:
            raise PerceptionError('the client was closed')

    def _wait(self, waits, timeout):
        """Whether `waits(timeout)` came true in time; in steps."""
        end_s = time.monotonic() + timeout
        while not waits(max(0.0, min(STEP_S, end_s - time.monotonic()))):
            self._check()
            if time.monotonic() >= end_s:
                return False
        return True

    def _answer(self, ask, end_s):
        """What the future of `ask()` gives. Asked again, ever more patiently, where nothing comes: the first response
        of a server to a new client is lost where the two ends have not matched yet.
        """
        done, futures, patience_s = threading.Event(), [], ASK_AGAIN_S
        while not done.is_set() and time.monotonic() < end_s:
            futures.append(ask())
            futures[-1].add_done_callback(lambda _: done.set())
            self._wait(done.wait, min(patience_s, end_s - time.monotonic()))
            patience_s *= 2
        answered = next((future for future in futures if future.done()), None)
        if answered is None:
            raise PerceptionError(f'/{self._name} does not answer: it may have ended')
        return answered.result()


def _found(message, cloud=None):
    """`cloud` as in the result of the action."""
    points, owners = read_cloud(cloud) if cloud is not None and len(cloud.data) else (None, None)
    return Found(
        tuple(
            _instance(each, None if points is None else points[owners == index])
            for index, each in enumerate(message.instances)
        ),
        message,
    )


def _instance(message, points):
    mask = rle_from_msg(message.mask).decode()
    common = {'mask': mask, 'score': message.score, 'phrase': message.phrase, 'track_id': message.track_id}
    if not message.has_geometry:
        return Instance(**common, why_not=message.geometry_message)
    pose, size = message.geometry.pose, message.geometry.size
    turn = pose.orientation
    return Instance(
        **common,
        center=np.array([pose.position.x, pose.position.y, pose.position.z]),
        rotation=Rotation.from_quat([turn.x, turn.y, turn.z, turn.w]).as_matrix(),
        size_m=np.array([size.x, size.y, size.z]),
        points=points,
    )

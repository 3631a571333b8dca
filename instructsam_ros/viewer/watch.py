"""Listens to a running node: its answers, and with Rerun also the images, depth and camera infos that it reads."""

import argparse
import math
import sys
from collections import deque
from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial
from typing import Any

from rclpy.serialization import deserialize_message
from sensor_msgs.msg import CameraInfo, CompressedImage, Image, PointCloud2
from std_msgs.msg import String

from instructsam.core import exit_codes
from instructsam.core.atomic_write import check_path
from instructsam.core.errors import InstructSAMError
from instructsam.core.storage import explained_storage_faults
from instructsam.core.text import one_line
from instructsam_ros.conversions.depth import is_depth_message
from instructsam_ros.conversions.stamps import nanoseconds
from instructsam_ros.dds import check_environment
from instructsam_ros.msg import InstanceArray
from instructsam_ros.node import qos
from instructsam_ros.own_node import OwnNode, default_instruction_topic, split_name
from instructsam_ros.viewer.answers import AnswerLog, Role, Topic
from instructsam_ros.viewer.labels import describe
from instructsam_ros.viewer.sinks import FileSink, sink_of

PATIENCE_S = 5.0  # time that the node has to be discovered, and then the first image to come
LOOK_S = 1.0  # between two looks at the topics that the node reads, which it subscribes to when it is activated
LINGER_S = 0.5  # after the last answer, for the points and the depth of its image
TYPES: dict[str, Any] = {
    'sensor_msgs/msg/Image': Image,
    'sensor_msgs/msg/CompressedImage': CompressedImage,
    'sensor_msgs/msg/CameraInfo': CameraInfo,
}


def watch(args: argparse.Namespace) -> int:
    """Print the answers of a node, and show them in Rerun if the arguments say so; return exit code 0.

    Raises:
        InstructSAMError: There is no such node, it does not answer in time, or the recording cannot be continued.
    """
    sink = None if args.rerun is None else sink_of(args.rerun)
    with ExitStack() as stack:
        log = None
        if sink is not None:
            # Rerun is not needed to print lines, and is large.
            from instructsam_ros.viewer.recording import Recording  # noqa: PLC0415

            if isinstance(sink, FileSink):
                check_path(sink.path)
                stack.enter_context(explained_storage_faults(sink.path))
            log = AnswerLog(stack.enter_context(Recording(sink)))
        listener = stack.enter_context(AnswerListener(args.node, args.camera or '', args.topic or '', log))
        listener.wait_for_node()
        if args.instruction is not None:
            listener.instruct(args.instruction, args.instruction_topic or default_instruction_topic(args.node))
        print(f'watching {listener.answers_topic}', file=sys.stderr, flush=True)
        noted = 0
        for number, message in enumerate(listener.answers(args.timeout), 1):
            print(one_line(f'{nanoseconds(message.header.stamp) * 1e-9:.3f} s {describe(message)}'), flush=True)
            if number == args.count:
                listener.linger()
            notes = list(log.notes) if log is not None else []
            for note in notes[noted:]:
                print(one_line(note), file=sys.stderr)
            noted = len(notes)
            if number == args.count:
                break
    return exit_codes.DONE


class AnswerListener:
    """Receives the answers of a node with a ROS node of its own; a context manager.

    Args:
        node: Name of the node, including its namespace.
        camera: Name of the camera, if the node has several.
        image_topic: Topic of the colour images; '': found among the topics that the node reads.
        log: Shows the answers, and what they are about; None: only answers are received.
    """

    def __init__(self, node: str, camera: str, image_topic: str, log: AnswerLog | None) -> None:
        check_environment()
        self._base, self._namespace = split_name(node)
        self._name, self._camera = f'/{node.strip("/")}', camera
        self._image_topic = f'/{image_topic.lstrip("/")}' if image_topic else ''
        prefix = f'{self._name}/{camera}'.rstrip('/')
        self.answers_topic = f'{prefix}/instances'
        self._log = log
        self._instruction: str | None = None  # of the answers that are wanted; None: of all
        self._answers: deque[InstanceArray] = deque()
        self._is_ready = False  # answers are received
        self._has_image = False
        self._known: set[str] = set()  # topics that are subscribed to
        self._ros = OwnNode('instructsam_watch')
        self._node = self._ros.node
        self._publishers: list[Any] = []
        self._node.create_subscription(InstanceArray, self.answers_topic, self._on_answer, 10, raw=True)
        if log is not None:
            log.add_topic(Topic(self.answers_topic, Role.ANSWER, InstanceArray))
            self._subscribe(Topic(f'{prefix}/points', Role.POINTS, PointCloud2), 5)
            self._node.create_timer(LOOK_S, self._look)

    def wait_for_node(self) -> None:
        """Wait until the node is discovered and, to show it, its first image has come; answers before that are dropped.

        A camera that is silent is waited for no longer than PATIENCE_S.

        Raises:
            InstructSAMError: It is not, in PATIENCE_S.
        """
        if not self._ros.spin(PATIENCE_S, lambda: self._node.count_publishers(self.answers_topic)):
            raise InstructSAMError(
                f'{self.answers_topic} has no publisher: start the node, or check its name, --camera, and that '
                f'ROS_DOMAIN_ID and the discovery range are the same here (instructsam doctor --node {self._name} '
                'says more)'
            )
        if self._log is not None:
            self._ros.spin(PATIENCE_S, self._look_for_image)
        self._is_ready = True

    def instruct(self, instruction: str, topic: str) -> None:
        """Publish an instruction; answers to others are not wanted any more."""
        self._instruction = instruction
        publisher = self._node.create_publisher(String, topic, qos.LATCHED)
        self._publishers.append(publisher)  # the node receives it once it has discovered the publisher
        publisher.publish(String(data=instruction))

    def answers(self, timeout_s: float | None = None) -> Iterator[InstanceArray]:
        """Yield answers as they come.

        Raises:
            InstructSAMError: There was none for `timeout_s`.
        """
        patience_s = math.inf if timeout_s is None else timeout_s
        while self._ros.spin(patience_s, lambda: self._answers):
            while self._answers:
                yield self._answers.popleft()
        raise InstructSAMError(
            f'no answer on {self.answers_topic} for {patience_s:g} s: does the node have an instruction and '
            f'images? instructsam doctor --node {self._name} says more'
        )

    def linger(self) -> None:
        """Receive what belongs to answers that have been received."""
        if self._log is not None:
            self._ros.spin(LINGER_S)

    def _on_answer(self, data: bytes) -> None:
        message = deserialize_message(data, InstanceArray)
        if self._is_ready and self._instruction in (None, message.instruction):
            self._answers.append(message)
            if self._log is not None:
                self._log.put(self.answers_topic, data)

    def _look_for_image(self) -> bool:
        """Return whether an image has come; subscribe to what the node reads: its topics are discovered one by one."""
        self._look()
        return self._has_image

    def _look(self) -> None:
        """Subscribe to the images, depth and camera infos that the node reads."""
        for name, types in self._topics_of_node():
            kind = next((TYPES[each] for each in types if each in TYPES), None)
            if kind is CameraInfo:
                self._subscribe(Topic(name, Role.CAMERA_INFO, CameraInfo), qos.CAMERA_INPUT)
            elif kind is not None and name not in self._known:
                self._known.add(name)
                on_image = partial(self._on_image, name, kind)
                self._node.create_subscription(kind, name, on_image, qos.CAMERA_INPUT, raw=True)

    def _topics_of_node(self) -> list[tuple[str, list[str]]]:
        """Return the topics of the camera that the node reads, with their types."""
        topics = self._ros.subscriptions_of(self._base, self._namespace)
        if self._camera:
            topics = [(name, types) for name, types in topics if f'/{self._camera}/' in name]
        if self._image_topic:
            topics += [each for each in self._node.get_topic_names_and_types() if each[0] == self._image_topic]
        return topics

    def _subscribe(self, topic: Topic, profile: Any) -> None:
        if topic.name not in self._known and self._log is not None:
            self._known.add(topic.name)
            self._log.add_topic(topic)
            on_message = partial(self._log.put, topic.name)
            self._node.create_subscription(topic.type, topic.name, on_message, profile, raw=True)

    def _on_image(self, name: str, kind: Any, data: bytes) -> None:
        """Show an image; the first one of a topic tells whether they are depth."""
        if self._log is None:
            return
        if not self._log.has_topic(name):
            message = deserialize_message(data, kind)
            is_depth = name != self._image_topic if self._image_topic else is_depth_message(message)
            self._has_image |= not is_depth
            self._log.add_topic(Topic(name, Role.DEPTH if is_depth else Role.IMAGE, kind))
        self._log.put(name, data)

    def __enter__(self) -> 'AnswerListener':
        return self

    def __exit__(self, *_: object) -> None:
        self._ros.close()

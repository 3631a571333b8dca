"""The images of a camera that a running node reads."""

from __future__ import annotations

import threading
import time
from contextlib import suppress
from typing import Any

import rclpy
from rclpy.context import Context
from rclpy.executors import ExternalShutdownException, ShutdownException, SingleThreadedExecutor
from rclpy.signals import SignalHandlerOptions
from sensor_msgs.msg import CompressedImage, Image

from instructsam.core.errors import InstructSAMError
from instructsam_ros.dds import check_environment
from instructsam_ros.node import qos

TYPES: dict[str, Any] = {'sensor_msgs/msg/Image': Image, 'sensor_msgs/msg/CompressedImage': CompressedImage}
DEPTH_ENCODINGS = ('16UC1', '32FC1')
LOOK_S = 1.0  # between two looks at the topics of the node, which subscribes when it is activated


class CameraImages:
    """Receives the images of a camera that a node reads, so that the page shows them without asking the node.

    It finds the topic among the subscriptions of the node. If these hold images of several cameras, one must be chosen:
    masks on the image of another camera would be wrong.

    Args:
        node: Name of the node, including its namespace.
        camera: Name of the camera, if the node has several, which is part of its topics' names.
        topic: Topic of the images; '': found among the subscriptions of the node.
        patience_s: How long to wait for the node.

    Raises:
        InstructSAMError: There is no such node.
    """

    def __init__(self, node: str, camera: str, topic: str, patience_s: float) -> None:
        check_environment()
        namespace, _, self._base = f'/{node.strip("/")}'.rpartition('/')
        self._namespace = namespace or '/'
        self._camera, self._topic = camera, topic
        self._newest: dict[str, Image | CompressedImage] = {}  # by topic
        self._context = Context()
        rclpy.init(context=self._context, signal_handler_options=SignalHandlerOptions.NO)
        # Any: most methods of rclpy's Node are not annotated.
        self._node: Any = rclpy.create_node('instructsam_web', context=self._context)
        self._executor = SingleThreadedExecutor(context=self._context)
        self._executor.add_node(self._node)
        self._subscribed: set[str] = set()
        self._thread = threading.Thread(target=self._spin, daemon=True)
        try:
            self._wait_for_node(patience_s)
        except BaseException:
            self.close()
            raise
        self._look()
        self._node.create_timer(LOOK_S, self._look)
        self._thread.start()

    def newest(self) -> Image | CompressedImage:
        """Return the newest message of the camera.

        Raises:
            InstructSAMError: There is none yet, or it is not clear which camera is meant.
        """
        messages = dict(self._newest)
        part = f'/{self._camera}/' if self._camera and not self._topic else ''
        topics = [topic for topic in sorted(messages) if part in topic]
        if len(topics) > 1:
            raise InstructSAMError(
                f'the node reads images of {", ".join(topics)}: choose one with --camera or --image-topic'
            )
        if not topics:
            heard = ', '.join(sorted(self._subscribed)) or 'none: is the node active?'
            raise InstructSAMError(f'there is no image of the camera yet; topics of images: {heard}')
        return messages[topics[0]]

    def close(self) -> None:
        """Leave ROS."""
        self._executor.shutdown()
        if self._thread.ident is not None:
            self._thread.join()
        self._node.destroy_node()
        self._context.try_shutdown()

    def _spin(self) -> None:
        with suppress(ExternalShutdownException, ShutdownException):
            self._executor.spin()

    def _wait_for_node(self, patience_s: float) -> None:
        end_s = time.monotonic() + patience_s
        names = self._node.get_node_names_and_namespaces
        while (self._base, self._namespace) not in names():
            if time.monotonic() > end_s:
                name = f'{self._namespace.rstrip("/")}/{self._base}'
                raise InstructSAMError(
                    f'there is no node {name}: start it, or check its name and that ROS_DOMAIN_ID and the discovery '
                    f'range are the same here (instructsam doctor --node {name} says more)'
                )
            self._executor.spin_once(0.05)

    def _look(self) -> None:
        """Subscribe to the images that the node reads."""
        for topic, types in self._of_node():
            kind = next((TYPES[name] for name in types if name in TYPES), None)
            if kind is not None and topic not in self._subscribed:
                self._subscribed.add(topic)
                self._node.create_subscription(
                    kind, topic, lambda message, topic=topic: self._keep(topic, message), qos.CAMERA_INPUT
                )

    def _of_node(self) -> list[tuple[str, list[str]]]:
        """Return the topics that may hold images, with their types."""
        if self._topic:
            topic = f'/{self._topic.lstrip("/")}'
            return [(name, types) for name, types in self._node.get_topic_names_and_types() if name == topic]
        try:
            return self._node.get_subscriber_names_and_types_by_node(self._base, self._namespace)
        except Exception:  # rclpy raises NodeNameNonExistentError, or RuntimeError: the node has ended since
            return []

    def _keep(self, topic: str, message: Image | CompressedImage) -> None:
        kind = message.format if isinstance(message, CompressedImage) else message.encoding
        is_depth = kind in DEPTH_ENCODINGS or 'compressedDepth' in kind
        if not is_depth or self._topic:
            self._newest[topic] = message

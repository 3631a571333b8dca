"""The images of a camera that a running node reads."""

from __future__ import annotations

from typing import Any

from sensor_msgs.msg import CompressedImage, Image

from instructsam.core.errors import InstructSAMError
from instructsam_ros.conversions.depth import is_depth_message
from instructsam_ros.dds import check_environment
from instructsam_ros.node import qos
from instructsam_ros.own_node import OwnNode, split_name

TYPES: dict[str, Any] = {'sensor_msgs/msg/Image': Image, 'sensor_msgs/msg/CompressedImage': CompressedImage}
LOOK_S = 1.0  # interval at which the node's topics are looked up: it subscribes when it is activated


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
        self._base, self._namespace = split_name(node)
        self._camera, self._topic = camera, topic
        self._newest: dict[str, Image | CompressedImage] = {}  # topic -> newest message
        self._ros = OwnNode('instructsam_web')
        self._node = self._ros.node
        self._subscribed: dict[str, Any] = {}  # topic -> subscription
        try:
            self._wait_for_node(patience_s)
        except BaseException:
            self.close()
            raise
        self._look()
        self._node.create_timer(LOOK_S, self._look)
        self._ros.start_thread()

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
        self._ros.close()

    def _wait_for_node(self, patience_s: float) -> None:
        names = self._node.get_node_names_and_namespaces
        if not self._ros.spin(patience_s, lambda: (self._base, self._namespace) in names()):
            name = f'{self._namespace.rstrip("/")}/{self._base}'
            raise InstructSAMError(
                f'there is no node {name}: start it, or check its name and that ROS_DOMAIN_ID and the discovery '
                f'range are the same here (instructsam doctor --node {name} says more)'
            )

    def _look(self) -> None:
        """Subscribe to the images that the node reads, and drop those that it no longer reads.

        Runs in the executor's thread, where subscriptions are destroyed (see OwnNode.run_soon).
        """
        read = dict(self._of_node())
        for topic, types in read.items():
            kind = next((TYPES[name] for name in types if name in TYPES), None)
            if kind is not None and topic not in self._subscribed:
                self._subscribed[topic] = self._node.create_subscription(
                    kind, topic, lambda message, topic=topic: self._keep(topic, message), qos.CAMERA_INPUT
                )
        if not read:  # The node has ended, and may come back: a node that can be reached reads instructions.
            return
        for topic in self._subscribed.keys() - read.keys():
            self._node.destroy_subscription(self._subscribed.pop(topic))
            self._newest.pop(topic, None)

    def _of_node(self) -> list[tuple[str, list[str]]]:
        """Return the topics that may hold images, with their types."""
        if self._topic:
            topic = f'/{self._topic.lstrip("/")}'
            return [(name, types) for name, types in self._node.get_topic_names_and_types() if name == topic]
        return self._ros.subscriptions_of(self._base, self._namespace)

    def _keep(self, topic: str, message: Image | CompressedImage) -> None:
        if self._topic or not is_depth_message(message):
            self._newest[topic] = message

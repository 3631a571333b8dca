"""Messages to the running node over DDS: images, depth, camera infos, instructions, transforms, bytes that are no CDR.

After each example a valid image must be answered as ever, the log must be clean, and the node's memory bounded.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any, ClassVar

from harness.example import Example
from harness.messages import change_message, image_message
from harness.mutations import BYTE_OPERATIONS, change_bytes, changes
from harness.running_node import NodeTarget, RunningNode, camera_info
from harness.target import ACCEPTED, Verdict
from hypothesis import strategies as st

COLOR = ('image rgb8', 'image bgr8', 'image mono16', 'image yuv422', 'image nv12', 'image bayer_rggb8', 'image 16UC1')
COMPRESSED = ('compressed jpeg', 'compressed png')
DEPTH = ('depth 16UC1', 'depth 32FC1')
OTHERS = ('camera_info', 'camera_info', 'instruction', 'frame')
HAS_TF2 = importlib.util.find_spec('tf2_msgs') is not None  # the ROS wheels of PyPI lack it


class Messages(NodeTarget):
    """Messages on the topics that the node subscribes to."""

    name: ClassVar[str] = 'messages'
    time_limit_s: ClassVar[float] = 60.0
    memory_mb: ClassVar[int] = 1000

    def examples(self) -> st.SearchStrategy[Example]:
        """Return the strategy: a message, changed, and how often and whether as bytes it is sent."""
        options = st.fixed_dictionaries(
            {'times': st.sampled_from([1, 1, 1, 5]), 'raw': st.sampled_from([False, False, True])}
        )
        seed = st.sampled_from((*COLOR, *COMPRESSED, *DEPTH, *OTHERS, *(['tf'] if HAS_TF2 else [])))
        return st.builds(Example, seed, changes(files=False).map(tuple), options)

    def open(self, folder: Path) -> None:
        """Prepare two nodes, for raw and for compressed images, which start when they are needed."""
        self._raw = RunningNode(memory_mb=self.memory_mb)
        self._compressed = RunningNode('image_transport:=compressed', memory_mb=self.memory_mb)
        self._node = self._raw
        self._publishers: dict[tuple[int, str], Any] = {}

    def begin(self, example: Example) -> None:
        """Select the node."""
        self._node = self._compressed if example.seed in COMPRESSED else self._raw
        self._node.begin()

    def run(self, example: Example, folder: Path) -> Verdict:
        """Send the messages, then a valid image."""
        for topic, message in self._messages(example):
            publisher = self._publisher(topic, type(message))
            data: Any = message
            if example.options['raw']:
                data = _serialized(message, example)
            for _ in range(example.options['times']):
                publisher.publish(data)
        self._restore(example)
        self._node.probe()
        self._node.check()
        return self._verdict()

    def _verdict(self) -> Verdict:
        """Return what became of the messages: a result, a result that is an error, or none."""
        answers = [each for each in self._node.robot.results if not self._node.is_probe(each)]
        errors = [each.message for each in answers if each.status == each.STATUS_ERROR]
        if errors:
            return Verdict('refused', 'a result with an error', errors[0])
        return ACCEPTED if answers else Verdict('refused', 'no result')

    def _messages(self, example: Example) -> list[tuple[str, Any]]:
        """Return (topic, message) in order."""
        kind, _, encoding = example.seed.partition(' ')
        stamp = self._node.stamp + 1
        self._node.stamp = stamp
        info = _stamped(camera_info(), stamp)
        depth = _stamped(image_message('16UC1', is_depth=True), stamp)
        image = _stamped(image_message('png' if self._node.is_compressed else 'rgb8'), stamp)
        image_topic = 'image/compressed' if self._node.is_compressed else 'image'
        if kind == 'instruction':
            from std_msgs.msg import String

            return [('instruction', change_message(String(data='the red thing'), example.changes))]
        if kind == 'tf':
            return [('/tf', change_message(_transforms(), example.changes))]
        if kind == 'frame':  # all three are changed alike
            return [
                ('camera_info', change_message(info, example.changes)),
                ('depth', change_message(depth, example.changes)),
                (image_topic, change_message(image, example.changes)),
            ]
        if kind == 'camera_info':
            return [('camera_info', change_message(info, example.changes)), ('depth', depth), (image_topic, image)]
        if kind == 'depth':
            changed = change_message(_stamped(image_message(encoding, is_depth=True), stamp), example.changes)
            return [('camera_info', info), ('depth', changed), (image_topic, image)]
        changed = change_message(_stamped(image_message(encoding), stamp), example.changes)
        return [('camera_info', info), ('depth', depth), (image_topic, changed)]

    def _publisher(self, topic: str, cls: type) -> Any:
        robot = self._node.robot
        known = {
            'image': robot._image,
            'image/compressed': robot._compressed,
            'depth': robot._depth,
            'camera_info': robot._info,
            'instruction': robot._instruction,
        }
        if topic in known:
            return known[topic]
        key = (id(robot), topic)
        if key not in self._publishers:
            self._publishers[key] = robot.node.create_publisher(cls, topic, 10)
        return self._publishers[key]

    def _restore(self, example: Example) -> None:
        """Set the instruction again that the probe expects."""
        if example.seed == 'instruction':
            self._node.robot.say('the red and the green thing')

    def close(self) -> None:
        """End the nodes."""
        self._raw.stop()
        self._compressed.stop()


def _serialized(message: Any, example: Example) -> bytes:
    """Return the serialized message with the changes of bytes."""
    from rclpy.serialization import serialize_message

    data = serialize_message(message)
    for change in example.changes:
        if change.operation in BYTE_OPERATIONS:
            data = change_bytes(data, change)
    return data


def _stamped(message: Any, stamp: int) -> Any:
    message.header.stamp.sec = stamp
    return message


def _transforms() -> Any:
    from geometry_msgs.msg import TransformStamped
    from tf2_msgs.msg import TFMessage

    transform = TransformStamped(child_frame_id='camera_color_optical_frame')
    transform.header.frame_id = 'world'
    transform.header.stamp.sec = 100
    transform.transform.rotation.w = 1.0
    return TFMessage(transforms=[transform])


TARGET = Messages()

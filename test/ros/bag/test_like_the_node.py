"""The built-in model on a bag: `instructsam bag annotate` and the node, to which it is replayed, agree."""

import sys
from pathlib import Path

import cv2
import pytest

pytest.importorskip('rclpy', reason='needs ROS 2 or its wheels')

from bags import only_results, run, without_times, write
from rclpy.serialization import deserialize_message
from rosbags.rosbag2 import Reader
from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from std_msgs.msg import String

from instructsam_ros.bag.recordings import open_recording
from instructsam_ros.conversions.depth import to_depth
from instructsam_ros.conversions.images import to_rgb
from instructsam_ros.conversions.instances import depth_msg
from instructsam_ros.simulation import replay_node

TABLE = Path(replay_node.__file__).parents[1] / 'data/tabletop_bag'
LOADING_S = 120.0  # longest time to load the model, on a machine under load


def small_table(frames):
    """Yield the first images of the bag of a rendered table, with their depth and camera info.

    At half their size fewer images are lost in DDS. Each image follows the messages that belong to it, so that the
    player may wait before an image.
    """
    kinds = {'CompressedImage': CompressedImage, 'CameraInfo': CameraInfo, 'Image': Image}
    with Reader(TABLE) as reader:
        for connection, time_ns, data in reader.messages():
            ms, kind = (time_ns - reader.start_time) // 1_000_000, kinds.get(connection.msgtype.split('/')[-1])
            if kind is None or ms >= 100 * frames:
                continue
            message = deserialize_message(data, kind)
            if kind is CompressedImage:
                pixels = cv2.resize(to_rgb(message), None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
                content = cv2.imencode('.png', pixels[..., ::-1])[1].tobytes()
                yield ms + 2, '/image/compressed', CompressedImage(header=message.header, format='png', data=content)
            elif kind is Image:
                yield ms + 1, '/depth', depth_msg(to_depth(message)[::2, ::2], message.header)
            else:
                message.height, message.width, message.k = message.height // 2, message.width // 2, message.k / 2
                message.k[8] = 1
                yield ms, '/camera_info', message


class UntilAnswered:
    """Stop event for replay_node.Player that waits for the answer to the previous image instead of for the next one.

    The node then receives every image. `expected` are the InstanceArrays of the bag.
    """

    def __init__(self, robot, expected):
        self.sent = lambda: 0  # number of images sent
        self._robot, self._expected = robot, expected

    def wait(self, seconds):
        self._robot.wait(lambda: len(self.answers()) == self.sent())
        return False

    def answers(self):
        """Return the answers to the same queries; the node also answers a new instruction on the image before it."""
        found = {self._query(message): message for message in self._robot.results}
        return [found[key] for key in map(self._query, self._expected) if key in found]

    @staticmethod
    def _query(message):
        return message.header.stamp.sec, message.header.stamp.nanosec, message.instruction_id


def test_the_node_gives_the_same_results(tmp_path, robot):
    """Compare masks, scores, geometry, ids and messages, but not times. The instruction changes halfway."""
    source = write(
        tmp_path / 'in',
        'mcap',
        [
            *small_table(4),
            (0, '/instruction', String(data='the apples')),
            (150, '/instruction', String(data='the green glasses')),
        ],
    )
    assert run(source, tmp_path / 'out', '--topic', '/image/compressed', '--depth', '/depth') == 0
    expected = only_results(tmp_path / 'out')
    assert [message.instruction_id for message in expected] == [1, 1, 2, 2]
    for message in expected:
        assert message.instances
        assert all(instance.has_geometry for instance in message.instances)

    stop = UntilAnswered(robot, expected)
    command = (sys.executable, '-m', 'instructsam_ros.node.perception_node')
    node = robot.start('image_transport:=compressed', 'depth_timeout_s:=10.0', command=command)
    assert robot.wait_or_time_out(lambda: node.logged("model 'tabletop' on"), LOADING_S), node.log
    player = replay_node.Player(robot.node, open_recording(source))
    stop.sent = lambda: player.sent['/image/compressed']
    dark = CompressedImage(format='jpeg', data=b'dark')
    robot.connect(node, see=lambda: player._publishers['/image/compressed'].publish(dark))
    robot.wait(lambda: all(publisher.get_subscription_count() for publisher in player._publishers.values()))
    player.play(rate=1.0, loop=False, stop=stop)
    stop.wait(0)
    for number, (message, wanted) in enumerate(zip(stop.answers(), expected, strict=True)):
        for name in without_times(message).get_fields_and_field_types():
            assert getattr(message, name) == getattr(wanted, name), (number, name)

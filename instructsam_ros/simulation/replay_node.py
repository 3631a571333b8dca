"""`instructsam-replay`: a bag or pictures onto topics with the recorded timing, as `ros2 bag play` does.

A bag's messages are sent as the bytes that were recorded, so their stamps are the recorded ones; pictures get the
current time. Topics are renamed as in any node: `--ros-args -r /camera/color/image_raw:=/image`.
"""

import argparse
import collections
import importlib
import sys
import time

import rclpy
from rclpy._rclpy_pybind11 import RCLError
from rclpy.duration import Duration
from rclpy.exceptions import InvalidTopicNameException, NoTypeSupportImportedException
from rclpy.qos import ReliabilityPolicy
from rclpy.signals import SignalHandlerOptions
from rclpy.utilities import try_shutdown

from instructsam_ros.bag.recordings import RecordingError, open_recording
from instructsam_ros.node import qos, signals
from instructsam_ros.node.dds import use_large_image_dds_profile

SETTLE_S = 0.5  # between seeing a subscriber and being seen by it; what is sent earlier may be lost
CAMERA_TYPES = {f'sensor_msgs/msg/{name}' for name in ('Image', 'CompressedImage', 'CameraInfo')}


def qos_of(topic, type_name):
    """As a camera sends images, and so that whoever starts late still gets instructions and fixed transforms."""
    if type_name in CAMERA_TYPES:
        return qos.REPLAY_CAMERA
    if type_name == 'std_msgs/msg/String':
        return qos.LATCHED
    if topic.endswith('tf_static'):
        return qos.REPLAY_STATIC_TRANSFORMS
    return qos.REPLAY


def message_class(type_name):
    """The Python class of 'package/msg/Name'. ImportError or AttributeError where it is not installed."""
    package, _, name = type_name.split('/')
    return getattr(importlib.import_module(f'{package}.msg'), name)


class Player:
    """Publishes one recording. `sent` counts the messages of each topic; `skipped` is {topic: type}."""

    def __init__(self, node, recording):
        self.sent = collections.Counter()
        self.skipped = {}
        self._node = node
        self._recording = recording
        self._publishers = {}
        for topic, type_name in recording.types.items():
            qos = qos_of(topic, type_name)
            try:
                self._publishers[topic] = node.create_publisher(message_class(type_name), topic, qos)
            except (ImportError, AttributeError, ValueError, NoTypeSupportImportedException, InvalidTopicNameException):
                self.skipped[topic] = type_name

    def wait_for_subscribers(self, stop):
        """Returns when somebody listens to an image (to anything, where there are no images) or `stop` is set."""
        types = self._recording.types
        cameras = [publisher for topic, publisher in self._publishers.items() if types[topic] in CAMERA_TYPES]
        watched = cameras or self._publishers.values()
        while watched and not any(publisher.get_subscription_count() for publisher in watched):
            if stop.wait(0.05):
                return
        stop.wait(SETTLE_S)

    def play(self, rate, loop, stop):
        """Plays to the end, or round and round, until `stop` is set. Raises RecordingError."""
        start = time.monotonic()
        while True:
            for offset_s, topic, message in self._recording.messages(self._publishers):
                # each message is due at its own time of one clock, so that delays do not add up
                if stop.wait(max(0.0, start + offset_s / rate - time.monotonic())):
                    return
                self._publish(topic, message)
            if not self.sent:
                raise RecordingError('there is nothing to play: no message of a type that is installed here')
            if not loop:
                break
            start += self._recording.period_s / rate
        for publisher in self._publishers.values():
            if publisher.qos_profile.reliability == ReliabilityPolicy.RELIABLE:
                publisher.wait_for_all_acked(Duration(seconds=1))

    def _publish(self, topic, message):
        if not isinstance(message, bytes):
            message.header.stamp = self._node.get_clock().now().to_msg()
        self._publishers[topic].publish(message)
        self.sent[topic] += 1


def parse(args):
    def positive(text):
        if not 0 < float(text) < float('inf'):
            raise ValueError
        return float(text)

    parser = argparse.ArgumentParser(
        prog='instructsam-replay',
        description='Play a ROS 2 bag or pictures onto topics with the recorded timing.',
        epilog='Arguments after --ros-args go to ROS, e.g. --ros-args -r /camera/color/image_raw:=/image',
    )
    parser.add_argument('path', help='bag (folder, .mcap or .db3), picture (png, jpg), or folder of pictures')
    parser.add_argument('--rate', type=positive, default=1.0, help='times the recorded speed (default: 1)')
    parser.add_argument('--fps', type=positive, default=10.0, help='pictures a second (default: 10)')
    parser.add_argument('--loop', action='store_true', help='start again at the end')
    parser.add_argument(
        '--wait-for-subscribers', action='store_true', help='start when somebody listens to an image topic'
    )
    return parser.parse_args(args)


def run(args, stop):
    """Plays what `args` names until it ends or `stop` is set, and prints what was sent. Raises RecordingError."""
    recording = open_recording(args.path, args.fps)
    player = Player(rclpy.create_node('replay'), recording)
    if player.skipped:
        types = ', '.join(sorted(set(player.skipped.values())))
        print(f'skipping {len(player.skipped)} topics of types that are not installed here: {types}', flush=True)
    try:
        if args.wait_for_subscribers:
            player.wait_for_subscribers(stop)
        player.play(args.rate, args.loop, stop)
    finally:
        print(f'sent {player.sent.total()} messages')
        for topic, count in sorted(player.sent.items()):
            print(f'{count:8d}  {topic}', flush=True)


def main():
    """The command. Exit status 0 at the end and after Ctrl-C, 2 with one line where it cannot play."""
    stop = signals.event()
    # not by rclpy's remove_ros_args(), which fails for a file name that is not UTF-8
    ros_args_at = sys.argv.index('--ros-args') if '--ros-args' in sys.argv else len(sys.argv)
    args = parse(sys.argv[1:ros_args_at])
    try:
        use_large_image_dds_profile()
        rclpy.init(args=sys.argv[ros_args_at:], signal_handler_options=SignalHandlerOptions.NO)
        run(args, stop)
    except (RecordingError, OSError, RCLError, UnicodeEncodeError) as error:
        print(f'instructsam-replay: {error}', file=sys.stderr)
        sys.exit(2)
    finally:
        try_shutdown()
        signals.ignore()  # launch sends its second one about now


if __name__ == '__main__':
    main()

"""`instructsam-replay`: publishes a bag or image files with the recorded timing, as `ros2 bag play` does.

Why not `ros2 bag play`: the ROS wheels that pip installs do not include it, and it does not read image files.

A bag's messages are sent as the bytes that were recorded, with their recorded stamps; image files get the current
time. Topics are remapped as in any node: `--ros-args -r /camera/color/image_raw:=/image`.
"""

import argparse
import importlib
import importlib.util
import os
import re
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any, Protocol

import rclpy
from rclpy._rclpy_pybind11 import RCLError  # raised for bad --ros-args, but not exported by rclpy
from rclpy.duration import Duration
from rclpy.exceptions import InvalidTopicNameException, NoTypeSupportImportedException
from rclpy.node import Node
from rclpy.qos import QoSProfile, ReliabilityPolicy
from rclpy.signals import SignalHandlerOptions
from rclpy.utilities import try_shutdown
from sensor_msgs.msg import Image

from instructsam.core import exit_codes
from instructsam.core.errors import InstructSAMError
from instructsam.core.text import one_line
from instructsam_ros.bag.recordings import Recording, RecordingError, open_recording
from instructsam_ros.bag.storage.limits import add_limits, limits_from
from instructsam_ros.dds import configure_dds
from instructsam_ros.node import qos, signals

SETTLE_S = 0.5  # between discovering a subscriber and being discovered by it; messages sent earlier may be lost
CAMERA_TYPES = {f'sensor_msgs/msg/{name}' for name in ('Image', 'CompressedImage', 'CameraInfo')}

TYPE_NAME = re.compile(r'([A-Za-z][A-Za-z0-9_]*)/msg/([A-Z][A-Za-z0-9_]*)', re.ASCII)


class StopEvent(Protocol):
    """The part of threading.Event that a Player uses."""

    def wait(self, timeout: float, /) -> bool:
        """Wait up to `timeout` seconds; return whether the event is set."""
        ...


def qos_of(topic: str, type_name: str) -> QoSProfile:
    """Return the QoS profile with which a recorded topic is published."""
    if type_name in CAMERA_TYPES:
        return qos.REPLAY_CAMERA
    if type_name == 'std_msgs/msg/String':
        return qos.LATCHED
    if topic.endswith('tf_static'):
        return qos.REPLAY_STATIC_TRANSFORMS
    return qos.REPLAY


def message_class(type_name: str) -> Any:
    """Return the Python class of 'package/msg/Name'.

    A recording may name any installed module, which is imported only if it is a package with messages.

    Raises:
        ValueError: It is not the name of a message type.
        ImportError, AttributeError: It is not installed.
    """
    if not (names := TYPE_NAME.fullmatch(type_name)):
        raise ValueError(f'{one_line(type_name)} is not the name of a message type, such as sensor_msgs/msg/Image')
    package, name = names.groups()
    found = importlib.util.find_spec(package)
    if not found or not any((Path(folder) / 'msg').is_dir() for folder in found.submodule_search_locations or ()):
        raise ImportError(f'{package} has no messages')
    return getattr(importlib.import_module(f'{package}.msg'), name)


class Player:
    """Publishes one recording.

    Attributes:
        sent: {topic after remapping: number of messages sent}.
        skipped: {topic: type} of the topics whose type is not installed.
    """

    def __init__(self, node: Node, recording: Recording) -> None:
        self.sent: Counter[str] = Counter()
        self.skipped: dict[str, str] = {}
        self._node = node
        self._recording = recording
        self._publishers = {}
        for topic, type_name in recording.types.items():
            profile = qos_of(topic, type_name)
            try:
                self._publishers[topic] = node.create_publisher(message_class(type_name), topic, profile)
            except (ImportError, AttributeError, ValueError, NoTypeSupportImportedException, InvalidTopicNameException):
                self.skipped[topic] = type_name

    @property
    def topics(self) -> dict[str, str]:
        """The topics that are published, after remapping, with their types."""
        return {publisher.topic_name: self._recording.types[topic] for topic, publisher in self._publishers.items()}

    def wait_for_subscribers(self, stop: StopEvent) -> None:
        """Wait until an image topic has a subscriber (any topic, if there are no images) or `stop` is set."""
        types = self._recording.types
        cameras = [publisher for topic, publisher in self._publishers.items() if types[topic] in CAMERA_TYPES]
        watched = cameras or self._publishers.values()
        while watched and not any(publisher.get_subscription_count() for publisher in watched):
            if stop.wait(0.05):
                return
        stop.wait(SETTLE_S)

    def play(self, rate: float, *, loop: bool, stop: StopEvent) -> None:
        """Publish the recording until its end or until `stop` is set.

        Args:
            rate: Multiple of the recorded speed.
            loop: Whether to start again at the end.
            stop: Ends the playback.

        Raises:
            RecordingError: The recording is damaged, or none of its message types is installed.
        """
        start_s = time.monotonic()
        while True:
            for offset_s, topic, message in self._recording.messages(self._publishers):
                # Each message is due at its own time of one clock, so that delays do not accumulate.
                if stop.wait(max(0.0, start_s + offset_s / rate - time.monotonic())):
                    return
                self._publish(topic, message)
            if not self.sent:
                raise RecordingError('there is nothing to play: no message of a type that is installed here')
            if not loop:
                break
            start_s += self._recording.period_s / rate
        for publisher in self._publishers.values():
            if publisher.qos_profile.reliability == ReliabilityPolicy.RELIABLE:
                publisher.wait_for_all_acked(Duration(seconds=1))

    def _publish(self, topic: str, message: bytes | Image) -> None:
        if not isinstance(message, bytes):
            message.header.stamp = self._node.get_clock().now().to_msg()
        publisher = self._publishers[topic]
        publisher.publish(message)
        self.sent[publisher.topic_name] += 1


def parse(args: list[str]) -> argparse.Namespace:
    """Parse the command line without the arguments for ROS."""

    def positive(text: str) -> float:
        if not 0 < float(text) < float('inf'):
            raise ValueError
        return float(text)

    parser = argparse.ArgumentParser(
        prog='instructsam-replay',
        description='Publish a ROS 2 bag or image files with the recorded timing.',
        epilog='Arguments after --ros-args go to ROS, for example --ros-args -r /camera/color/image_raw:=/image',
    )
    parser.add_argument(
        'path', help='bag (folder, .mcap or .db3, also .zstd), image file (png, jpg), or folder of image files'
    )
    parser.add_argument('--rate', type=positive, default=1.0, help='multiple of the recorded speed (default: 1)')
    parser.add_argument('--fps', type=positive, default=10.0, help='rate of image files, Hz (default: 10)')
    add_limits(parser)
    parser.add_argument('--loop', action='store_true', help='start again at the end')
    parser.add_argument(
        '--wait-for-subscribers', action='store_true', help='start when an image topic has a subscriber'
    )
    return parser.parse_args(args)


def run(args: argparse.Namespace, stop: StopEvent) -> None:
    """Publish the recording until it ends or `stop` is set, then print the number of messages.

    Raises:
        RecordingError: There is nothing that can be replayed.
    """
    # A shell leaves the tilde in `replay:=~/bag`, an argument of the launch file, as it is.
    recording = open_recording(os.path.expanduser(args.path), args.fps, limits_from(args))
    for note in recording.notes:
        print(one_line(f'{args.path}: {note}'), file=sys.stderr)
    player = Player(rclpy.create_node('replay'), recording)
    if player.skipped:
        types = ', '.join(sorted(set(player.skipped.values())))
        print(
            one_line(f'skipping {len(player.skipped)} topics of types that are not installed here: {types}'), flush=True
        )
    for topic, type_name in player.topics.items():
        print(f'publishing {topic} ({type_name})', flush=True)
    try:
        if args.wait_for_subscribers:
            print('waiting for a subscriber', flush=True)
            player.wait_for_subscribers(stop)
        player.play(args.rate, loop=args.loop, stop=stop)
    finally:
        print(f'sent {player.sent.total()} messages')
        for topic, count in sorted(player.sent.items()):
            print(f'{count:8d}  {one_line(topic)}', flush=True)


def main() -> None:
    """Run the command; exit with 0 at the end and after Ctrl-C, else with one line and a code of core/exit_codes.py."""
    stop = signals.event()
    # rclpy's remove_ros_args() fails for a file name that is not UTF-8.
    ros_args_at = sys.argv.index('--ros-args') if '--ros-args' in sys.argv else len(sys.argv)
    args = parse(sys.argv[1:ros_args_at])
    try:
        configure_dds(publishes_images=True)
        rclpy.init(args=sys.argv[ros_args_at:], signal_handler_options=SignalHandlerOptions.NO)
        run(args, stop)
    except (InstructSAMError, OSError, RCLError, UnicodeEncodeError) as error:
        print(f'instructsam-replay: {one_line(error)}', file=sys.stderr)
        sys.exit(error.exit_code if isinstance(error, InstructSAMError) else exit_codes.USAGE)
    finally:
        try_shutdown()
        signals.ignore()  # `ros2 launch` sends its second signal at about this time


if __name__ == '__main__':
    main()

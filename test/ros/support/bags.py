"""Small bags of moving squares, an engine that finds their colours, and readers of annotated bags."""

import os
import signal
from types import SimpleNamespace

import numpy as np
import pytest
from rclpy.serialization import deserialize_message, serialize_message
from rosbags.interfaces import Qos, QosDurability, QosHistory, QosLiveliness, QosReliability, QosTime
from rosbags.rosbag2 import CompressionFormat, Reader, StoragePlugin, Writer
from rosbags.typesys import Stores, get_types_from_msg, get_typestore
from sensor_msgs.msg import CameraInfo
from std_msgs.msg import Header

from instructsam.core import cli
from instructsam.core.errors import InstructionError
from instructsam.core.result import STEPS, Instance, Result
from instructsam.core.rle import Rle
from instructsam_ros.bag import annotate
from instructsam_ros.conversions.instances import image_msg
from instructsam_ros.msg import InstanceArray

START_NS = 1_700_000_000_000_000_000
HEIGHT, WIDTH = 48, 64
FRAMES = 8
COLORS = ('red', 'green', 'blue')
STEREO = Qos(
    QosHistory.KEEP_LAST, 3, QosReliability.BEST_EFFORT, QosDurability.TRANSIENT_LOCAL, QosTime(1, 2), QosTime(3, 4),
    QosLiveliness.MANUAL_BY_TOPIC, QosTime(5, 6), True,
)  # fmt: skip


class Engine:
    """Finds the red, green and blue objects that the instruction names. Interface: instructsam.core.InstructSAM."""

    def __init__(self, dies_at=None):
        self.asked = 0
        self._dies_at = dies_at

    def encode(self, image, cancelled=None):
        return SimpleNamespace(image=image, timings_ms={'image_encoders': 1.0, 'prefill': 1.0})

    def segment(self, frame, instruction, *, score_threshold, **_):
        self.asked += 1
        if self.asked == self._dies_at:
            os.kill(os.getpid(), signal.SIGKILL)
        if 'refuse' in instruction:
            raise InstructionError('that is not a question')
        if 'cut' in instruction:
            return Result(instruction, 'a th', *frame.image.shape[:2], (), finish_reason='token_budget')
        found = [
            Instance(Rle.encode(frame.image[..., channel] > 200), 0.9 - 0.1 * channel, f'{color} thing', channel)
            for channel, color in enumerate(COLORS)
            if color in instruction and (frame.image[..., channel] > 200).any()
        ]
        return Result(
            instruction,
            ', '.join(instance.phrase for instance in found),
            *frame.image.shape[:2],
            tuple(each for each in found if each.score > score_threshold),
            timings_ms=dict.fromkeys(STEPS, 1.0),
        )


@pytest.fixture
def engines(monkeypatch):
    """The Engines that were loaded, in place of the model."""
    loaded = []

    def load_engine(args, console):
        loaded.append(Engine())
        return loaded[-1]

    monkeypatch.setattr(annotate, 'load_engine', load_engine)
    return loaded


def rgb_image(index):
    """A red square that goes right and a green one that goes left, on a grey cloth."""
    cloth = np.random.default_rng(0).integers(90, 130, (HEIGHT, WIDTH, 1), np.uint8).repeat(3, axis=2)
    cloth[8:20, 4 + 2 * index : 18 + 2 * index] = 255, 0, 0
    cloth[28:40, 46 - 2 * index : 60 - 2 * index] = 0, 255, 0
    return cloth


def header(index, offset_ms=0):
    header = Header(frame_id='camera_color_optical_frame')
    header.stamp.sec, header.stamp.nanosec = 100 + index, 7 + offset_ms * 1_000_000
    return header


def frame(index, topic='/camera/image'):
    return index * 100, topic, image_msg(rgb_image(index), header(index))


def depth(index, late_ms=60, value=1000, off_ms=0):
    """16UC1, recorded after its image."""
    message = image_msg(np.full((HEIGHT, WIDTH), value, np.uint16), header(index, off_ms))
    message.encoding = '16UC1'
    return index * 100 + late_ms, '/camera/aligned_depth_to_color/image_raw', message


def info():
    k = [60.0, 0.0, (WIDTH - 1) / 2, 0.0, 60.0, (HEIGHT - 1) / 2, 0.0, 0.0, 1.0]
    return 0, '/camera/camera_info', CameraInfo(header=header(0), height=HEIGHT, width=WIDTH, k=k)


def recording(*others):
    return [*(frame(index) for index in range(FRAMES)), *others]


def write(folder, storage, recorded, compression=None):
    """A bag with a topic of a type that is known nowhere else. `recorded`: (ms, topic, message or (bytes, type))."""
    types = get_typestore(Stores.ROS2_JAZZY)
    types.register(get_types_from_msg('int32 speed\nrobot_msgs/Gear gear', 'robot_msgs/msg/Motor'))
    types.register(get_types_from_msg('uint8 number', 'robot_msgs/msg/Gear'))
    types.register(get_types_from_msg('std_msgs/Header header\nuint8[] data', 'theora_image_transport/msg/Packet'))
    writer = Writer(folder, version=9, storage_plugin=StoragePlugin[storage.upper()])
    if compression:
        writer.set_compression(compression, CompressionFormat.ZSTD)
    motor = [(ms, '/motor', (b'\0\1\0\0\7\0\0\0\1', 'robot_msgs/msg/Motor')) for ms in (0, 1, 500)]
    with writer:
        connections = {}
        for ms, topic, message in sorted([*recorded, *motor], key=lambda each: each[0]):
            if not isinstance(message, tuple):
                name = f'{type(message).__module__.split(".")[0]}/msg/{type(message).__name__}'
                message = serialize_message(message), name
            if topic not in connections:
                connections[topic] = writer.add_connection(
                    topic, message[1], typestore=types, offered_qos_profiles=[STEREO] if topic == '/motor' else []
                )
            writer.write(connections[topic], START_NS + ms * 1_000_000, message[0])
    return folder


def run(*arguments):
    return cli.main(['bag', 'annotate', *map(str, arguments)])


def show(*arguments):
    return cli.main(['bag', 'show', *map(str, arguments)])


def read(path, topic=None):
    """[(ms since START_NS, topic, bytes)]."""
    with Reader(path) as reader:
        return [
            ((time_ns - START_NS) // 1_000_000, connection.topic, data)
            for connection, time_ns, data in reader.messages()
            if topic in (None, connection.topic)
        ]


def without_times(message):
    for name in message.get_fields_and_field_types():
        if name.endswith('_ms'):
            setattr(message, name, 0.0)
    return message


def results(path, topic='/perception/instances'):
    """[(ms, InstanceArray)], without what differs from run to run."""
    return [(ms, without_times(deserialize_message(data, InstanceArray))) for ms, _, data in read(path, topic)]


def only_results(path):
    return [message for _, message in results(path)]

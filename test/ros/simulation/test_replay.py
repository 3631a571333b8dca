"""Bags and image files replayed by another process and received over DDS; the schedule on a simulated clock."""

import os
import signal
import subprocess
import sys
import time
from collections import defaultdict
from functools import partial

import numpy as np
import pytest
from PIL import Image as PillowImage

rclpy = pytest.importorskip('rclpy', reason='needs ROS 2 or its wheels')

from rclpy.executors import SingleThreadedExecutor  # noqa: E402
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy, qos_profile_sensor_data  # noqa: E402
from rclpy.serialization import serialize_message  # noqa: E402
from rosbags.rosbag2 import Reader, StoragePlugin, Writer  # noqa: E402
from rosbags.typesys import Stores, get_types_from_msg, get_typestore  # noqa: E402
from sensor_msgs.msg import CameraInfo, Image, Imu  # noqa: E402
from std_msgs.msg import Header, String  # noqa: E402

from instructsam_ros.bag import recordings  # noqa: E402
from instructsam_ros.conversions import images  # noqa: E402
from instructsam_ros.conversions import instances as messages  # noqa: E402
from instructsam_ros.simulation import replay_node  # noqa: E402

COMMAND = [sys.executable, '-m', 'instructsam_ros.simulation.replay_node']
TIMEOUT_S = 30.0  # for a machine under load
LATCHED = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
START_NS = 1_700_000_000_000_000_000


def flat_rgb(value):
    return np.full((6, 8, 3), value, np.uint8)


def image(value):
    return messages.image_msg(flat_rgb(value), Header(frame_id='camera_color_optical_frame'))


RECORDED = [  # (ms, topic, message); a message of a package that is not installed is added below
    (0, '/command', String(data='the red mug')),
    (0, '/camera/image', image(1)),
    (0, '/camera/camera_info', CameraInfo(width=8, height=6)),
    (100, '/imu', Imu(orientation_covariance=np.arange(9.0))),
    (150, '/camera/image', image(2)),
    (400, '/camera/image', image(3)),
    (410, '/imu', Imu(angular_velocity_covariance=np.arange(9.0))),
]


def write_bag(folder, storage, recorded=RECORDED):
    """Write a bag as `ros2 bag record` does, with one topic of a type that is not installed."""
    types = get_typestore(Stores.ROS2_JAZZY)
    types.register(get_types_from_msg('int32 speed', 'robot_msgs/msg/Motor'))
    with Writer(folder, version=9, storage_plugin=storage) as writer:
        connections = {}
        for ms, topic, message in recorded:
            if topic not in connections:
                module = type(message).__module__.split('.')[0]
                name = f'{module}/msg/{type(message).__name__}'
                connections[topic] = writer.add_connection(topic, name, typestore=types)
            writer.write(connections[topic], START_NS + ms * 1_000_000, serialize_message(message))
        motor = writer.add_connection('/motor', 'robot_msgs/msg/Motor', typestore=types)
        writer.write(motor, START_NS, b'\0\1\0\0\7\0\0\0')


@pytest.fixture(scope='module')
def bags(tmp_path_factory):
    folder = tmp_path_factory.mktemp('bags')
    write_bag(folder / 'mcap', StoragePlugin.MCAP)
    write_bag(folder / 'sqlite3', StoragePlugin.SQLITE3)
    return folder


@pytest.fixture
def image_folder(tmp_path):
    folder = tmp_path / 'images'
    folder.mkdir()
    for number in (1, 2, 10):
        PillowImage.fromarray(flat_rgb(number)).save(folder / f'frame_{number}.png')
    (folder / 'README.md').write_text('not an image')
    return folder


class Listener:
    """Node that collects messages in `heard` {topic: messages}, and the replay process."""

    def __init__(self, domain_id):
        self.heard = defaultdict(list)
        self.process = None
        self._domain_id = domain_id
        self._context = rclpy.Context()
        rclpy.init(context=self._context, domain_id=domain_id)
        self.node = rclpy.create_node('listener', context=self._context)
        self._executor = SingleThreadedExecutor(context=self._context)
        self._executor.add_node(self.node)

    def listen(self, message_type, topic, qos, raw=False):
        self.node.create_subscription(message_type, topic, self.heard[topic].append, qos, raw=raw)

    def start(self, *arguments):
        env = os.environ | {'ROS_DOMAIN_ID': str(self._domain_id), 'PYTHONUNBUFFERED': '1'}
        self.process = subprocess.Popen(
            [*COMMAND, *map(str, arguments)], env=env, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )

    def until(self, condition):
        deadline = time.monotonic() + TIMEOUT_S
        while not condition():
            if time.monotonic() > deadline or self.process.poll() is not None:
                pytest.fail(f'timed out; exit code, stdout, stderr: {self.end(signal.SIGKILL)}')
            self._executor.spin_once(0.1)

    def end(self, *signals):
        """Send signals; return (exit code, stdout, stderr)."""
        for number in signals:
            self.process.send_signal(number)
        out, err = self.process.communicate(timeout=TIMEOUT_S)
        return self.process.returncode, out, err

    def close(self):
        if self.process and self.process.poll() is None:
            self.process.kill()
            self.process.communicate()
        self._executor.shutdown()
        self.node.destroy_node()
        self._context.try_shutdown()


@pytest.fixture
def listener(monkeypatch, domain_id):
    monkeypatch.setenv('ROS_AUTOMATIC_DISCOVERY_RANGE', 'LOCALHOST')
    listener = Listener(domain_id)
    yield listener
    listener.close()


# Messages


def is_heard(received, recorded):
    """Return whether the bytes are the same, apart from DDS's padding of the last word."""
    return received.startswith(recorded) and len(received) - len(recorded) < 4


@pytest.mark.parametrize('path', ['mcap', 'sqlite3', 'mcap/mcap.mcap', 'sqlite3/sqlite3.db3'])
def test_every_message_of_a_bag_arrives_as_it_was_recorded(listener, bags, path):
    with Reader(bags / path) as reader:
        recorded = [(connection.topic, data) for connection, _, data in reader.messages()]
    expected = [(topic, data) for topic, data in recorded if topic != '/motor']
    assert len(expected) == len(RECORDED)
    for message_type, topic in ((Image, '/camera/image'), (CameraInfo, '/camera/camera_info')):
        listener.listen(message_type, topic, qos_profile_sensor_data, raw=True)
    listener.listen(Imu, '/imu', 10, raw=True)
    listener.listen(String, '/command', LATCHED, raw=True)

    listener.start(bags / path, '--loop', '--wait-for-subscribers')
    heard = listener.heard
    listener.until(lambda: all(any(is_heard(message, data) for message in heard[topic]) for topic, data in expected))
    for topic, received in heard.items():
        sent = [data for recorded_topic, data in expected if recorded_topic == topic]
        assert all(any(is_heard(message, data) for data in sent) for message in received)

    code, out, err = listener.end(signal.SIGINT)
    assert (code, err) == (0, '')
    assert out.count('robot_msgs/msg/Motor') == 1
    assert 'skipping 1 topics' in out
    assert all(topic in out for topic, _ in expected)


def test_replay_ends_at_the_end_of_a_bag(listener, bags):
    listener.start(bags / 'mcap', '--rate', '4')
    code, out, err = listener.end()
    assert (code, err) == (0, '')
    lines = [line.split() for line in out.splitlines()[1:]]
    assert lines == [
        ['publishing', '/command', '(std_msgs/msg/String)'],
        ['publishing', '/camera/image', '(sensor_msgs/msg/Image)'],
        ['publishing', '/camera/camera_info', '(sensor_msgs/msg/CameraInfo)'],
        ['publishing', '/imu', '(sensor_msgs/msg/Imu)'],
        ['sent', '7', 'messages'],
        ['1', '/camera/camera_info'],
        ['3', '/camera/image'],
        ['1', '/command'],
        ['2', '/imu'],
    ]


def test_camera_qos_and_latched_instructions(listener, bags):
    listener.start(bags / 'mcap', '--loop')
    qos = {}
    for topic in ('/camera/image', '/camera/camera_info', '/imu', '/command'):
        listener.until(partial(listener.node.get_publishers_info_by_topic, topic))
        (publisher,) = listener.node.get_publishers_info_by_topic(topic)
        qos[topic] = (publisher.qos_profile.reliability, publisher.qos_profile.durability)
    camera = (ReliabilityPolicy.BEST_EFFORT, DurabilityPolicy.VOLATILE)
    assert qos['/camera/image'] == qos['/camera/camera_info'] == camera
    assert qos['/imu'] == (ReliabilityPolicy.RELIABLE, DurabilityPolicy.VOLATILE)
    assert qos['/command'] == (ReliabilityPolicy.RELIABLE, DurabilityPolicy.TRANSIENT_LOCAL)

    listener.listen(String, '/command', LATCHED)
    listener.until(lambda: listener.heard['/command'])
    assert listener.heard['/command'][0].data == 'the red mug'


def test_image_files_are_sent_in_order_with_the_current_time(listener, image_folder):
    # With room for all of them, because a busy machine delays this process, and best effort sends nothing again.
    listener.listen(Image, '/camera/image', QoSProfile(depth=100, reliability=ReliabilityPolicy.BEST_EFFORT))
    before_s = time.time()
    listener.start(image_folder, '--loop', '--fps', '50', '--ros-args', '-r', 'image:=/camera/image')
    listener.until(lambda: len(listener.heard['/camera/image']) >= 30)
    heard = listener.heard['/camera/image']
    values = [int(images.to_rgb(message)[0, 0, 0]) for message in heard]
    start = values.index(1)
    assert values[start : start + 6] == [1, 2, 10, 1, 2, 10]
    stamps_s = [message.header.stamp.sec + 1e-9 * message.header.stamp.nanosec for message in heard]
    assert stamps_s == sorted(stamps_s)
    assert before_s <= stamps_s[0] <= time.time()
    assert {message.header.frame_id for message in heard} == {'camera_optical_frame'}


def test_one_image_file(listener, image_folder):
    listener.listen(Image, '/image', qos_profile_sensor_data)
    listener.start(image_folder / 'frame_10.png', '--wait-for-subscribers', '--loop')
    listener.until(lambda: listener.heard['/image'])
    assert np.array_equal(images.to_rgb(listener.heard['/image'][0]), flat_rgb(10))


# The end


@pytest.mark.parametrize(
    'signals', [[signal.SIGINT], [signal.SIGINT, signal.SIGINT], [signal.SIGTERM], [signal.SIGHUP]]
)
def test_ctrl_c_ends_it_quietly(listener, image_folder, signals):
    listener.start(image_folder, '--loop', '--fps', '1000')
    listener.until(lambda: listener.node.count_publishers('/image'))
    code, out, err = listener.end(*signals)
    assert (code, err) == (0, '')
    assert out.startswith('publishing /image (sensor_msgs/msg/Image)\nsent ')


WAITING = """
import os, signal, threading
from instructsam_ros.node import signals

for _ in range(50):
    stop = signals.event()
    threading.Timer(0.02, os.kill, (os.getpid(), signal.SIGINT)).start()
    while not stop.wait(0):
        pass
"""


def test_ctrl_c_during_a_wait():
    """The signal may arrive at any time, also while the wait holds the lock that setting the event needs."""
    subprocess.run([sys.executable, '-c', WAITING], check=True, timeout=TIMEOUT_S)


AGAIN = """
import os, signal, threading
from instructsam_ros.node import signals

stop = signals.event()
os.kill(os.getpid(), signal.SIGINT)
stop.wait()
for thread in threading.enumerate():
    if thread is not threading.current_thread():
        thread.join(0.3)
os.kill(os.getpid(), signal.SIGINT)
"""


def test_a_second_ctrl_c_after_the_first_was_handled():
    done = subprocess.run([sys.executable, '-c', AGAIN], capture_output=True, text=True, timeout=TIMEOUT_S)
    assert (done.returncode, done.stderr) == (0, '')


def test_ctrl_c_while_it_waits_for_subscribers(listener, image_folder):
    listener.start(image_folder, '--wait-for-subscribers')
    listener.until(lambda: listener.node.count_publishers('/image'))
    expected = 'publishing /image (sensor_msgs/msg/Image)\nwaiting for a subscriber\nsent 0 messages\n'
    assert listener.end(signal.SIGINT) == (0, expected, '')


@pytest.mark.parametrize(
    ('arguments', 'expected'),
    [
        (['/no/such/bag'], '/no/such/bag does not exist'),
        ([b'/no/such/\xff'], 'does not exist'),
        ([], 'the following arguments are required: path'),
        (['~/no_such_bag'], os.path.expanduser('~/no_such_bag does not exist')),
        (['.', '--rate', '0'], "argument --rate: invalid positive value: '0'"),
        (['.', '--fps', 'nan'], "argument --fps: invalid positive value: 'nan'"),
        (['.', '--ros-args', '-r', 'nonsense'], "Couldn't parse remap rule"),
    ],
)
def test_errors_are_one_line_and_exit_code_2(arguments, expected):
    done = subprocess.run([*COMMAND, *arguments], capture_output=True, text=True, timeout=TIMEOUT_S)
    assert done.returncode == 2
    assert 'Traceback' not in done.stderr
    assert done.stderr.splitlines()[-1].startswith('instructsam-replay: ')
    assert expected in done.stderr


def consume(path):
    recording = recordings.open_recording(path)
    return list(recording.messages(recording.types))


@pytest.mark.parametrize('path', ['mcap/mcap.mcap', 'sqlite3/sqlite3.db3'])
@pytest.mark.parametrize('kept', [0.0, 0.3, 0.9])
def test_a_truncated_bag(bags, tmp_path, path, kept):
    whole = (bags / path).read_bytes()
    cut = tmp_path / (bags / path).name
    cut.write_bytes(whole[: int(kept * len(whole))])
    with pytest.raises(recordings.RecordingError, match=r'cannot be read as a bag .*truncated'):
        consume(cut)


def test_a_bag_with_damage_inside(bags, tmp_path):
    damaged = bytearray((bags / 'mcap/mcap.mcap').read_bytes())
    at = damaged.index(b'\x06', 100)  # the first chunk
    damaged[at : at + 200] = b'\xa5' * 200
    (tmp_path / 'damaged.mcap').write_bytes(damaged)
    with pytest.raises(recordings.RecordingError, match='cannot be read as a bag'):
        consume(tmp_path / 'damaged.mcap')


def test_a_bag_without_its_file(bags, tmp_path):
    (tmp_path / 'metadata.yaml').write_text((bags / 'mcap/metadata.yaml').read_text())
    with pytest.raises(recordings.RecordingError, match='missing'):
        consume(tmp_path)


def test_folder_without_image_files(tmp_path):
    with pytest.raises(recordings.RecordingError, match=r'no image files.*no bag .*; give the folder that holds them'):
        consume(tmp_path)


def test_file_of_another_type(tmp_path):
    (tmp_path / 'notes.txt').write_text('hello')
    with pytest.raises(recordings.RecordingError, match=r'neither a bag .* nor an image file'):
        consume(tmp_path / 'notes.txt')


@pytest.mark.parametrize('kept', [0, 0.5])
def test_the_error_names_a_truncated_image_file(image_folder, kept):
    file = image_folder / 'frame_2.png'
    whole = file.read_bytes()
    file.write_bytes(whole[: int(kept * len(whole))])
    with pytest.raises(recordings.RecordingError, match=r'frame_2\.png'):
        consume(image_folder)


# The schedule


class Clock:
    """Simulated time that passes only in wait() and publish(); stop event, `time`, node and publisher in one."""

    def __init__(self, ends_at_s=float('inf'), publishing_s=0.0):
        self.now_s = 1000.0
        self.sent = []
        self._ends_at_s = 1000.0 + ends_at_s
        self._publishing_s = publishing_s

    def monotonic(self):
        return self.now_s

    def wait(self, seconds):
        self.now_s += seconds
        return self.now_s >= self._ends_at_s

    def create_publisher(self, message_type, topic, qos):
        self.qos_profile, self.topic_name = qos, topic
        return self

    def publish(self, message):
        self.sent.append((round(self.now_s - 1000.0, 6), message))
        self.now_s += self._publishing_s

    def wait_for_all_acked(self, timeout):
        pass


class Recording:
    def __init__(self):
        self.types = {'/imu': 'sensor_msgs/msg/Imu'}
        self.period_s = 4.0

    def messages(self, topics):
        yield from ((0.0, '/imu', b'a'), (1.0, '/imu', b'b'), (3.0, '/imu', b'c'))


@pytest.mark.parametrize('publishing_s', [0.0, 0.2])
def test_delays_do_not_accumulate(monkeypatch, publishing_s):
    clock = Clock(ends_at_s=9.5, publishing_s=publishing_s)
    monkeypatch.setattr(replay_node, 'time', clock)
    replay_node.Player(clock, Recording()).play(rate=1.0, loop=True, stop=clock)
    assert clock.sent == [(0, b'a'), (1, b'b'), (3, b'c'), (4, b'a'), (5, b'b'), (7, b'c'), (8, b'a'), (9, b'b')]


def test_rate(monkeypatch):
    clock = Clock(ends_at_s=2.1)
    monkeypatch.setattr(replay_node, 'time', clock)
    replay_node.Player(clock, Recording()).play(rate=4.0, loop=True, stop=clock)
    assert clock.sent[:4] == [(0, b'a'), (0.25, b'b'), (0.75, b'c'), (1, b'a')]


def test_a_late_message_is_sent_at_once_and_the_schedule_is_kept(monkeypatch):
    clock = Clock(publishing_s=1.5)
    monkeypatch.setattr(replay_node, 'time', clock)
    replay_node.Player(clock, Recording()).play(rate=1.0, loop=False, stop=clock)
    assert clock.sent == [(0, b'a'), (1.5, b'b'), (3, b'c')]


@pytest.mark.parametrize('storage', ['mcap', 'sqlite3'])
def test_times_of_a_bag(bags, storage):
    bag = recordings.open_recording(bags / storage)
    times = [round(offset_s, 6) for offset_s, topic, _ in bag.messages(['/camera/image', '/imu'])]
    assert times == [0, 0.1, 0.15, 0.4, 0.41]
    assert bag.period_s == pytest.approx(0.41 * 8 / 7)  # 8 messages


def test_nothing_to_play():
    recording = Recording()
    recording.types = {'/motor': 'robot_msgs/msg/Motor'}
    recording.messages = lambda topics: iter(())
    player = replay_node.Player(Clock(), recording)
    assert player.skipped == recording.types
    player.wait_for_subscribers(Clock())  # returns at once: there is no topic
    with pytest.raises(recordings.RecordingError, match='nothing to play'):
        player.play(1.0, loop=True, stop=Clock())


@pytest.mark.parametrize(
    'name',
    [
        '/msg/Image',
        '.sensor_msgs/msg/Image',
        'a/b/msg/Image',
        'std_msgs/msg/__name__',
        'x\0/msg/Image',
        'this/msg/Name',
        '',
    ],
)
def test_a_topic_of_an_odd_type_is_skipped(name):
    recording = Recording()
    recording.types = {'/odd': name}
    assert replay_node.Player(Clock(), recording).skipped == recording.types
    assert 'this' not in sys.modules  # a module that prints when it is imported

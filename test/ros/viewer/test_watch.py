"""`instructsam watch`: a node of this process is watched, over real DDS."""

import numpy as np
import pytest

pytest.importorskip('rclpy', reason='needs ROS 2 or its wheels')

import rclpy
from bags import HEIGHT, WIDTH, depth, frame, header, info
from logged import LoggedRecording
from rclpy.context import Context
from rclpy.executors import SingleThreadedExecutor
from rclpy.signals import SignalHandlerOptions
from rerun_rows import rows
from sensor_msgs.msg import CameraInfo, Image, PointCloud2
from std_msgs.msg import String

from instructsam.core import cli
from instructsam.core.result import Instance, Result
from instructsam.core.rle import Rle
from instructsam_ros.conversions.instances import to_msg
from instructsam_ros.conversions.point_clouds import POINT
from instructsam_ros.msg import InstanceArray
from instructsam_ros.node import qos
from instructsam_ros.own_node import OwnNode, SpinThread
from instructsam_ros.viewer import watch as watch_module
from instructsam_ros.viewer.answers import AnswerLog
from instructsam_ros.viewer.sinks import DISPLAYS
from instructsam_ros.viewer.watch import AnswerListener

NODE = '/robot/perception'
PATIENCE_S = 60.0


class PerceptionNode:
    """Reads the topics of a camera and answers the newest instruction, 20 times per second."""

    def __init__(self, node):
        self._instruction = ''
        self._index = 0
        node.create_subscription(String, 'instruction', self._on_instruction, qos.LATCHED)
        for topic, kind in (('image', Image), ('depth', Image), ('camera_info', CameraInfo)):
            node.create_subscription(kind, f'/camera/{topic}', lambda _: None, qos.CAMERA_INPUT)
        outputs = {
            '/camera/image': Image,
            '/camera/depth': Image,
            '/camera/camera_info': CameraInfo,
            '~/instances': InstanceArray,
            '~/points': PointCloud2,
        }
        self._publishers = {name: node.create_publisher(kind, name, 5) for name, kind in outputs.items()}
        node.create_timer(0.05, self._step)

    def _on_instruction(self, message):
        self._instruction = message.data

    def _step(self):
        index = self._index = self._index + 1
        camera_info = info()[2]
        camera_info.header = header(index)
        messages = {
            '/camera/image': frame(0)[2],
            '/camera/depth': depth(0)[2],
            '/camera/camera_info': camera_info,
            '~/instances': self._answer(index),
            '~/points': PointCloud2(header=header(index), data=np.zeros(7, POINT).tobytes()),
        }
        for name, message in messages.items():
            message.header = header(index)
            if self._instruction or not name.startswith('~'):
                self._publishers[name].publish(message)

    def _answer(self, index):
        mask = np.zeros((HEIGHT, WIDTH), bool)
        mask[:, :20] = True
        instance = Instance(Rle.encode(mask), 0.9, 'mug', 0, track_id=4)
        return to_msg(Result(self._instruction, 'mug', HEIGHT, WIDTH, (instance,)), header(index), self._instruction, 1)


@pytest.fixture(autouse=True)
def own_domain(monkeypatch, domain_id):
    monkeypatch.setenv('ROS_DOMAIN_ID', str(domain_id))
    monkeypatch.setenv('ROS_AUTOMATIC_DISCOVERY_RANGE', 'LOCALHOST')


@pytest.fixture
def perception(own_domain):
    context = Context()
    rclpy.init(context=context, signal_handler_options=SignalHandlerOptions.NO)
    node = rclpy.create_node('perception', namespace='/robot', context=context)
    PerceptionNode(node)
    executor = SingleThreadedExecutor(context=context)
    executor.add_node(node)
    thread = SpinThread(executor)
    thread.start()
    yield
    thread.stop()
    executor.shutdown()
    node.destroy_node()
    context.try_shutdown()


def watch(*arguments):
    return cli.main(['watch', '--node', NODE, *map(str, arguments)])


def test_answers_are_lines(perception, capsys):
    assert watch('the mug', '--count', 2, '--timeout', PATIENCE_S) == 0
    output = capsys.readouterr()
    first, second = output.out.splitlines()
    assert [line.split(' s ', 1)[1] for line in (first, second)] == ['the mug: #4 mug 0.90'] * 2
    assert float(first.split()[0]) < float(second.split()[0])
    assert output.err == f'watching {NODE}/instances\n'


def test_images_depth_camera_and_points_of_a_node_are_shown(perception):
    """The topics are those that the node reads; the first messages tell image and depth apart."""
    recording = LoggedRecording()
    log = AnswerLog(recording)
    with AnswerListener(NODE, '', '', log) as listener:
        listener.wait_for_node()
        listener.instruct('the mug', '/robot/instruction')
        wanted = {'answer', 'image', 'camera', 'depth', 'points'}
        for _ in listener.answers(PATIENCE_S):
            if {name for name, _, _ in recording.logged} >= wanted:
                break
    assert log.notes == {}
    ((_, image),) = recording.of('image')[:1]
    assert image.shape == (HEIGHT, WIDTH, 3)
    assert {stamp for _, stamp, _ in recording.logged} == {stamp for stamp, *_ in recording.of('answer')}
    ((_, points, classes),) = recording.of('points')[:1]
    assert (len(points), set(classes)) == (7, {5})


def test_a_recording_of_a_node(perception, tmp_path, capsys, monkeypatch):
    """Each answer has its image, although the topics of the node are discovered after its answers."""
    pytest.importorskip('rerun.chunk', reason='needs the extra rerun')
    looks, subscriptions_of = [], OwnNode.subscriptions_of

    def discovered_late(*arguments):
        looks.append(arguments)
        return subscriptions_of(*arguments) if len(looks) > 20 else []

    monkeypatch.setattr(OwnNode, 'subscriptions_of', discovered_late)
    assert watch('the mug', '--count', 10, '--timeout', PATIENCE_S, '--rerun', tmp_path / 'live.rrd') == 0
    entities = {row.entity for row in rows(tmp_path / 'live.rrd')}
    assert entities >= {'/camera/image/color', '/camera/image/masks', '/camera/image/boxes', '/scores/id_4', '/log'}
    assert len(capsys.readouterr().out.splitlines()) == 10


def test_a_node_without_an_instruction_does_not_answer(perception, capsys):
    assert watch('--timeout', 0.3) == 2
    assert f'no answer on {NODE}/instances for 0.3 s: does the node have an instruction' in capsys.readouterr().err


def test_a_missing_node_is_named(monkeypatch, capsys):
    monkeypatch.setattr(watch_module, 'PATIENCE_S', 0.2)
    assert watch('the mug') == 2
    assert f'{NODE}/instances has no publisher: start the node' in capsys.readouterr().err


@pytest.mark.parametrize('where', ['the mug', 'out.mp4', 'http://127.0.0.1:9876'])
def test_a_recording_goes_to_a_viewer_or_a_file(capsys, where):
    assert watch('--rerun', where) == 2
    assert f'a file that ends in .rrd, got {where!r}' in capsys.readouterr().err


def test_a_viewer_that_is_not_there_is_named(capsys):
    pytest.importorskip('rerun', reason='needs the extra rerun')
    assert watch('--rerun', 'rerun+http://127.0.0.1:1/proxy') == 2
    expected = 'no Rerun viewer at rerun+http://127.0.0.1:1/proxy (Connection refused); start one there with `rerun`'
    assert capsys.readouterr().err == f'instructsam: error: {expected}\n'


def test_a_viewer_without_a_display_is_refused(capsys, monkeypatch):
    pytest.importorskip('rerun', reason='needs the extra rerun')
    for name in DISPLAYS:
        monkeypatch.delenv(name, raising=False)
    assert watch('--rerun') == 2
    error = capsys.readouterr().err
    assert 'the Rerun viewer does not run (none of DISPLAY, WAYLAND_DISPLAY, WAYLAND_SOCKET is set); without a' in error

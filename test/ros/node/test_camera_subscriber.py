"""Reports about cameras: each camera has its own, and its own counts."""

import re
from types import SimpleNamespace

import pytest

pytest.importorskip('rclpy', reason='needs ROS 2 or its wheels')

import rclpy
from fakes import FakeSettings
from sensor_msgs.msg import Image

from instructsam_ros.conversions.transports import TRANSPORTS
from instructsam_ros.node import camera_subscriber
from instructsam_ros.node.camera_subscriber import CameraSubscriber
from instructsam_ros.pipeline.scheduling.camera_stream import CameraStream
from instructsam_ros.pipeline.scheduling.error_log import ErrorLog
from instructsam_ros.pipeline.scheduling.scheduler import Scheduler
from instructsam_ros.pipeline.scheduling.statistics import Statistics
from instructsam_ros.pipeline.transforms import TransformLookup

RAW = dict.fromkeys(TRANSPORTS, 'raw')


class FakeNode:
    """The part of a node that a CameraSubscriber uses; its log is written by rclpy's logger, which has no publisher."""

    def __init__(self):
        self.log = ErrorLog(self.get_logger(), Statistics())
        self.subscriptions = {}

    def get_logger(self):
        return rclpy.logging.get_logger('tested')

    def resolve_topic_name(self, name):
        return f'/{name}'

    def create_subscription(self, message_type, topic, callback, profile, event_callbacks=None):
        topic = f'/{topic.lstrip("/")}'
        self.subscriptions[topic] = SimpleNamespace(topic_name=topic, callback=callback, events=event_callbacks)
        return self.subscriptions[topic]

    def destroy_subscription(self, subscription):
        del self.subscriptions[subscription.topic_name]

    def count_publishers(self, topic):
        return 0

    def get_publishers_info_by_topic(self, topic):
        return []

    def get_topic_names_and_types(self):
        return []

    def get_name(self):
        return 'tested'

    def get_namespace(self):
        return '/'


class Bench:
    """Two open cameras on one node."""

    def __init__(self):
        self.node, self.transforms = FakeNode(), TransformLookup(create_buffer=None)
        self.streams = [CameraStream(name, results=None) for name in ('left', 'right')]
        self.scheduler = Scheduler(self.streams, FakeSettings(), Statistics())
        self.scheduler.activate()
        self.cameras = [CameraSubscriber(self.node, stream, self.scheduler, self.transforms) for stream in self.streams]
        self.open()

    def open(self):
        for camera in self.cameras:
            camera.open(RAW)

    def close(self):
        self.scheduler.deactivate()
        for camera in self.cameras:
            camera.close()

    def see(self, name, sec=1):
        image = Image()
        image.header.stamp.sec = sec
        self.node.subscriptions[f'/{name}/image'].callback(image, {})

    def lose(self, name, count):
        event = SimpleNamespace(total_count_change=count)
        self.node.subscriptions[f'/{name}/image'].events.message_lost(event)


@pytest.fixture
def bench():
    return Bench()


def test_nothing_is_left_of_an_opening_that_failed(bench, monkeypatch):
    """For example, if two topics of a camera are remapped to one."""
    bench.close()
    subscribe = bench.node.create_subscription

    def create_subscription(message_type, topic, *arguments, **options):
        if topic == 'right/camera_info':
            raise RuntimeError('incompatible type')
        return subscribe(message_type, topic, *arguments, **options)

    monkeypatch.setattr(bench.node, 'create_subscription', create_subscription)
    with pytest.raises(RuntimeError, match='incompatible'):
        bench.open()
    assert len(bench.node.subscriptions) == 5
    bench.close()
    assert bench.node.subscriptions == {}


def test_each_camera_is_reported(bench, capfd, monkeypatch):
    monkeypatch.setattr(camera_subscriber, 'SILENCE_S', -1.0)
    for _ in range(3):
        for camera in bench.cameras:
            camera.warn_if_silent()
            camera.warn_if_depth_is_elsewhere()
    logged = capfd.readouterr().err
    for name in ('left', 'right'):
        assert len(re.findall(rf'no image on /{name}/image for \d+ s', logged)) == 1
        assert logged.count(f'no depth on /{name}/depth: results have no 3D geometry') == 1


def test_lost_images_are_reported_for_each_camera(bench, capfd):
    for _ in range(100):
        bench.see('left')
    bench.see('right')
    bench.lose('left', 5), bench.lose('right', 1)
    for _ in range(3):
        for camera in bench.cameras:
            camera.warn_if_much_is_lost()
    logged = capfd.readouterr().err
    assert logged.count('images of /right/image: 1 received, 1 lost in transport') == 1
    assert '/left/image: ' not in logged
    bench.lose('left', 50)
    bench.cameras[0].warn_if_much_is_lost()
    assert 'images of /left/image: 100 received, 55 lost in transport' in capfd.readouterr().err


def test_each_camera_reports_that_its_stamps_went_back(bench, capfd):
    for sec in (100, 10):
        bench.see('left', sec), bench.see('right', sec)
    rounds = [stream.mailbox.take().transform_round for stream in bench.streams]
    assert rounds == [1, 1]  # of the transforms, which all cameras share
    logged = capfd.readouterr().err
    assert all(logged.count(f'the stamps of /{name}/image went back') == 1 for name in ('left', 'right'))


def test_depth_of_an_earlier_session_does_not_count(bench, capfd, monkeypatch):
    """The transport of the depth may have changed in between."""
    monkeypatch.setattr(camera_subscriber, 'SILENCE_S', -1.0)
    depth = Image()
    depth.header.stamp.sec = 1
    bench.node.subscriptions['/left/depth'].callback(depth)
    left, _ = bench.cameras
    left.warn_if_depth_is_elsewhere()
    assert 'no depth' not in capfd.readouterr().err
    bench.close()
    bench.open()
    left.warn_if_depth_is_elsewhere()
    assert 'no depth on /left/depth' in capfd.readouterr().err

"""Checks of topics: each of them is published in this process, and looked at by the doctor's own node."""

from contextlib import contextmanager

import pytest

pytest.importorskip('instructsam_ros.msg', reason='needs ROS 2 or its wheels')

import rclpy
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from rclpy.context import Context
from rclpy.executors import SingleThreadedExecutor
from rclpy.qos import QoSProfile, ReliabilityPolicy
from rclpy.signals import SignalHandlerOptions
from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from std_msgs.msg import String

from instructsam_ros.doctor.topics import TopicChecks
from instructsam_ros.node import qos
from instructsam_ros.own_node import SpinThread


@contextmanager
def spinning(name='perception'):
    """Yield a node in the namespace /robot, with a participant of its own."""
    context = Context()
    rclpy.init(context=context, signal_handler_options=SignalHandlerOptions.NO)
    node = rclpy.create_node(name, namespace='/robot', context=context)
    executor = SingleThreadedExecutor(context=context)
    executor.add_node(node)
    thread = SpinThread(executor)
    thread.start()
    try:
        yield node
    finally:
        thread.stop()
        executor.shutdown()
        node.destroy_node()
        context.try_shutdown()


@pytest.fixture(autouse=True)
def own_domain(monkeypatch, domain_id):
    monkeypatch.setenv('ROS_DOMAIN_ID', str(domain_id))
    monkeypatch.setenv('ROS_AUTOMATIC_DISCOVERY_RANGE', 'LOCALHOST')


def stream(node, topic, kind=Image):
    """Publish a message of a topic 50 times per second."""
    publisher = node.create_publisher(kind, topic, qos.CAMERA_OUTPUT)
    node.create_timer(0.02, lambda: publisher.publish(kind()))


def by_name(checks):
    return {check.name: check for check in checks}


def test_image_topics():
    with spinning() as node:
        stream(node, '/camera/image')
        node.create_publisher(Image, '/silent/image', qos.CAMERA_OUTPUT)
        node.create_publisher(String, '/text', 10)
        with TopicChecks(seconds=0.5) as topics:
            names = ['camera/image', '/silent/image', '/text', '/absent']
            found = by_name(topics.check_images(names))
    assert found['/camera/image'].level == 'ok'
    assert '1 publisher, ' in found['/camera/image'].text
    assert ' Hz, ' in found['/camera/image'].text
    assert (found['/silent/image'].level, 'no message in 0.5 s' in found['/silent/image'].text) == ('fault', True)
    assert 'published as std_msgs/msg/String' in found['/text'].text
    assert found['/absent'].level == 'fault'
    assert 'published are /camera/image, /silent/image' in found['/absent'].advice


def test_a_node_and_its_topics():
    with spinning() as node, spinning('camera') as camera:
        node.create_subscription(Image, '/image', lambda message: None, qos.CAMERA_INPUT)
        node.create_subscription(Image, '/depth', lambda message: None, qos.CAMERA_INPUT)
        node.create_subscription(String, '/instruction', lambda message: None, qos.INSTRUCTION)
        stream(camera, '/image')
        stream(camera, '/depth', CompressedImage)
        best_effort = QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT)
        camera.create_publisher(String, '/instruction', best_effort)
        diagnostics = node.create_publisher(DiagnosticArray, '/diagnostics', 10)
        status = DiagnosticStatus(name='robot/perception', level=DiagnosticStatus.ERROR, message='no model')
        node.create_timer(0.05, lambda: diagnostics.publish(DiagnosticArray(status=[status])))
        with TopicChecks(seconds=0.3) as topics:
            checks = list(topics.check_node('robot/perception'))
    found = by_name(checks)
    assert (found['/robot/perception'].level, found['/robot/perception'].text) == ('fault', 'no model')
    assert found['/image'].level == 'ok'
    assert 'published as sensor_msgs/msg/CompressedImage' in found['/depth'].text
    of_instruction = [check for check in checks if check.name == '/instruction']
    assert of_instruction[0].level == 'fault'
    assert 'QoS of /camera does not match' in of_instruction[0].text


def test_a_node_without_a_camera_misses_the_images_only():
    with spinning() as node:
        for topic in ('/camera/image', '/camera/depth', '/camera/aligned_depth_to_color/image_raw'):
            node.create_subscription(Image, topic, lambda message: None, qos.CAMERA_INPUT)
        node.create_subscription(CameraInfo, '/camera/camera_info', lambda message: None, qos.CAMERA_INPUT)
        with TopicChecks(seconds=0.1) as topics:
            checks = list(topics.check_node('robot/perception'))
    silent = {check.name: check.level for check in checks if check.text == 'it has no publisher'}
    assert silent.pop('/camera/image') == 'fault'
    assert len(silent) == 3
    assert set(silent.values()) == {'note'}


def test_a_node_that_is_not_there():
    with spinning(), TopicChecks(seconds=0.1) as topics:
        (check,) = topics.check_node('/perception')
    assert check.level == 'fault'
    assert check.text == 'there is no such node; there are /robot/perception'

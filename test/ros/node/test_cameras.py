"""Several cameras on one node: fair turns, separate topics, one model."""

import threading
import time
from itertools import islice

import numpy as np
import pytest

pytest.importorskip('rclpy', reason='needs ROS 2 or its wheels')

import rclpy
from robot import PATIENCE_S
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import Header

from instructsam_ros.client import Perception
from instructsam_ros.conversions.instances import image_msg
from instructsam_ros.msg import InstanceArray

NAMES = ('left', 'right')
TYPES = {
    'instruction': 'std_msgs/msg/String',
    'image': 'sensor_msgs/msg/Image',
    'depth': 'sensor_msgs/msg/Image',
    'camera_info': 'sensor_msgs/msg/CameraInfo',
}


@pytest.fixture
def pair(robot):
    """A robot with an active node that has received images of two cameras; `see_with(name)` publishes one more."""
    node = robot.start('cameras:=["left","right"]')
    publishers = {name: robot.node.create_publisher(Image, f'{name}/image', 10) for name in NAMES}
    robot.seen = {name: [] for name in NAMES}
    for name in NAMES:
        topic = f'perception/{name}/instances'
        robot.node.create_subscription(InstanceArray, topic, robot.keep(robot.seen[name]), 100)

    def see(name):
        robot.frames += 1
        message = image_msg(np.full((48, 64, 3), 128, np.uint8), Header(frame_id=name))
        message.header.stamp.sec = robot.frames
        publishers[name].publish(message)

    deadline = time.monotonic() + PATIENCE_S
    while not all(node.logged(f'first image of {name}') for name in NAMES):
        assert time.monotonic() < deadline, node.log
        for name in NAMES:
            see(name)
        robot.wait_or_time_out(lambda: False, 0.05)
    robot.wait(lambda: all(robot.node.count_publishers(f'perception/{name}/instances') for name in NAMES))
    robot.see_with = see
    return robot


def test_fair_turns_one_model(pair):
    """A camera that publishes ten times as often gets no more turns."""
    pair.say('sleep 0.05')
    pair.wait(lambda: all(pair.seen.values()))
    before = {name: len(pair.seen[name]) for name in NAMES}
    while sum(map(len, pair.seen.values())) < sum(before.values()) + 20:
        for name in ('left',) * 10 + ('right',):
            pair.see_with(name)
        pair.wait_or_time_out(lambda: False, 0.02)
    answered = [len(pair.seen[name]) - before[name] for name in NAMES]
    assert min(answered) >= 8
    for name in NAMES:
        assert {result.header.frame_id for result in pair.seen[name]} == {name}
    assert len(pair.nodes[0].logged("model 'tabletop' on")) == 1
    status = {key: int(value) for key, value in pair.status().items() if key.startswith('frames_')}
    assert status['frames_in'] == status['frames_used'] + status['frames_dropped'] + status['frames_waiting']


def test_goals_name_their_camera(pair):
    for name in ('right', 'left'):
        assert pair.ask('the mugs', camera=name).end()[1].header.frame_id == name
    assert pair.ask('the mugs').end()[1].header.frame_id == 'left'  # the first camera is the default
    assert 'the cameras are: left, right' in pair.ask('the mugs', camera='rear').end()[1].message


def test_the_client_watches_one_camera(pair, monkeypatch):
    monkeypatch.setenv('ROS_DOMAIN_ID', str(pair.domain_id))
    is_done = threading.Event()

    def see():
        while not is_done.wait(0.05):
            for name in NAMES:
                pair.see_with(name)

    seeing = threading.Thread(target=see)
    seeing.start()
    try:
        with Perception() as perception:
            found = list(islice(perception.watch('the mugs', timeout=30.0, camera='right'), 3))
    finally:
        is_done.set()
        seeing.join()
    assert {each.message.header.frame_id for each in found} == {'right'}


def test_one_answer_per_camera_on_instruction(pair):
    assert pair.set('trigger', 'on_instruction') == (True, '')
    pair.say('the mugs')
    pair.wait(lambda: all(len(results) == 1 for results in pair.seen.values()))
    pair.say('the cups')
    pair.wait(lambda: all(len(results) == 2 for results in pair.seen.values()))


@pytest.mark.parametrize('names', ['["left","left"]', '["le ft"]', '["", "left"]'])
def test_names_that_cannot_be_topics_are_refused(robot, names):
    node = robot.start(f'cameras:={names}')
    assert node.exit_code() == 2
    assert node.logged('cameras are different names')
    robot.nodes.remove(node)


def test_topics_that_do_carry_images_are_named(robot):
    """The node's own images are not among them."""
    robot.node.create_publisher(CompressedImage, '/camera/color/image_raw/compressed', 10)
    robot.node.create_publisher(Image, '/camera/infra/image_raw', 10)
    robot.node.create_publisher(CompressedImage, '/camera/depth/image_raw/compressedDepth', 10)
    node = robot.start('instruction:=the mugs', 'cameras:=["side"]')
    robot.wait(lambda: node.logged('no image on'))
    assert node.logged('no image on')[0].endswith(
        '/side/image for 3 s (0 publishers): images are published on /camera/color/image_raw (image_transport: '
        'compressed), /camera/infra/image_raw (image_transport: raw), /depth (image_transport: raw), '
        '/image (image_transport: compressed), /image (image_transport: raw); remap the topic `image`'
    )


def test_other_types_on_any_subscribed_topic_are_named(robot):
    context = rclpy.Context()  # of its own, because a participant has one type for a topic
    rclpy.init(context=context, domain_id=robot.domain_id)
    other = rclpy.create_node('other', context=context)
    for topic in TYPES:
        other.create_publisher(Header, topic, 10)
    node = robot.start()
    for topic, expected in TYPES.items():
        text = f'/{topic} is published as std_msgs/msg/Header, expected {expected}: it is not received'
        robot.wait(lambda text=text: node.logged(text))
    other.destroy_node()
    context.try_shutdown()

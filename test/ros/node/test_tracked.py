"""Masks at camera rate: a node with a stand-in model, over real DDS."""

import numpy as np
import pytest

pytest.importorskip('rclpy', reason='needs ROS 2 or its wheels')

import cv2
from sensor_msgs.msg import Image

from instructsam_ros.conversions.instances import rle_from_msg
from instructsam_ros.msg import InstanceArray, TrackedInstanceArray

COARSE = np.random.default_rng(0).integers(0, 256, (40, 60, 3), np.uint8)
TEXTURE = cv2.resize(COARSE, (480, 320), interpolation=cv2.INTER_CUBIC)


def view(x):
    """Return an image [192, 256, 3] of a textured wall, after the camera has moved by `x` px to the right."""
    return np.ascontiguousarray(TEXTURE[40:232, 40 + x : 296 + x])


@pytest.fixture(scope='module')
def tracking(lasting_robot):
    """A node that answers once per instruction and carries the answer; its messages arrive in robot.views."""
    lasting_robot.start_active('track_rate_hz:=200.0', 'trigger:=on_instruction', 'score_threshold:=0.0')
    lasting_robot.look_at('perception/tracked/instances', TrackedInstanceArray)
    publisher = 'perception/tracked/instances'
    lasting_robot.wait(lambda: lasting_robot.node.count_subscribers(publisher) == 1)
    return lasting_robot


def see_and_wait(robot, x):
    """Publish an image and wait until the node has received it."""
    before = int(robot.status()['frames_in'])
    robot.see(view(x))
    while int(robot.status()['frames_in']) == before:
        pass


def answered(robot, instruction, x=0):
    """Say an instruction and return its result, once the node carries it to another image of the same view."""
    see_and_wait(robot, x)
    robot.views.clear()
    robot.results.clear()
    robot.say(instruction)
    robot.wait(lambda: robot.results and robot.results[-1].instruction == instruction)
    while not (has_newest(robot) and robot.views[-1].result.instruction == instruction):
        robot.see(view(x))
        robot.wait_or_time_out(lambda: has_newest(robot), 0.3)
    return robot.results[-1]


def has_newest(robot):
    return robot.views and robot.views[-1].header.stamp.sec == robot.frames


def tracked(robot, stamp):
    """Wait for the carried masks of the image with that stamp."""
    robot.wait(lambda: robot.views and robot.views[-1].header.stamp.sec >= stamp)
    return next(each for each in robot.views if each.header.stamp.sec == stamp)


def settled_count(robot):
    """Return how many images masks have been carried to, once the node is through with those that it has received."""
    before = None
    while (now := robot.status()['tracked_results']) != before:
        before = now
    return now


def test_masks_follow_the_camera_with_ids_age_and_confidence(tracking):
    robot = tracking
    result = answered(robot, 'ten masks')
    for x in range(2, 21, 2):
        robot.measure(np.full((192, 256), 1000, np.uint16), stamp=robot.frames + 1)
        stamp = robot.see(view(x))
        message = tracked(robot, stamp)
    assert message.header == message.result.header
    assert message.result.status == InstanceArray.STATUS_OK
    assert message.answer_stamp == result.header.stamp
    assert message.age_s == stamp - result.header.stamp.sec
    assert [each.track_id for each in message.result.instances] == [each.track_id for each in result.instances]
    assert len(message.confidence) == len(message.result.instances) == 10
    assert all(0.5 < each <= 1 for each in message.confidence)
    for before, now in zip(result.instances, message.result.instances, strict=True):
        mask = np.roll(rle_from_msg(before.mask).decode(), -20, axis=1)
        mask[:, -20:] = False
        found = rle_from_msg(now.mask).decode()
        assert (mask & found).sum() > 0.9 * (mask | found).sum()
        assert now.has_geometry, message.result.geometry_message
    assert message.result.geometry_frame_id == message.header.frame_id
    assert int(robot.status()['tracked_results']) >= 10


def test_the_masks_of_an_old_instruction_vanish_at_once(tracking):
    robot = tracking
    answered(robot, 'ten masks')
    robot.views.clear()
    robot.say('sleep 0.3')
    robot.wait(lambda: robot.nodes[0].logged("begins 'sleep 0.3'"))
    robot.see_several()
    assert all(each.result.instruction == 'sleep 0.3' for each in robot.views)
    answered(robot, 'nothing')
    assert robot.views[-1].result.status == InstanceArray.STATUS_NO_TARGET
    robot.say('')


def test_an_answer_is_brought_forward_to_the_newest_image(tracking):
    robot = tracking
    robot.say('')
    robot.results.clear()
    see_and_wait(robot, 0)
    robot.say('sleep 1')
    x = 0
    while not robot.results:
        x = min(x + 1, 30)
        robot.see(view(x))
        robot.wait_or_time_out(lambda: robot.results, 0.03)
    robot.views.clear()
    while not robot.views:  # the answer is carried to the images that come after its publication
        robot.see(view(x))
        robot.wait_or_time_out(lambda: robot.views, 0.3)
    message, result = robot.views[0], robot.results[-1]
    assert message.answer_stamp == result.header.stamp
    before, now = (
        np.mean([each.roi.x_offset + each.roi.width / 2 for each in of])
        for of in (result.instances, message.result.instances)
    )
    assert now < before - 5


def test_a_break_ends_the_carrying(tracking):
    robot = tracking
    answered(robot, 'ten masks')
    before = settled_count(robot)
    robot.frames = 0  # time goes back
    see_and_wait(robot, 0)
    see_and_wait(robot, 0)
    assert robot.status()['tracked_results'] == before
    answered(robot, 'ten masks again')
    assert robot.change_state('deactivate')
    assert robot.change_state('activate')
    robot.connect(robot.nodes[0], see=lambda: robot.see(view(0)))
    before = settled_count(robot)
    robot.see_several()
    assert robot.status()['tracked_results'] == before


def test_the_rate_is_limited_and_the_overlay_follows(tracking):
    robot = tracking
    answered(robot, 'ten masks')
    robot.look_at('perception/tracked/overlay', Image)
    while not any(isinstance(each, Image) for each in robot.views):
        robot.see(view(0))
        robot.wait_or_time_out(lambda: isinstance(robot.views[-1], Image), 0.3)
    assert robot.set('track_rate_hz', 0.01)[0]
    robot.see_several()
    before = settled_count(robot)
    robot.see_several(8)
    assert robot.status()['tracked_results'] == before
    assert robot.set('track_rate_hz', 200.0)[0]


def test_an_answer_to_an_image_before_the_first_subscriber_is_carried(robot):
    robot.start_active('track_rate_hz:=200.0', 'trigger:=on_instruction', 'score_threshold:=0.0')
    see_and_wait(robot, 0)
    robot.say('sleep 2')
    robot.wait(lambda: robot.nodes[0].logged("begins 'sleep 2'"))
    robot.look_at('perception/tracked/instances', TrackedInstanceArray)
    with robot.stream(lambda _: view(0)):
        robot.wait(lambda: robot.views)
    assert len(robot.views[0].result.instances) == 10

"""Geometry in another coordinate frame: TF at the image's stamp, or the reason why it is not known."""

import importlib.util
import sys
import threading
from types import SimpleNamespace

import numpy as np
import pytest

pytest.importorskip('rclpy', reason='needs ROS 2 or its wheels')

from builtin_interfaces.msg import Time
from geometry_msgs.msg import TransformStamped
from rclpy.parameter import Parameter

from instructsam_ros.node.parameters import BY_NAME, NodeParameters
from instructsam_ros.node.tf_buffer import create_tf_buffer
from instructsam_ros.pipeline.localization import TransformError
from instructsam_ros.pipeline.settings import Settings
from instructsam_ros.pipeline.transforms import TransformLookup

HAS_TF2 = importlib.util.find_spec('tf2_ros') is not None


@pytest.mark.skipif(HAS_TF2, reason='tf2_ros is installed here: this is about its absence')
def test_target_frame_is_refused_where_tf2_ros_is_missing(robot):
    robot.start('autostart:=false')
    successful, reason = robot.set('target_frame', 'base_link')
    assert not successful
    assert 'needs tf2_ros, which is not installed here' in reason
    assert robot.set('target_frame', '') == (True, '')
    node = robot.start('target_frame:=base_link')
    assert node.exit_code() == 2
    assert node.logged('needs tf2_ros')
    robot.nodes.remove(node)


@pytest.mark.parametrize('value', ['/', ' '])
def test_target_frame_is_a_frame(value):
    assert 'target_frame is a frame of TF' in BY_NAME['target_frame'].refusal(value)


class ParameterNode:
    """The part of a node that NodeParameters uses."""

    state = 'unconfigured'

    def add_on_set_parameters_callback(self, callback):
        self.check = callback

    def declare_parameter(self, name, default, descriptor):
        assert self.check([Parameter(name, value=default)]).successful

    def set(self, **values):
        return self.check([Parameter(name, value=value) for name, value in values.items()]).successful


def test_tf_is_listened_to_as_soon_as_there_is_a_target_frame(world):
    heard = []
    node = ParameterNode()
    NodeParameters(node, on_target_frame=lambda: heard.append('subscribe'))
    assert node.set(target_frame='', score_threshold=0.3)
    assert not node.set(target_frame='base', trigger='never')
    assert heard == []
    assert node.set(score_threshold=0.3, target_frame='base')
    assert heard == ['subscribe']


class StandInBuffer:
    """Stands in for tf2_ros.Buffer, which is not on PyPI: always answers, as tf2 does across any gap."""

    zero = False  # whether the answer is no rotation

    def __init__(self):
        self.stored = []

    def set_transform(self, transform, authority):
        self.stored.append(transform)

    set_transform_static = set_transform

    def clear(self):
        self.stored.clear()

    def lookup_transform(self, target, source, time):
        if 'lost' in (target, source):
            raise LookupError('"lost" does not exist')
        found = TransformStamped()
        found.transform.translation.x = 1.0
        found.transform.rotation.z = found.transform.rotation.w = (
            0.0 if self.zero else 0.5**0.5
        )  # 90 degrees to the left
        return found


class World:
    """TF and the images of cameras, in the order in which the test says that they arrive."""

    def __init__(self):
        self.transforms = TransformLookup(lambda receiver: create_tf_buffer(None, receiver))

    def hear(self, *secs, child='camera', parent='base', static=False, x=1.0, w=1.0):
        for sec in secs:
            transform = TransformStamped(child_frame_id=child)
            transform.header.frame_id, transform.header.stamp = parent, stamp(sec)
            transform.transform.translation.x, transform.transform.rotation.w = x, w
            self._receiver(static)(transform, 'test')

    def _receiver(self, static):
        return self.transforms.set_transform_static if static else self.transforms.set_transform

    def see(self, sec, camera=''):
        return self.transforms.put_image(camera, round(sec * 1000) * 1_000_000)

    def find(self, sec, target='base', source='camera', stamp_round=None, is_cancelled=lambda: False, **settings):
        settings, caller = Settings(**{'depth_timeout_s': 0.0, **settings}), SimpleNamespace(is_cancelled=is_cancelled)
        return self.transforms.in_round(stamp_round).lookup(target, source, stamp(sec), settings, caller)

    def refuses(self, sec, reason, **how):
        with pytest.raises(TransformError, match=reason):
            self.find(sec, **how)


def stamp(sec):
    return Time(sec=int(sec), nanosec=round(sec % 1 * 1000) * 1_000_000)


@pytest.fixture
def world(monkeypatch):
    tf2 = SimpleNamespace(Buffer=StandInBuffer, TransformListener=lambda receiver, node, spin_thread: None)
    monkeypatch.setitem(sys.modules, 'tf2_ros', tf2)
    world = World()
    world.transforms.subscribe()
    return world


def test_transform_at_the_stamp_of_the_image(world):
    world.hear(3, 4)
    rotation, translation = world.find(3.5)
    np.testing.assert_allclose(rotation @ [1, 0, 0] + translation, [1, 1, 0], atol=1e-12)
    world.find(3), world.find(4)
    world.refuses(2.999, "'camera' has transforms from 3.000000000 s on, and the image is of 2.999000000 s")
    world.refuses(4.001, "no transform from 'camera' to 'base' at the image's stamp: 'camera' has transforms until 4.0")
    world.refuses(3.5, '"lost" does not exist', target='lost')


def test_a_stamp_that_is_not_set_has_no_transform(world):
    world.hear(0, 1)
    world.refuses(0, 'the stamp of the image is 0, which means that it is not set')


def test_a_transform_is_waited_for(world):
    world.hear(3)
    late = threading.Thread(target=world.hear, args=(4,))
    with world.transforms._changed:  # It arrives while the lookup waits.
        late.start()
        world.find(3.5, depth_timeout_s=60.0)
    late.join()


def test_the_wait_for_a_transform_can_be_cancelled(world):
    world.hear(3)
    checks = iter([False, False, True])
    world.refuses(3.5, 'has transforms until 3.0', depth_timeout_s=60.0, is_cancelled=lambda: next(checks))


def test_an_answer_of_tf2_that_is_no_rotation_is_refused(world, monkeypatch):
    monkeypatch.setattr(StandInBuffer, 'zero', True)
    world.hear(3, 4)
    world.refuses(3.5, 'it cannot be used: a quaternion')


# Gaps, parents and kinds


def test_nothing_is_interpolated_across_a_gap(world):
    world.hear(23, 24, 32, 33)
    world.refuses(28, "'camera' has no transform from 24.0* s to 32.0* s, which is longer than tf_max_gap_s .1 s.")
    world.find(23.5), world.find(32.5), world.find(24)
    world.find(28, tf_max_gap_s=8.0)
    world.refuses(23.5, 'longer than', tf_max_gap_s=0.5)
    world.hear(48)  # tf2 would interpolate across more than it keeps
    world.refuses(40, 'from 33.0* s to 48.0* s', tf_max_gap_s=10.0)


def test_a_gap_anywhere_between_the_frames_counts(world):
    (
        world.hear(1, 2, child='arm'),
        world.hear(1, 1.5, 2, parent='hand'),
        world.hear(0, child='hand', parent='arm', static=True),
    )
    world.refuses(1.2, "'arm' has no transform from 1.0* s to 2.0* s", tf_max_gap_s=0.5)
    world.find(1.2, tf_max_gap_s=1.0)
    world.find(1.2, target='arm', tf_max_gap_s=0.5)  # the gap is above both frames
    world.find(900, target='arm', source='hand')  # static


def test_a_child_has_one_parent(world):
    world.hear(39, 40), world.hear(48, parent='odom')
    world.refuses(47, "'camera' has several parents in TF: 'base', 'odom'; it must have one")
    world.hear(60, 61, 62, child='arm'), world.hear(60.5, 61.5, child='arm', parent='world')
    for sec in (60.2, 60.7, 61):
        world.refuses(sec, "'arm' has several parents in TF: 'base', 'world'", source='arm')


def test_a_new_parent_is_used_where_the_old_one_has_ended(world):
    world.hear(200, 201, 202, 203, parent='rack'), world.hear(205, 206, 207, 208)
    world.refuses(204, 'several parents')
    world.find(207), world.find(201, target='rack')


def test_static_transforms_have_one_parent(world):
    world.hear(0, static=True), world.hear(0, static=True, x=2.0)
    world.find(5)
    world.hear(0, static=True, parent='rack')
    world.refuses(5, "'camera' has several parents in TF: 'base', 'rack'")


@pytest.mark.parametrize('is_static_first', [True, False])
def test_a_frame_is_static_or_not(world, is_static_first):
    for is_static in (is_static_first, not is_static_first):
        world.hear(51, 52, 53, static=is_static)
    world.refuses(52, "'camera' has transforms in /tf_static and in /tf: it must be either static or not")


def test_a_frame_that_becomes_static_is_static_from_then_on(world):
    """As with a calibration tool, which publishes to /tf and is closed, and whose result is published to /tf_static."""
    world.hear(100, 101, 102)
    world.hear(102, static=True, x=2.0)
    world.hear(102.5)  # /tf and /tf_static have no common order
    assert [each.transform.translation.x for each in world.transforms._buffer.stored][-1] == 2.0
    world.refuses(102.4, 'it must be either static or not')
    world.refuses(103.5, 'it must be either static or not')
    world.find(103.6), world.find(98.9)


def test_a_frame_that_becomes_static_is_static_after_all_transforms_were_forgotten(world):
    world.hear(100, 101, 102)
    world.hear(102, static=True)
    world.transforms.forget()
    world.find(102)


def test_a_loop_is_refused(world):
    world.hear(80, 81), world.hear(80, 81, child='base', parent='camera')
    world.refuses(80.5, 'are a loop that contains')


@pytest.mark.parametrize(
    ('broken', 'reason'),
    [
        ({'x': 1e300}, 'is farther than 1e.07 m'),
        ({'x': float('nan')}, 'its numbers are not finite'),
        ({'x': float('-inf')}, 'its numbers are not finite'),
        ({'w': 0.0}, 'its quaternion .0.0, 0.0, 0.0, 0.0. is not of length 1'),
        ({'w': 1e300}, 'is not of length 1'),
    ],
)
@pytest.mark.parametrize('static', [False, True])
def test_transforms_that_cannot_be_used(world, broken, reason, static):
    world.hear(1, 1.5, static=static, **broken), world.hear(2, 2.5, static=static, child='other')
    world.refuses(1.2, f"the transform from 'camera' to 'base' cannot be used: .*{reason}")
    world.find(2.2, source='other')
    assert {each.child_frame_id for each in world.transforms._buffer.stored} == {'other'}


def test_a_leading_slash_makes_no_difference(world):
    world.hear(1, 2, child='/camera'), world.hear(1, 2, child='base', parent='/map')
    world.find(1.5, target='map')


# Time that goes back


def test_images_that_go_back_by_any_amount_forget_the_transforms(world):
    world.hear(100, 100.4, 100.8, 100.9)
    old = world.see(100.8)
    world.find(100.8, stamp_round=old)
    new = world.see(100.3)
    world.refuses(
        100.3, "'camera' has no transform since all were forgotten, because stamps went back", stamp_round=new
    )
    world.hear(100.95)  # of the round before, and late
    world.refuses(100.95, "'camera' has no transform since", stamp_round=new)
    world.hear(100.35, 100.45, 100.9)
    world.find(100.4, stamp_round=new)
    world.refuses(100.34, "'camera' has transforms from 100.35", stamp_round=new)
    world.refuses(100.8, 'the stamps of the images have gone back since', stamp_round=old)


def test_every_round_of_stamps_is_forgotten_once(world):
    """However many cameras go back one after the other, nothing of the new round is lost."""
    world.see(100, 'left'), world.see(99, 'right'), world.see(101, 'left')  # each camera has its own order
    world.hear(99, 100, 101)
    world.find(99.5)
    assert world.see(60, 'left') == 1
    world.hear(60, 61)
    assert world.see(60.1, 'right') == 1
    world.find(60.5, stamp_round=1)
    assert (world.see(60.6, 'left'), world.see(0, 'left')) == (1, 1)  # a stamp that is not set says nothing


def test_transforms_that_lag_forget_nothing(world):
    world.see(307)
    for sec in (305, 306, 307, 308):
        world.hear(sec, sec - 2)
    world.find(307.5)
    world.hear(200)  # tf2 would ignore it as well
    world.find(307.5)


def test_a_wrong_stamp_in_the_future_is_no_obstacle(world):
    world.see(100)
    world.hear(100, 5000, 100.5, 101)
    world.find(100.7)


def test_static_transforms_are_of_all_rounds(world):
    world.hear(0, static=True)
    world.see(100), world.see(10)
    world.find(10.5)
    world.transforms.forget()
    world.find(10.5)

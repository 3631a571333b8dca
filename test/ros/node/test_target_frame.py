"""Geometry in another coordinate frame: TF at the image's stamp, and a clear refusal if tf2_ros is not installed."""

import importlib.util
import math
import sys
from types import SimpleNamespace

import numpy as np
import pytest

pytest.importorskip('rclpy', reason='needs ROS 2 or its wheels')

from builtin_interfaces.msg import Time
from geometry_msgs.msg import TransformStamped

from instructsam_ros.conversions.stamps import nanoseconds
from instructsam_ros.node.tf_buffer import create_tf_buffer
from instructsam_ros.pipeline.localization import TransformError
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


class StandInBuffer:
    """Stands in for tf2_ros.Buffer, which is not on PyPI: knows one transform at one time, and the latest one."""

    broken = ''  # a component of the transform's rotation or translation that is not finite

    def __init__(self):
        self.stored = []  # stamps in s

    def set_transform(self, transform, authority):
        self.stored.append(transform.header.stamp.sec)

    def clear(self):
        self.stored.clear()

    def lookup_transform(self, target, source, time, timeout):
        if (target, source) != ('base', 'camera') or time.nanoseconds not in (3_000_000_005, 0):
            raise LookupError('would require extrapolation into the past')
        found = TransformStamped()
        if self.broken == 'zero':
            found.transform.rotation.w = 0.0
            return found
        found.transform.translation.x = 1.0
        found.transform.rotation.z = found.transform.rotation.w = 0.5**0.5  # a rotation by 90 degrees to the left
        if self.broken:
            getattr(found.transform, self.broken).y = math.nan
        return found


@pytest.fixture
def transforms(monkeypatch):
    tf2 = SimpleNamespace(Buffer=StandInBuffer, TransformListener=lambda buffer, node, spin_thread: None)
    monkeypatch.setitem(sys.modules, 'tf2_ros', tf2)
    return TransformLookup(lambda: create_tf_buffer(node=None))


def test_transform_at_the_stamp_of_the_image(transforms):
    rotation, translation = transforms.lookup('base', 'camera', Time(sec=3, nanosec=5), 0.1)
    np.testing.assert_allclose(rotation @ [1, 0, 0] + translation, [1, 1, 0], atol=1e-12)
    with pytest.raises(
        TransformError, match="no transform from 'camera' to 'base' at the image's stamp: would require"
    ):
        transforms.lookup('base', 'camera', Time(sec=3, nanosec=6), 0.1)


def test_a_stamp_that_is_not_set_has_no_transform(transforms):
    with pytest.raises(TransformError, match='the stamp of the image is 0, which means that it is not set'):
        transforms.lookup('base', 'camera', Time(), 0.1)


@pytest.mark.parametrize('broken', ['zero', 'rotation', 'translation'])
def test_transforms_that_are_none_are_refused(monkeypatch, transforms, broken):
    monkeypatch.setattr(StandInBuffer, 'broken', broken)
    with pytest.raises(TransformError, match="the transform from 'camera' to 'base' cannot be used: a "):
        transforms.lookup('base', 'camera', Time(sec=3, nanosec=5), 0.1)


def test_every_round_of_stamps_is_forgotten_once(transforms):
    """However many cameras and transforms go back one after the other, nothing of the new round is lost."""

    def hear(sec, child='camera'):
        transform = TransformStamped(child_frame_id=child)
        transform.header.stamp.sec = sec
        buffer.set_transform(transform, 'test')

    transforms.lookup('base', 'camera', Time(sec=3, nanosec=5), 0.1)
    buffer = transforms._buffer
    hear(100), hear(101, 'hand'), hear(109)
    transforms.restart_at(nanoseconds(Time(sec=60)))  # the first to go back is a camera
    assert buffer.stored == []
    hear(60), hear(61, 'hand')
    transforms.restart_at(nanoseconds(Time(sec=60, nanosec=5)))  # another camera follows
    assert buffer.stored == [60, 61]
    hear(20, 'hand'), hear(20)  # the first is a transform
    transforms.restart_at(nanoseconds(Time(sec=20)))
    transforms.restart_at(nanoseconds(Time(sec=21)))
    assert buffer.stored == [20, 20]

"""Results as vision_msgs, on the topics of a node and over DDS; test_parameters.py has a node without the package."""

import time

import numpy as np
import pytest

pytest.importorskip('rclpy', reason='needs ROS 2 or its wheels')

from robot import PATIENCE_S
from std_msgs.msg import Header

from instructsam_ros.conversions.vision_msgs import detections_2d, detections_3d
from instructsam_ros.msg import Instance, InstanceArray

DEPTH = np.full((48, 64), 400, np.uint16)  # mm: a table, an object on it, and a part that was not measured
DEPTH[8:21, 2:11] = 350
DEPTH[:, 40:] = 0


@pytest.fixture(scope='module')
def see(vision_msgs, lasting_robot):
    """A function that publishes an image, with depth or without, and returns (result, 2D array, 3D array)."""
    robot = lasting_robot
    robot.start_active('vision_msgs:=true', 'instruction:=the mugs')
    for topic, kind in (('2d', vision_msgs.Detection2DArray), ('3d', vision_msgs.Detection3DArray)):
        robot.look_at(f'/perception/detections_{topic}', kind)

    def see(depth):
        if depth is not None:
            robot.measure(depth, stamp=robot.frames + 1)
        result = robot.result_of(robot.see())

        def arrived():
            return [view for view in robot.views if view.header.stamp == result.header.stamp]

        robot.wait(lambda: len(arrived()) == 2)
        return result, *sorted(arrived(), key=lambda view: type(view).__name__)

    deadline = time.monotonic() + PATIENCE_S
    while not robot.result_of(robot.measure(DEPTH, stamp=robot.frames + 1) or robot.see()).geometry_frame_id:
        assert time.monotonic() < deadline  # until the depth publisher has been discovered
    robot.set('depth_timeout_s', 5.0)
    return see


def test_both_arrays_say_the_same_as_the_result(see):
    result, two, three = see(DEPTH)
    assert two.header == result.header
    assert len(two.detections) == len(result.instances) == 9
    for detection, instance in zip(two.detections, result.instances, strict=True):
        assert detection.header == result.header
        (hypothesis,) = (each.hypothesis for each in detection.results)
        assert (hypothesis.class_id, hypothesis.score) == (instance.phrase, pytest.approx(instance.score))
        assert detection.id == str(instance.track_id)
        box, roi = detection.bbox, instance.roi
        assert (box.center.position.x - box.size_x / 2, box.size_x) == (roi.x_offset, roi.width)
        assert (box.center.position.y - box.size_y / 2, box.size_y) == (roi.y_offset, roi.height)
        assert box.center.theta == 0
    located = [instance for instance in result.instances if instance.has_geometry]
    assert 0 < len(located) < 9
    assert three.header == result.header
    assert result.geometry_frame_id == 'camera_color_optical_frame'
    assert [each.id for each in three.detections] == [str(instance.track_id) for instance in located]
    for detection, instance in zip(three.detections, located, strict=True):
        assert (detection.bbox.center, detection.bbox.size) == (instance.geometry.pose, instance.geometry.size)
        assert detection.results[0].pose.pose == instance.geometry.pose
        assert not np.any(detection.results[0].pose.covariance)
        assert detection.header == three.header


def test_without_depth_the_array_in_3d_is_empty(see, lasting_robot):
    lasting_robot.set('depth_timeout_s', 0.0)
    result, two, three = see(None)
    assert two.header == three.header == result.header
    assert (len(two.detections), len(three.detections)) == (9, 0)


def test_objects_that_are_not_tracked_and_another_frame(vision_msgs):
    message = InstanceArray(header=Header(frame_id='camera'), geometry_frame_id='base_link')
    message.header.stamp.sec = 7
    for has_geometry in (False, True):
        message.instances.append(Instance(track_id=Instance.UNTRACKED, phrase='mug', has_geometry=has_geometry))
    two, three = detections_2d(message), detections_3d(message)
    assert [each.id for each in two.detections] == ['', '']
    assert (two.header.frame_id, len(three.detections)) == ('camera', 1)
    assert (three.header.frame_id, three.header.stamp.sec) == ('base_link', 7)
    assert message.header.frame_id == 'camera'

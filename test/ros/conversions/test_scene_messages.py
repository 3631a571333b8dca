"""Point clouds, markers and grasp candidates as messages: fields, frames and the instance that each belongs to."""

import dataclasses

import numpy as np
import pytest

pytest.importorskip('rclpy', reason='needs ROS 2 or its wheels')

from diagnostic_msgs.msg import DiagnosticStatus
from geometry_msgs.msg import Point
from sensor_msgs.msg import PointCloud2, PointField
from std_msgs.msg import Header
from visualization_msgs.msg import Marker

from instructsam.core.result import Instance, Result
from instructsam.core.rle import Rle
from instructsam.core.spatial.camera_model import CameraModel
from instructsam.core.spatial.geometry import locate
from instructsam.core.spatial.grasping import GraspResult, find_grasps, grasp_candidates
from instructsam_ros.conversions.grasps import grasp_poses, grasp_status, instance_grasps
from instructsam_ros.conversions.markers import markers
from instructsam_ros.conversions.point_clouds import cloud, read_cloud
from instructsam_ros.conversions.poses import pose

HEIGHT, WIDTH = 120, 160
CAMERA = CameraModel(HEIGHT, WIDTH, np.array([[200.0, 0, 79.5], [0, 200, 59.5], [0, 0, 1]]))
HEADER = Header(frame_id='camera_color_optical_frame')
HEADER.stamp.sec = 7


@pytest.fixture(scope='module')
def seen():
    """Return (Result, image): two boxes 5 cm high on a table 0.8 m below the camera, and an instance without depth."""
    depth = np.full((HEIGHT, WIDTH), 0.8, np.float32)
    masks = np.zeros((3, HEIGHT, WIDTH), bool)
    masks[0, 30:50, 30:42] = masks[1, 70:80, 100:118] = masks[2, 100:110, 10:30] = True
    depth[masks[0] | masks[1]] = 0.75
    depth[masks[2]] = 0
    image = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    image[masks[0]], image[masks[1]] = (200, 100, 50), (1, 2, 3)
    instances = tuple(
        Instance(Rle.encode(mask), score, name, 0, track_id=track)
        for mask, score, name, track in zip(masks, (0.9, 0.8, 0.7), ('box', 'tin', 'glass'), (4, -1, 6), strict=True)
    )
    result = locate(Result('', '', HEIGHT, WIDTH, instances), depth, CAMERA)
    assert [each.geometry is None for each in result.instances] == [False, False, True]
    return result, image


def test_points_have_their_colour_and_their_instance(seen):
    result, image = seen
    message = cloud(result, image, HEADER)
    assert message.header == HEADER
    assert message.height == 1
    assert message.is_dense
    assert [field.name for field in message.fields] == ['x', 'y', 'z', 'rgb', 'instance']
    assert message.fields[3].datatype == PointField.FLOAT32  # as PCL and RViz expect it
    assert len(message.data) == message.row_step == message.width * message.point_step
    points, owners = read_cloud(message)
    assert list(np.bincount(owners)) == [each.geometry.surface.count for each in result.instances[:2]]
    np.testing.assert_array_equal(points[owners == 1], result.instances[1].geometry.points)
    raw = np.frombuffer(message.data, np.uint32).reshape(-1, message.point_step // 4)[:, 3]
    assert set(raw[owners == 0]) == {200 << 16 | 100 << 8 | 50}
    assert set(raw[owners == 1]) == {1 << 16 | 2 << 8 | 3}


def test_sensor_msgs_py_reads_them(seen):
    point_cloud2 = pytest.importorskip('sensor_msgs_py.point_cloud2', reason='part of a ROS installation')
    message = cloud(*seen, HEADER)
    read = point_cloud2.read_points(message, field_names=['x', 'y', 'z', 'instance'])
    points, owners = read_cloud(message)
    np.testing.assert_array_equal(np.stack([read[axis] for axis in 'xyz'], axis=1), points)
    np.testing.assert_array_equal(read['instance'], owners)


def test_nothing_located_is_an_empty_cloud():
    message = cloud(Result('', '', 4, 4, ()), np.zeros((4, 4, 3), np.uint8), HEADER)
    assert isinstance(message, PointCloud2)
    assert message.width == 0
    assert not len(message.data)
    assert len(read_cloud(message)[0]) == 0


def test_markers_are_boxes_and_names_of_located_instances(seen):
    result, _ = seen
    first, *rest = markers(result, HEADER).markers
    assert first.action == Marker.DELETEALL
    assert first.header == HEADER
    boxes, names = ([marker for marker in rest if marker.ns == kind] for kind in ('boxes', 'names'))
    assert len(boxes) == len(names) == 2
    assert {marker.header.frame_id for marker in rest} == {HEADER.frame_id}
    assert [marker.text for marker in names] == ['#4 box 0.90', 'tin 0.80']
    for box, name, instance in zip(boxes, names, result.instances, strict=False):
        geometry = instance.geometry
        assert box.pose.position == Point(**dict(zip('xyz', map(float, geometry.center), strict=True)))
        assert [box.scale.x, box.scale.y, box.scale.z] == pytest.approx(geometry.size_m)
        above = [name.pose.position.x, name.pose.position.y, name.pose.position.z] - geometry.center
        assert above @ geometry.rotation[:, 2] > geometry.size_m[2] / 2
    assert boxes[0].color != boxes[1].color


def test_grasps_are_the_candidates_of_each_instance_in_turn(seen):
    result, _ = seen
    expected = [
        pose(grasp.position, grasp.rotation)
        for instance in result.instances[:2]
        for grasp in grasp_candidates(instance.geometry)
    ]
    message = grasp_poses(instance_grasps(result), HEADER)
    assert message.header == HEADER
    assert message.poses == expected
    assert expected


def test_the_status_says_which_poses_belong_to_an_instance_or_why_there_are_none(seen):
    result, _ = seen
    found = find_grasps(result.instances[0].geometry)
    grasps = [GraspResult([], 'it is 12.3 cm wide'), found, *instance_grasps(result)[2:]]
    message = grasp_status(result.instances, grasps, HEADER)
    assert message.header == HEADER
    wide, good, *_ = message.status
    assert (wide.level, wide.message) == (DiagnosticStatus.WARN, 'it is 12.3 cm wide')
    assert (good.level, good.message) == (DiagnosticStatus.OK, '')
    values = {each.key: each.value for each in good.values}
    assert (values['instance'], values['first_pose'], values['poses']) == ('1', '0', str(len(found.candidates)))
    assert float(values['opening_m'].split()[0]) == pytest.approx(found.candidates[0].opening_m, abs=1e-4)


def test_an_instance_that_was_not_measured_has_no_grasp_and_the_same_reason(seen):
    result, _ = seen
    unmeasured = dataclasses.replace(result.instances[0], geometry=None, geometry_message='no depth')
    result = dataclasses.replace(result, instances=(unmeasured,))
    assert [each.reason for each in instance_grasps(result)] == ['no depth']

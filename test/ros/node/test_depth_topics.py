"""3D in the node: pairing of depth and image, and the messages about missing and bad depth."""

import math
import time
from functools import partial

import numpy as np
import pytest
import scenery

pytest.importorskip('rclpy', reason='needs ROS 2 or its wheels')

from action_msgs.msg import GoalStatus
from depth_messages import compressed_depth, rvl
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from geometry_msgs.msg import PoseArray
from robot import PATIENCE_S
from sensor_msgs.msg import CameraInfo, CompressedImage, Image, PointCloud2
from std_msgs.msg import Header
from visualization_msgs.msg import MarkerArray

from instructsam_ros.conversions.instances import image_msg
from instructsam_ros.conversions.point_clouds import read_cloud
from instructsam_ros.msg import InstanceArray

OPTICAL = 'camera_color_optical_frame'
TIMEOUT_S = 5.0  # longest wait for depth, which may arrive late on a busy machine
K = [60.0, 0.0, 31.5, 0.0, 60.0, 23.5, 0.0, 0.0, 1.0]


table = partial(scenery.table, 48, 64)


@pytest.fixture
def robot(lasting_robot):
    """A robot with an active node; shared by most tests."""
    if not lasting_robot.nodes:
        lasting_robot.start_active('instruction:=the mugs')
    lasting_robot.results.clear()
    lasting_robot.set('depth_tolerance_s', 0.0)
    lasting_robot.set('depth_timeout_s', TIMEOUT_S)
    return lasting_robot


@pytest.fixture
def seeing(robot):
    """A function `see(depth, ...)` that returns the result on a new image with that depth."""

    def see(depth=None, stamp=None, **fields):
        robot.frames += 1  # depth first, so that the node need not wait for it
        robot.measure(table() if depth is None else depth, stamp=robot.frames if stamp is None else stamp, **fields)
        robot.frames -= 1
        return robot.result_of(robot.see())

    deadline = time.monotonic() + PATIENCE_S
    while not see().geometry_frame_id:  # until the depth publisher has been discovered
        assert time.monotonic() < deadline, robot.nodes[0].log
    return see


def test_instances_are_located(robot, seeing):
    result = seeing(table(count=1))  # with only the table around it
    assert (result.geometry_frame_id, result.geometry_message) == (OPTICAL, '')
    assert result.geometry_ms > 0
    assert all(each.has_geometry and not each.geometry_message for each in result.instances)
    first = result.instances[0]
    x0, y0, x1, y1 = first.roi.x_offset, first.roi.y_offset, first.roi.width, first.roi.height
    geometry = first.geometry
    assert geometry.pose.position.z == pytest.approx(0.975, abs=0.01)  # the middle of its height
    assert geometry.pose.position.x == pytest.approx((x0 + (x1 - 1) / 2 - 31.5) / 60 * 0.95, abs=0.02)
    assert geometry.pose.position.y == pytest.approx((y0 + (y1 - 1) / 2 - 23.5) / 60 * 0.95, abs=0.02)
    assert geometry.size.z == pytest.approx(0.05, abs=0.005)
    assert geometry.has_support
    assert geometry.valid_depth == 1
    assert geometry.points > 100
    assert [each.track_id for each in seeing().instances] == [each.track_id for each in result.instances]
    status = robot.status()
    assert int(status['results_with_depth']) >= 2


def test_metres_and_millimetres_agree(robot, seeing):
    in_mm = seeing().instances[0].geometry
    in_m = seeing((table() / 1000).astype(np.float32)).instances[0].geometry
    assert in_mm.pose.position.z == pytest.approx(in_m.pose.position.z, abs=1e-4)
    assert in_mm.points == in_m.points


def test_missing_depth_is_reported_and_counted(robot, seeing):
    before = int(robot.status()['results_without_depth'])
    assert robot.set('depth_timeout_s', 0.05) == (True, '')
    result = robot.result_of(robot.see())
    assert result.status == InstanceArray.STATUS_OK
    assert result.instances
    assert result.geometry_frame_id == ''
    assert not any(each.has_geometry for each in result.instances)
    assert 'no depth image with the stamp of the image' in result.geometry_message
    robot.wait(lambda: int(robot.status()['results_without_depth']) == before + 1)
    assert robot.nodes[0].logged('no 3D geometry: no depth image with the stamp of the image')


def test_tolerance(robot, seeing):
    robot.frames += 5
    robot.measure(table(), stamp=robot.frames)
    assert seeing(stamp=robot.frames - 100).geometry_frame_id == ''  # stamps that go backwards pair with nothing
    seeing()  # depth and images count as one recording again
    assert robot.set('depth_tolerance_s', 1.0) == (True, '')
    result = seeing(stamp=robot.frames)  # the depth's stamp is one second earlier
    assert result.geometry_frame_id == OPTICAL


def test_depth_that_comes_later_is_waited_for(robot, seeing):
    stamp = robot.see()
    robot.measure(table(), stamp=stamp)
    assert robot.result_of(stamp).geometry_frame_id == OPTICAL


@pytest.mark.parametrize(
    ('depth', 'fields', 'says'),
    [
        (np.full((24, 32), 1000, np.uint16), {}, 'align'),
        (table(), {'k': [0.0] * 9}, 'focal lengths'),
        (table(), {'encoding': 'rgb8'}, 'expected 16UC1'),
        (table(), {'data': b'12'}, 'data has 2 bytes'),
        (table() // 100, {}, 'the median of the 16-bit depth is 9'),
        (table().astype(np.float32), {}, 'probably in mm'),
        (table(), {'frame_id': 'depth_frame'}, "depth is of the frame 'depth_frame', the image of 'camera_color_opti"),
        (table(), {'info': {'frame_id': 'depth_frame'}}, "camera_info is of the frame 'depth_frame'"),
        (table(), {'info': {'width': 640, 'height': 480}}, 'is of 640 x 480 pixels, the image is of 64 x 48'),
        (table(), {'info': {'d': [math.nan] * 5}}, 'camera_info.d has numbers that are not finite'),
    ],
    ids=[
        *('another size', 'intrinsics of zeros', 'another encoding', 'truncated', 'dm', 'mm as float'),
        *('depth of another camera', 'info of another camera', 'info of another size', 'not finite'),
    ],
)
def test_bad_depth_is_named_and_masks_are_not_lost(seeing, depth, fields, says):
    result = seeing(depth, **fields)
    assert result.status == InstanceArray.STATUS_OK
    assert len(result.instances) == 9
    assert result.geometry_frame_id == ''
    assert says in result.geometry_message
    assert seeing().geometry_frame_id == OPTICAL


def test_rectified_images_and_frames_by_parameter(robot, seeing):
    p = [30.0, 0.0, 31.5, 0.0, 0.0, 30.0, 23.5, 0.0, 0.0, 0.0, 1.0, 0.0]
    calibrated = {'info': {'p': p, 'd': [0.1, 0.0, 0.0, 0.0, 0.0]}}
    try:
        raw = seeing(**calibrated).instances[0].geometry.pose.position
        for value in (True, 'true'):  # `ros2 param set` sends a bool
            assert robot.set('rectified', value) == (True, '')
            rectified = seeing(**calibrated).instances[0].geometry.pose.position
            assert rectified.x == pytest.approx(2 * raw.x, rel=0.2)  # half the focal length
        assert robot.set('rectified', 'perhaps') == (False, "rectified is one of auto, true, false, got 'perhaps'")
        assert robot.set('frame_tolerance', f'{OPTICAL}=depth_frame') == (True, '')
        assert seeing(frame_id='depth_frame').geometry_frame_id == OPTICAL
        assert robot.set('frame_tolerance', 'depth_frame')[0] is False
    finally:
        robot.set('rectified', 'auto')
        robot.set('frame_tolerance', '')


def test_a_stamp_of_zero_pairs_with_nothing(robot, seeing):
    robot.set('depth_tolerance_s', 1.0)
    robot.set('depth_timeout_s', 0.05)
    robot.measure(table(), stamp=0)
    frames, robot.frames = robot.frames, -1
    result = robot.result_of(robot.see())
    robot.frames = frames
    assert 'the stamp of the image is 0, which means that it is not set' in result.geometry_message
    assert not any(each.has_geometry for each in result.instances)


@pytest.mark.parametrize('nothing', [np.zeros((48, 64), np.uint16), np.full((48, 64), np.nan, np.float32)], ids=str)
def test_depth_without_a_measurement_is_named_for_each(seeing, nothing):
    result = seeing(nothing)
    assert len(result.instances) == 9
    assert all(not each.has_geometry and '0 % of the mask' in each.geometry_message for each in result.instances)


def test_points_markers_and_grasps_for_subscribers(robot, seeing):
    kinds = {
        'points': PointCloud2,
        'markers': MarkerArray,
        'grasp_candidates': PoseArray,
        'grasp_status': DiagnosticArray,
    }
    for topic, kind in kinds.items():
        robot.look_at(f'perception/{topic}', kind)
    while {type(message) for message in robot.views} != set(kinds.values()):
        result = seeing()
    cloud = next(message for message in robot.views if isinstance(message, PointCloud2))
    points, owners = read_cloud(cloud)
    assert cloud.header.frame_id == OPTICAL
    assert set(owners) == set(range(len(result.instances)))
    assert len(points) == sum(each.geometry.points for each in result.instances)
    boxes = next(message for message in robot.views if isinstance(message, MarkerArray)).markers
    assert {marker.header.frame_id for marker in boxes} == {OPTICAL}
    statuses = next(message for message in robot.views if isinstance(message, DiagnosticArray)).status
    assert len(statuses) == len(result.instances)
    assert all(each.message for each in statuses if each.level == DiagnosticStatus.WARN)


def test_goals_are_located_too(robot, seeing):
    seeing()
    goal = robot.ask('the cups', points=True)
    answer = goal.end()[1]
    assert answer.geometry_frame_id == OPTICAL
    assert answer.instances[0].has_geometry
    points, _ = read_cloud(goal.response.result.points)
    assert len(points) == sum(each.geometry.points for each in answer.instances)
    header = Header(frame_id='elsewhere')
    image, depth = image_msg(np.zeros((48, 64, 3), np.uint8), header), image_msg(table(), header)
    depth.encoding = '16UC1'
    info = CameraInfo(header=header, height=48, width=64, k=K)
    answer = robot.ask('the cups', image=image, depth=depth, camera_info=info).end()[1]
    assert answer.geometry_frame_id == 'elsewhere'
    assert answer.instances[0].has_geometry
    answer = robot.ask('the cups', image=image).end()[1]
    assert (answer.geometry_frame_id, answer.geometry_message) == ('', 'the goal has an image but no depth')
    for given in ({'depth': depth}, {'camera_info': info}, {'image': Image(height=48, width=64)}):
        status, answer = robot.ask('the cups', **given).end()
        assert (status, 'the image of the goal has no data' in answer.message) == (GoalStatus.STATUS_ABORTED, True)


def test_compressed_depth(lone_robot):
    robot = lone_robot
    node = robot.start_active('instruction:=the mugs', 'depth_transport:=compressed', f'depth_timeout_s:={TIMEOUT_S}')
    robot.wait(lambda: node.logged('no depth on /depth/compressed'))
    line = node.logged('no depth on /depth/compressed')[0]
    assert 'it has no publisher, but /depth has: set depth_transport to raw' in line
    assert robot.change_state('deactivate')
    assert robot.change_state('cleanup')
    assert robot.set('depth_transport', 'compressedDepth') == (True, '')
    assert robot.change_state('configure')
    assert robot.change_state('activate')

    def located(depth):
        robot.measure_compressed(depth, robot.frames + 1)
        return robot.result_of(robot.see())

    deadline = time.monotonic() + PATIENCE_S
    while not (in_mm := located(compressed_depth(table()))).geometry_frame_id:  # until it has been discovered
        assert time.monotonic() < deadline, node.log
    in_m = located(compressed_depth((table() / 1000).astype(np.float32), rvl))
    for result in (in_mm, in_m):
        assert len(result.instances) == 9
        assert all(each.geometry.centroid.z == pytest.approx(0.95, abs=2e-3) for each in result.instances)
    jpeg = CompressedImage(format='16UC1; jpeg compressed mono8', data=b'\xff\xd8')
    assert 'JPEG, which loses the depth' in located(jpeg).geometry_message


def test_without_any_depth_there_is_no_wait(lone_robot):
    robot = lone_robot
    robot.start_active('instruction:=the mugs')
    result = robot.result_of(robot.see())
    assert (result.geometry_frame_id, result.geometry_message) == ('', 'no depth image has been received')
    assert robot.status()['results_without_depth'] == '0'  # a camera without depth is not expected to have it

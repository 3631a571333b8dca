"""The simulated camera as seen by its user: matching messages, ground truth and resets."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest

pytest.importorskip('rclpy', reason='needs ROS 2 or its wheels')
pytest.importorskip('mujoco', reason='the tabletop world is drawn with MuJoCo: pip install mujoco')

from geometry_msgs.msg import PoseStamped
from rclpy.qos import DurabilityPolicy, QoSProfile
from robot import PATIENCE_S
from sensor_msgs.msg import CameraInfo, Image
from std_msgs.msg import String

from instructsam.core.rle import Rle
from instructsam.core.spatial.camera_model import CameraModel
from instructsam.core.spatial.geometry import measure
from instructsam.train.tabletop.scenes import scene
from instructsam_ros.conversions.poses import position_of, rotation_of
from instructsam_ros.srv import ResetScene

COMMAND = (sys.executable, '-m', 'instructsam_ros.simulation.simulated_camera')
OPTICAL = 'camera_color_optical_frame'
WIDTH, HEIGHT = 320, 240
NEAR_M = 0.02
ATTEMPTS = 3
TOPICS = {'image': Image, 'depth': Image, 'camera_info': CameraInfo, 'simulated_camera/pose': PoseStamped}


@pytest.fixture(scope='module', autouse=True)
def opengl():
    try:
        scene._renderer(WIDTH, HEIGHT)
    except RuntimeError as error:
        pytest.skip(f'no off-screen OpenGL here: {error}')


class Watcher:
    """Collects the messages of a simulated camera by stamp."""

    def __init__(self, robot, *parameters):
        self._robot = robot
        self._kept = {name: [] for name in (*TOPICS, 'truth')}
        for name, kind in TOPICS.items():
            robot.node.create_subscription(kind, name, robot.keep(self._kept[name]), 100)
        latched = QoSProfile(depth=10, durability=DurabilityPolicy.TRANSIENT_LOCAL)
        robot.node.create_subscription(String, 'simulated_camera/truth', robot.keep(self._kept['truth']), latched)
        self._reset = robot.node.create_client(ResetScene, 'simulated_camera/reset')
        robot.start(f'width:={WIDTH}', f'height:={HEIGHT}', *parameters, command=COMMAND)
        robot.wait(self._reset.service_is_ready)

    def frames(self, count, since=(0, 0), with_truth=False):
        """Return the first `count` complete frames, oldest first, as {topic: message of the same stamp}.

        Args:
            count: number of frames.
            since: earliest stamp.
            with_truth: only frames whose ground truth has arrived too; a new subscriber may miss the first one.
        """
        found = {}

        def complete():
            kept = [{_key(each.header.stamp): each for each in list(self._kept[name])} for name in TOPICS]
            stamps = set.intersection(*map(set, kept))
            if with_truth:
                stamps &= set(self._ground_ground_truths())
            for key in stamps:
                if key >= since:
                    found[key] = {name: each[key] for name, each in zip(TOPICS, kept, strict=True)}
            return len(found) >= count

        self._robot.wait(complete)
        return [found[key] for key in sorted(found)[:count]]

    def ground_truth(self, stamp):
        """Return the ground truth that was published with `stamp`."""
        self._robot.wait(lambda: stamp in self._ground_ground_truths())
        return self._ground_ground_truths()[stamp]

    def _ground_ground_truths(self):
        ground_truths = [json.loads(each.data) for each in list(self._kept['truth'])]
        return {(each['stamp']['sec'], each['stamp']['nanosec']): each for each in ground_truths}

    def first_ground_truth(self):
        self._robot.wait(lambda: self._kept['truth'])
        return json.loads(self._kept['truth'][0].data)

    def newest(self):
        """Return the stamp of the newest image so far."""
        return max(_key(each.header.stamp) for each in list(self._kept['image']))

    def reset(self, **fields):
        for _ in range(ATTEMPTS):  # the first response may be lost, see Robot.call
            future = self._reset.call_async(ResetScene.Request(**fields))
            if self._robot.wait_or_time_out(future.done, PATIENCE_S / ATTEMPTS):
                return future.result()
        raise AssertionError('reset did not answer')


def _key(stamp):
    return stamp.sec, stamp.nanosec


def pixels(message):
    dtype, channels = {'rgb8': (np.uint8, 3), '16UC1': (np.uint16, 1)}[message.encoding]
    return np.frombuffer(message.data, dtype).reshape(message.height, message.width, channels).squeeze()


def same_bytes(one, other):
    return all(bytes(one[name].data) == bytes(other[name].data) for name in ('image', 'depth'))


def located(frame, ground_truth):
    """Return {id: (measured, true)} with the box centers [3] m of all fully visible objects."""
    info = frame['camera_info']
    camera = CameraModel(info.height, info.width, np.reshape(info.k, (3, 3)), info.d, info.distortion_model)
    seen = [item for item in ground_truth['objects'] if item['visible'] > 0.95 and item['seen_px'] > 200]
    depth = pixels(frame['depth'])
    return {
        item['id']: (measure(Rle.from_coco(item['mask']), depth, camera).center, np.array(item['camera_m']))
        for item in seen
    }


def test_a_still_scene_and_its_ground_truth(robot):
    watcher = Watcher(robot, 'seed:=4')
    frames = watcher.frames(3)
    for frame in frames:
        image, depth, info = (frame[name] for name in ('image', 'depth', 'camera_info'))
        assert image.header == depth.header == info.header
        assert image.header.frame_id == OPTICAL
        sizes = {(each.height, each.width) for each in (image, depth, info)}
        assert sizes == {(HEIGHT, WIDTH)}
        assert (image.encoding, depth.encoding) == ('rgb8', '16UC1')
        assert frame['simulated_camera/pose'].header.frame_id == 'world'
        assert same_bytes(frame, frames[0])
    assert pixels(frames[0]['image']).std() > 10
    ground_truth = watcher.first_ground_truth()
    assert ground_truth['name'] == 'test_4_000000'
    assert ground_truth['frame_id'] == OPTICAL
    np.testing.assert_allclose(np.reshape(frames[0]['camera_info'].k, (3, 3)), ground_truth['intrinsics'], atol=1e-5)
    centers = located(frames[0], ground_truth)
    apart_m = [np.linalg.norm(found - true) for found, true in centers.values()]
    assert len(apart_m) >= 3
    assert np.median(apart_m) < NEAR_M
    pose = frames[0]['simulated_camera/pose'].pose
    position, rotation = position_of(pose.position), rotation_of(pose.orientation)
    for item in ground_truth['objects']:
        in_world = rotation @ item['camera_m'] + position
        np.testing.assert_allclose(in_world, item['center_m'], atol=1e-4)


def test_reset_shows_another_scene_and_the_first_one_again(robot):
    watcher = Watcher(robot, 'seed:=4', 'split:=val')
    before = watcher.frames(1)[0]
    shown = {}
    for name, fields in {
        'other': {'seed': 5, 'split': 'val'},
        'default split': {'seed': 4},
        'again': {'seed': 4, 'split': 'val'},
    }.items():
        response = watcher.reset(**fields)
        assert response.success, response.message
        stamp = _key(response.stamp)
        assert watcher.ground_truth(stamp)['split'] == fields.get('split', 'test')
        shown[name] = watcher.frames(1, stamp)[0]
        assert _key(shown[name]['image'].header.stamp) == stamp
    assert not same_bytes(shown['other'], before)
    assert not same_bytes(shown['default split'], before)
    assert same_bytes(shown['again'], before)

    refused = watcher.reset(split='tset', seed=1)
    assert not refused.success
    assert "split 'tset' is not one of train, val, test, unseen" in refused.message
    assert 'stays' in refused.message
    assert all(same_bytes(frame, before) for frame in watcher.frames(3, since=watcher.newest()))


def test_a_moving_camera_and_its_ground_truth(robot):
    watcher = Watcher(robot, 'seed:=4', 'moving:=true', 'rate_hz:=5.0')
    first, *_, last = watcher.frames(4, with_truth=True)
    assert not same_bytes(first, last)
    before, after = (position_of(frame['simulated_camera/pose'].pose.position) for frame in (first, last))
    moved_m = np.linalg.norm(after - before)
    assert 0.001 < moved_m < 0.5
    ground_truths = [watcher.ground_truth(_key(frame['image'].header.stamp)) for frame in (first, last)]
    assert ground_truths[0]['camera_to_world'] != ground_truths[1]['camera_to_world']
    assert [each['id'] for each in ground_truths[0]['objects']] == [each['id'] for each in ground_truths[1]['objects']]
    apart_m = [np.linalg.norm(found - true) for found, true in located(last, ground_truths[1]).values()]
    assert apart_m
    assert np.median(apart_m) < NEAR_M


@pytest.mark.parametrize(
    ('parameter', 'says'),
    [
        ('split:=tset', "split 'tset' is not one of train, val, test, unseen"),
        ('width:=10', 'width out of range. Min: 32'),
        ('rate_hz:=fast', "'rate_hz' to 'fast' of type 'STRING', expecting type 'DOUBLE'"),
        ("frame_id:=''", 'frame_id is empty'),
    ],
)
def test_bad_parameters_end_the_node_with_one_line(domain_id, parameter, says):
    env = os.environ | {'ROS_DOMAIN_ID': str(domain_id), 'ROS_AUTOMATIC_DISCOVERY_RANGE': 'LOCALHOST'}
    done = subprocess.run(
        [*COMMAND, '--ros-args', '-p', parameter], env=env, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 2
    assert says in done.stderr
    assert done.stderr.count('\n') == 1
    assert done.stderr.startswith('instructsam-simulated-camera: ')

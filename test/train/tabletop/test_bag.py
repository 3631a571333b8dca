"""`instructsam tabletop bag`: the recording holds the scene, and its poses and depth agree with the ground truth."""

import json

import cv2
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

pytest.importorskip('mujoco', reason='MuJoCo renders the tabletop world: pip install mujoco')
rosbag2 = pytest.importorskip('rosbags.rosbag2')
from rosbags.typesys import Stores, get_typestore  # noqa: E402

from instructsam.core import cli  # noqa: E402
from instructsam.core.rle import Rle  # noqa: E402
from instructsam.train.tabletop.bag import COLOR, DEPTH, FRAME_ID, INFO  # noqa: E402
from instructsam.train.tabletop.scenes.scene import render_scene  # noqa: E402

SIZE = (160, 120)


@pytest.fixture(scope='module')
def bag(opengl, tmp_path_factory):
    """The folder of a bag with three frames, one per second."""
    folder = tmp_path_factory.mktemp('bag') / 'made'
    chosen = ['--seed', '5', '--scene', '2', '--seconds', '3', '--fps', '1', '--size', *map(str, SIZE)]
    assert cli.main(['tabletop', 'bag', str(folder), *chosen]) == 0
    return folder


@pytest.fixture(scope='module')
def frames(bag):
    """The messages by topic and the ground truth of each frame."""
    store = get_typestore(Stores.ROS2_JAZZY)
    messages = {}
    with rosbag2.Reader(bag) as reader:
        for connection, time_ns, data in reader.messages():
            messages.setdefault(time_ns, {})[connection.topic] = store.deserialize_cdr(data, connection.msgtype)
    ground_truth = [json.loads(line) for line in (bag / 'truth.jsonl').open()]
    assert [facts['stamp_ns'] for facts in ground_truth] == list(messages)
    return list(zip(messages.values(), ground_truth, strict=True))


def test_first_frame_is_the_scene(frames):
    messages, ground_truth = frames[0]
    scene = render_scene('test', 2, 5, SIZE)
    assert messages[COLOR].data.tobytes() == scene.jpeg
    depth = messages[DEPTH].data.view('<u2').reshape(SIZE[::-1])
    assert np.abs(depth / 1000 - scene.depth).max() < 0.00051
    assert messages[INFO].k.reshape(3, 3) == pytest.approx(scene.camera.intrinsics)
    assert {o['id'] for o in ground_truth['objects']} == {o.id for o in scene.objects}


def test_stamps_and_frames_agree(frames):
    assert len(frames) == 3
    for second, (messages, ground_truth) in enumerate(frames):
        headers = [messages[topic].header for topic in (COLOR, INFO, DEPTH)]
        headers.append(messages['/tf'].transforms[0].header)
        assert {header.stamp.sec * 10**9 + header.stamp.nanosec for header in headers} == {ground_truth['stamp_ns']}
        assert ground_truth['stamp_ns'] == frames[0][1]['stamp_ns'] + second * 10**9
        assert [header.frame_id for header in headers] == [FRAME_ID] * 3 + ['world']


def test_pose_depth_and_masks_fit(frames):
    """A visible pixel of an object, back-projected by depth, intrinsics and pose, lies within the simulated object."""
    positions = []
    for messages, ground_truth in frames:
        transform = messages['/tf'].transforms[0].transform
        rotation = Rotation.from_quat([getattr(transform.rotation, axis) for axis in 'xyzw']).as_matrix()
        position = np.array([getattr(transform.translation, axis) for axis in 'xyz'])
        depth = messages[DEPTH].data.view('<u2').reshape(SIZE[::-1]) / 1000
        k = messages[INFO].k.reshape(3, 3)
        positions.append(position)
        checked = 0
        for obj in ground_truth['objects']:
            rows, columns = np.nonzero(Rle.from_coco(obj['mask']).decode())
            if len(rows) < 20:
                continue
            rays = np.linalg.solve(k, np.stack([columns, rows, np.ones(len(rows))]))
            points = (rotation @ (rays * depth[rows, columns])).T + position
            reach = np.linalg.norm(obj['extent_m']) / 2 + 0.01
            assert (np.linalg.norm(points - obj['center_m'], axis=1) < reach).all(), obj['category']
            checked += 1
        assert checked > 2
    assert np.linalg.norm(positions[1] - positions[0]) > 0.05  # the camera moves between frames


def test_color_images_have_the_size(frames):
    for messages, _ in frames:
        assert cv2.imdecode(messages[COLOR].data, cv2.IMREAD_COLOR).shape == (*SIZE[::-1], 3)


def test_folder_that_exists(bag, capsys):
    assert cli.main(['tabletop', 'bag', str(bag)]) == 2
    assert 'already exists: give the name of a new folder' in capsys.readouterr().err

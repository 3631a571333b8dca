"""`instructsam tabletop bag`: ROS reads the scene from it, with a pose and a depth that fit the truth beside it."""

import json

import cv2
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

pytest.importorskip('mujoco', reason='the tabletop world is drawn with MuJoCo: pip install mujoco')
rosbag2 = pytest.importorskip('rosbags.rosbag2')
from rosbags.typesys import Stores, get_typestore  # noqa: E402

from instructsam.core import cli  # noqa: E402
from instructsam.core.rle import Rle  # noqa: E402
from instructsam.train.tabletop.bag import COLOR, DEPTH, FRAME_ID, INFO  # noqa: E402
from instructsam.train.tabletop.scenes.scene import scene  # noqa: E402

SIZE = (160, 120)


@pytest.fixture(scope='module')
def bag(opengl, tmp_path_factory):
    """The folder of a bag of three frames, a second apart."""
    folder = tmp_path_factory.mktemp('bag') / 'made'
    chosen = ['--seed', '5', '--scene', '2', '--seconds', '3', '--fps', '1', '--size', *map(str, SIZE)]
    assert cli.main(['tabletop', 'bag', str(folder), *chosen]) == 0
    return folder


@pytest.fixture(scope='module')
def frames(bag):
    """{topic: message} and the truth of each frame."""
    store = get_typestore(Stores.ROS2_JAZZY)
    messages = {}
    with rosbag2.Reader(bag) as reader:
        for connection, time_ns, data in reader.messages():
            messages.setdefault(time_ns, {})[connection.topic] = store.deserialize_cdr(data, connection.msgtype)
    truth = [json.loads(line) for line in (bag / 'truth.jsonl').open()]
    assert [facts['stamp_ns'] for facts in truth] == list(messages)
    return list(zip(messages.values(), truth))


def test_first_frame_is_the_scene(frames):
    messages, truth = frames[0]
    shot = scene('test', 2, 5, SIZE)
    assert messages[COLOR].data.tobytes() == shot.jpeg
    depth = messages[DEPTH].data.view('<u2').reshape(SIZE[::-1])
    assert np.abs(depth / 1000 - shot.depth).max() < 0.00051
    assert messages[INFO].k.reshape(3, 3) == pytest.approx(shot.camera.intrinsics)
    assert {o['id'] for o in truth['objects']} == {o.id for o in shot.objects}


def test_stamps_and_frames_agree(frames):
    assert len(frames) == 3
    for second, (messages, truth) in enumerate(frames):
        headers = [messages[topic].header for topic in (COLOR, INFO, DEPTH)]
        headers.append(messages['/tf'].transforms[0].header)
        assert {header.stamp.sec * 10**9 + header.stamp.nanosec for header in headers} == {truth['stamp_ns']}
        assert truth['stamp_ns'] == frames[0][1]['stamp_ns'] + second * 10**9
        assert [header.frame_id for header in headers] == [FRAME_ID] * 3 + ['world']


def test_pose_depth_and_masks_fit(frames):
    """A seen pixel of an object, through depth, intrinsics and pose, is where the simulator has the object."""
    places = []
    for messages, truth in frames:
        transform = messages['/tf'].transforms[0].transform
        turn = Rotation.from_quat([getattr(transform.rotation, axis) for axis in 'xyzw']).as_matrix()
        eye = np.array([getattr(transform.translation, axis) for axis in 'xyz'])
        depth = messages[DEPTH].data.view('<u2').reshape(SIZE[::-1]) / 1000
        k = messages[INFO].k.reshape(3, 3)
        places.append(eye)
        checked = 0
        for item in truth['objects']:
            rows, columns = np.nonzero(Rle.from_coco(item['mask']).decode())
            if len(rows) < 20:
                continue
            rays = np.linalg.solve(k, np.stack([columns, rows, np.ones(len(rows))]))
            points = (turn @ (rays * depth[rows, columns])).T + eye
            reach = np.linalg.norm(item['extent_m']) / 2 + 0.01
            assert (np.linalg.norm(points - item['center_m'], axis=1) < reach).all(), item['category']
            checked += 1
        assert checked > 2
    assert np.linalg.norm(places[1] - places[0]) > 0.05  # the camera moves


def test_color_is_a_picture_of_the_size(frames):
    for messages, _ in frames:
        assert cv2.imdecode(messages[COLOR].data, cv2.IMREAD_COLOR).shape == (*SIZE[::-1], 3)


def test_folder_that_exists(bag, capsys):
    assert cli.main(['tabletop', 'bag', str(bag)]) == 2
    assert 'exists already: give the name of a folder to be made' in capsys.readouterr().err

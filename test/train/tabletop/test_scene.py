"""The drawn scene: depth in metres, poses that reproject, ids that agree with the objects, the same bytes again."""

from dataclasses import replace
from multiprocessing import get_context

import cv2
import numpy as np
import pytest

from instructsam.train.tabletop.scenes.layout import Thing
from instructsam.train.tabletop.scenes.render import Camera
from instructsam.train.tabletop.scenes.room import sample_room

pytest.importorskip('mujoco', reason='the tabletop world is drawn with MuJoCo: pip install mujoco')
from instructsam.train.tabletop.scenes import scene as scenes

pytestmark = pytest.mark.usefixtures('opengl')


@pytest.fixture(scope='module')
def made():
    return [scenes.scene('train', index, 2) for index in range(12)]


@pytest.fixture
def camera():
    forward = np.array([0, 1, -1]) / 2**0.5
    right = np.array([1.0, 0, 0])
    return Camera(224, 224, 220.0, -0.8 * forward, np.stack([right, np.cross(forward, right), forward], axis=1))


def thing(category, shape, at, scale=1.0, color='red', **more):
    return Thing(
        category,
        shape,
        'plastic',
        color,
        np.array([0.8, 0.1, 0.1]),
        'medium',
        np.full(3, scale),
        0,
        position=np.array(at),
        **more,
    )


def shoot(things, camera):
    return scenes.photograph_things(things, sample_room(np.random.default_rng(1)), camera, np.random.default_rng(2))


def test_depth_is_metric(camera):
    box = thing('box', 'box.1.0', (0.05, -0.05, 0))
    scene = shoot([box], camera)
    top = box.vertices.max(axis=0)[2]
    for point, owner in (((0.05, -0.05, top), 0), ((0.05, -0.07, top), 0), ((-0.15, 0, 0), -1), ((0.2, 0.1, 0), -1)):
        x, y = np.round(camera.project(np.array([point]))[0]).astype(int)
        assert scene.ids[y, x] == owner
        ray = camera.rotation @ np.linalg.solve(camera.intrinsics, (x, y, 1.0))  # reaches depth 1 along the axis
        expected = (point[2] - camera.position[2]) / ray[2]
        assert scene.depth[y, x] == pytest.approx(expected, abs=0.005)


def test_depth_of_every_pixel_of_the_table(camera):
    scene = shoot([], camera)
    y, x = np.mgrid[90:180:15, 70:160:15].reshape(2, -1)
    points = np.stack([x, y, np.ones_like(x)]).T @ np.linalg.inv(camera.intrinsics).T * scene.depth[y, x][:, None]
    world = points @ camera.rotation.T + camera.position
    assert np.abs(world[:, 2]).max() < 0.003


def test_centres_reproject_into_their_masks(camera):
    things = [thing('ball', 'ball.0.0', (x, y, 0.0)) for x, y in ((0, 0), (0.18, 0.1), (-0.2, -0.1))]
    scene = shoot(things, camera)
    for item in scene.objects:
        rows, columns = np.nonzero(scene.ids == item.id)
        pixel = item.camera_m[:2] / item.camera_m[2] * camera.focal_px + (camera.width - 1) / 2
        assert np.allclose(pixel, camera.project(item.center_m[None])[0], atol=1e-6)
        assert np.abs(pixel - (columns.mean(), rows.mean())).max() < 1.5
        assert item.extent_m == pytest.approx([0.072, 0.072, 0.072], abs=0.001)


def test_ids_agree_with_the_objects(made):
    for scene in made:
        assert scene.ids.min() == -1
        assert scene.ids.max() < len(scene.objects)
        for item in scene.objects:
            assert (scene.ids == item.id).sum() == item.seen_px <= item.whole_px
            if item.seen_px:
                rows, columns = np.nonzero(scene.ids == item.id)
                x0, y0, x1, y1 = item.box
                assert x0 <= columns.min()
                assert columns.max() < x1
                assert y0 <= rows.min()
                assert rows.max() < y1


def test_visible_share_of_a_half_hidden_object(camera):
    ball = thing('ball', 'ball.0.0', (0, 0.12, 0))
    wall = thing('box', 'box.1.1', (0.08, 0.0, 0))
    alone, behind = shoot([ball], camera).objects[0], shoot([ball, wall], camera).objects[0]
    assert alone.visible == 1.0
    assert alone.whole_px == behind.whole_px
    assert 0.2 < behind.visible < 0.8


def test_what_the_picture_cuts_off_counts_as_unseen(camera):
    x = camera.on_table((camera.width - 1, 120))[0]
    item = shoot([thing('ball', 'ball.0.0', (x, 0, 0))], camera).objects[0]
    assert 0.25 < item.visible < 0.75
    assert item.box[2] > camera.width


def test_pictures_are_neither_black_nor_flat(made):
    for scene in made:
        assert scene.rgb.shape == (224, 224, 3)
        assert scene.rgb.std() > 10
        assert (scene.rgb.max(axis=2) < 8).mean() < 0.02 or scene.rgb.mean() > 60
        assert scene.depth.min() > 0.3
        assert scene.depth.max() < 11.9


def test_the_jpeg_is_the_picture(made):
    decoded = cv2.imdecode(np.frombuffer(made[0].jpeg, np.uint8), cv2.IMREAD_COLOR)[..., ::-1]
    assert np.array_equal(decoded, made[0].rgb)


def test_a_scene_does_not_depend_on_those_before(made):
    again = scenes.scene('train', 5, 2)
    assert again.jpeg == made[5].jpeg
    assert np.array_equal(again.depth, made[5].depth)
    assert np.array_equal(again.ids, made[5].ids)


def test_other_sizes_show_the_same_table():
    small, large = scenes.scene('test', 3, 9), scenes.scene('test', 3, 9, size=(320, 240))
    assert large.rgb.shape == (240, 320, 3)
    assert large.camera.intrinsics[0, 0] / 320 == pytest.approx(small.camera.intrinsics[0, 0] / 224)


def test_pictures_of_two_sizes_taken_in_turn_do_not_mix():
    first = [scenes.scene('val', 1, 9, size=size).jpeg for size in ((96, 64), (128, 96))]
    assert [scenes.scene('val', 1, 9, size=size).jpeg for size in ((128, 96), (96, 64))] == first[::-1]


def _draw_in_a_fork(pipe):
    try:
        scenes.scene('train', 0, 0)
        pipe.send('drawn')
    except RuntimeError as error:
        pipe.send(str(error))


@pytest.mark.filterwarnings('ignore:.*fork.*:DeprecationWarning')
def test_a_forked_process_says_why_it_cannot_draw(made):
    context = get_context('fork')
    here, there = context.Pipe()
    child = context.Process(target=_draw_in_a_fork, args=(there,))
    child.start()
    assert here.poll(30)
    assert 'spawn' in here.recv()
    child.join(30)
    assert child.exitcode == 0


def test_turned_objects_keep_their_own_extent(camera):
    turned, _ = cv2.Rodrigues(np.array([0, 0, 0.7]))
    book = thing('book', 'book.0.0', (0, 0, 0))
    flat, spun = shoot([book], camera).objects[0], shoot([replace(book, turn=turned)], camera).objects[0]
    assert np.allclose(flat.extent_m, spun.extent_m)

"""Rendered scenes: metric depth, poses that reproject, ids that agree with the objects, reproducibility."""

from dataclasses import replace
from multiprocessing import get_context

import cv2
import numpy as np
import pytest

from instructsam.train.tabletop.scenes.layout import PlacedObject
from instructsam.train.tabletop.scenes.render import Camera
from instructsam.train.tabletop.scenes.room import sample_room

pytest.importorskip('mujoco', reason='MuJoCo renders the tabletop world: pip install mujoco')
from instructsam.train.tabletop.scenes import scene as scenes

pytestmark = pytest.mark.usefixtures('opengl')


@pytest.fixture(scope='module')
def rendered():
    return [scenes.render_scene('train', index, 2) for index in range(12)]


@pytest.fixture
def camera():
    forward = np.array([0, 1, -1]) / 2**0.5
    right = np.array([1.0, 0, 0])
    return Camera(224, 224, 220.0, -0.8 * forward, np.stack([right, np.cross(forward, right), forward], axis=1))


def place(category, shape, at, scale=1.0, color='red', **more):
    return PlacedObject(
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


def photograph(objects, camera):
    return scenes.photograph_objects(objects, sample_room(np.random.default_rng(1)), camera, np.random.default_rng(2))


def test_depth_is_metric(camera):
    box = place('box', 'box.1.0', (0.05, -0.05, 0))
    scene = photograph([box], camera)
    top = box.vertices.max(axis=0)[2]
    for point, owner in (((0.05, -0.05, top), 0), ((0.05, -0.07, top), 0), ((-0.15, 0, 0), -1), ((0.2, 0.1, 0), -1)):
        x, y = np.round(camera.project(np.array([point]))[0]).astype(int)
        assert scene.ids[y, x] == owner
        # The ray to the pixel has depth 1 along the optical axis.
        ray = camera.rotation @ np.linalg.solve(camera.intrinsics, (x, y, 1.0))
        expected = (point[2] - camera.position[2]) / ray[2]
        assert scene.depth[y, x] == pytest.approx(expected, abs=0.005)


def test_depth_of_every_pixel_of_the_table(camera):
    scene = photograph([], camera)
    y, x = np.mgrid[90:180:15, 70:160:15].reshape(2, -1)
    points = np.stack([x, y, np.ones_like(x)]).T @ np.linalg.inv(camera.intrinsics).T * scene.depth[y, x][:, None]
    world = points @ camera.rotation.T + camera.position
    assert np.abs(world[:, 2]).max() < 0.003


def test_centres_reproject_into_their_masks(camera):
    objects = [place('ball', 'ball.0.0', (x, y, 0.0)) for x, y in ((0, 0), (0.18, 0.1), (-0.2, -0.1))]
    scene = photograph(objects, camera)
    for obj in scene.objects:
        rows, columns = np.nonzero(scene.ids == obj.id)
        pixel = obj.camera_m[:2] / obj.camera_m[2] * camera.focal_px + (camera.width - 1) / 2
        assert np.allclose(pixel, camera.project(obj.center_m[None])[0], atol=1e-6)
        assert np.abs(pixel - (columns.mean(), rows.mean())).max() < 1.5
        assert obj.extent_m == pytest.approx([0.072, 0.072, 0.072], abs=0.001)


def test_ids_agree_with_the_objects(rendered):
    for scene in rendered:
        assert scene.ids.min() == -1
        assert scene.ids.max() < len(scene.objects)
        for obj in scene.objects:
            assert (scene.ids == obj.id).sum() == obj.seen_px <= obj.whole_px
            if obj.seen_px:
                rows, columns = np.nonzero(scene.ids == obj.id)
                x0, y0, x1, y1 = obj.box
                assert x0 <= columns.min()
                assert columns.max() < x1
                assert y0 <= rows.min()
                assert rows.max() < y1


def test_visible_share_of_a_half_hidden_object(camera):
    ball = place('ball', 'ball.0.0', (0, 0.12, 0))
    wall = place('box', 'box.1.1', (0.08, 0.0, 0))
    alone, behind = photograph([ball], camera).objects[0], photograph([ball, wall], camera).objects[0]
    assert alone.visible == 1.0
    assert alone.whole_px == behind.whole_px
    assert 0.2 < behind.visible < 0.8


def test_parts_outside_the_image_count_as_invisible(camera):
    x = camera.on_table((camera.width - 1, 120))[0]
    obj = photograph([place('ball', 'ball.0.0', (x, 0, 0))], camera).objects[0]
    assert 0.25 < obj.visible < 0.75
    assert obj.box[2] > camera.width


def test_images_are_neither_black_nor_flat(rendered):
    for scene in rendered:
        assert scene.rgb.shape == (224, 224, 3)
        assert scene.rgb.std() > 10
        assert (scene.rgb.max(axis=2) < 8).mean() < 0.02 or scene.rgb.mean() > 60
        assert scene.depth.min() > 0.3
        assert scene.depth.max() < 11.9


def test_rgb_is_the_decoded_jpeg(rendered):
    decoded = cv2.imdecode(np.frombuffer(rendered[0].jpeg, np.uint8), cv2.IMREAD_COLOR)[..., ::-1]
    assert np.array_equal(decoded, rendered[0].rgb)


def test_a_scene_does_not_depend_on_those_before(rendered):
    again = scenes.render_scene('train', 5, 2)
    assert again.jpeg == rendered[5].jpeg
    assert np.array_equal(again.depth, rendered[5].depth)
    assert np.array_equal(again.ids, rendered[5].ids)


def test_other_sizes_show_the_same_table():
    small, large = scenes.render_scene('test', 3, 9), scenes.render_scene('test', 3, 9, size=(320, 240))
    assert large.rgb.shape == (240, 320, 3)
    assert large.camera.intrinsics[0, 0] / 320 == pytest.approx(small.camera.intrinsics[0, 0] / 224)


def test_alternating_sizes_do_not_interfere():
    first = [scenes.render_scene('val', 1, 9, size=size).jpeg for size in ((96, 64), (128, 96))]
    assert [scenes.render_scene('val', 1, 9, size=size).jpeg for size in ((128, 96), (96, 64))] == first[::-1]


def _draw_in_a_fork(pipe):
    try:
        scenes.render_scene('train', 0, 0)
        pipe.send('drawn')
    except RuntimeError as error:
        pipe.send(str(error))


@pytest.mark.filterwarnings('ignore:.*fork.*:DeprecationWarning')
def test_a_forked_process_reports_why_it_cannot_draw(rendered):
    context = get_context('fork')
    here, there = context.Pipe()
    child = context.Process(target=_draw_in_a_fork, args=(there,))
    child.start()
    assert here.poll(30)
    assert 'spawn' in here.recv()
    child.join(30)
    assert child.exitcode == 0


def test_rotated_objects_keep_their_own_extent(camera):
    rotation, _ = cv2.Rodrigues(np.array([0, 0, 0.7]))
    book = place('book', 'book.0.0', (0, 0, 0))
    original, rotated = (
        photograph([book], camera).objects[0],
        photograph([replace(book, rotation=rotation)], camera).objects[0],
    )
    assert np.allclose(original.extent_m, rotated.extent_m)

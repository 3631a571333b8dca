"""The supporting plane of a box in front of a wall, of objects that are flat, and of those recessed in a counter."""

import itertools

import cv2
import numpy as np
import pytest

from instructsam.core.spatial.camera_model import CameraModel
from instructsam.core.spatial.geometry import measure

HEIGHT, WIDTH, FOCAL = 480, 640, 520.0
K = np.array([[FOCAL, 0, WIDTH / 2], [0, FOCAL, HEIGHT / 2], [0, 0, 1]])
BOX_M = np.array([0.06, 0.06, 0.10])  # x to the right, y ahead, z up
BOX_AT_M = 0.7  # distance of the box ahead of the camera


def scene(pitch_deg, camera_m, wall_m):
    """Return depth [H, W] m, the mask of the box [H, W], the up and the box's centre in the optical frame.

    The camera is `camera_m` above the table, the wall `wall_m` ahead of it.
    """
    pitch = np.deg2rad(pitch_deg)
    ahead, right = np.array([0, np.cos(pitch), -np.sin(pitch)]), np.array([1.0, 0, 0])
    down = np.cross(ahead, right)
    x, y = np.meshgrid((np.arange(WIDTH) - WIDTH / 2) / FOCAL, (np.arange(HEIGHT) - HEIGHT / 2) / FOCAL)
    rays = x[..., None] * right + y[..., None] * down + ahead
    eye, middle = np.array([0, 0, camera_m]), np.array([0, BOX_AT_M, BOX_M[2] / 2])
    with np.errstate(divide='ignore', invalid='ignore'):
        table, wall = -camera_m / rays[..., 2], wall_m / rays[..., 1]
        sides = np.stack([(middle + sign * BOX_M / 2 - eye) / rays for sign in (-1, 1)])
    enters, leaves = sides.min(axis=0).max(axis=-1), sides.max(axis=0).min(axis=-1)
    mask = (enters < leaves) & (enters > 0)
    depth = np.where(table > 0, np.minimum(table, wall), wall)
    depth = np.where(mask, enters, depth) + np.random.default_rng(0).normal(0, 0.001, mask.shape)
    axes = np.stack([right, down, ahead])
    return depth.astype(np.float32), mask, axes @ [0, 0, 1], axes @ (middle - eye)


# (pitch_deg, camera_m, wall_m). Where only a strip of the table is seen, a wall close behind the box is taken for its
# support: a limit that docs/grasping.md names.
CASES = set(itertools.product([5, 10, 15, 20, 30], [0.25, 0.4], [0.8, 0.9, 1.2, 2.0])) - {(5, 0.4, 0.8)}


@pytest.mark.parametrize(('pitch_deg', 'camera_m', 'wall_m'), sorted(CASES))
def test_a_wall_is_no_support(pitch_deg, camera_m, wall_m):
    depth, mask, up, center = scene(pitch_deg, camera_m, wall_m)
    found = measure(mask, depth, CameraModel(HEIGHT, WIDTH, K))
    assert np.linalg.norm(found.center - center) < 0.012
    # The same camera with the wall farther away: it is too far from the box to be its support, and there is none.
    assert found.has_support == ((pitch_deg, camera_m, wall_m) != (5, 0.4, 0.9))
    if found.has_support:
        assert found.rotation[:, 2] @ up > np.cos(np.deg2rad(2))
        assert found.size_m[2] == pytest.approx(BOX_M[2], abs=0.005)


TILT = np.deg2rad(20)
AHEAD, RIGHT = np.array([0, np.sin(TILT), -np.cos(TILT)]), np.array([1.0, 0, 0])
UP = np.array([RIGHT, np.cross(AHEAD, RIGHT), AHEAD]) @ [0, 0, 1]


def counter(size_m, noise_m, grow_px=0):
    """Return depth [H, W] m and the mask of an object of size_m [3] on a counter, or, with a negative height, in it.

    It is in the middle of the image, 1 m from the camera. Its mask is larger than it by `grow_px` on each side.
    """
    x, y = np.meshgrid((np.arange(WIDTH) - WIDTH / 2) / FOCAL, (np.arange(HEIGHT) - HEIGHT / 2) / FOCAL)
    rays, eye = x[..., None] * RIGHT + y[..., None] * np.cross(AHEAD, RIGHT) + AHEAD, -AHEAD
    depth = -eye[2] / rays[..., 2]
    ends = np.array([[-size_m[0] / 2, -size_m[1] / 2, 0], [size_m[0] / 2, size_m[1] / 2, size_m[2]]])
    with np.errstate(divide='ignore'):
        sides = np.sort((ends[:, None, None] - eye) / rays, axis=0)
    enters, leaves = sides[0].max(axis=-1), sides[1].min(axis=-1)
    if size_m[2] <= 0:
        at_m = eye + depth[..., None] * rays
        mask = (np.abs(at_m[..., :2]) < np.array(size_m[:2]) / 2).all(axis=-1)
        depth = np.where(mask, leaves, depth)
    else:
        mask = enters < leaves
        depth = np.where(mask, enters, depth)
    depth += np.random.default_rng(0).normal(0, 1, depth.shape) * noise_m
    kernel = np.ones((2 * abs(grow_px) + 1,) * 2, np.uint8)
    mask = (cv2.erode if grow_px < 0 else cv2.dilate)(mask.astype(np.uint8), kernel) > 0
    return depth.astype(np.float32), mask


@pytest.mark.parametrize('noise_m', [0, 0.001, 0.002])
@pytest.mark.parametrize('grow_px', [-3, 0, 2])
def test_the_counter_around_a_basin_is_no_support(grow_px, noise_m):
    """A basin, a drawer or an inset tray is below the plane around its mask."""
    depth, mask = counter((0.35, 0.3, -0.15), noise_m, grow_px)
    found = measure(mask, depth, CameraModel(HEIGHT, WIDTH, K))
    assert not found.has_support
    assert found.size_m[2] > 0.1
    assert len(found.points) > 0.8 * mask.sum()
    assert found.rotation[:, 2] @ UP > np.cos(np.deg2rad(2))


@pytest.mark.parametrize('noise_m', [0, 0.001, 0.002])
@pytest.mark.parametrize('grow_px', [-3, 0, 2, 12])
@pytest.mark.parametrize('height_m', [-0.003, 0, 0.001, 0.02])
def test_a_flat_object_keeps_its_support(height_m, grow_px, noise_m):
    """The counter supports a plate, a sheet of paper and a lid that is inset by less than the noise of a camera."""
    depth, mask = counter((0.3, 0.21, height_m), noise_m, grow_px)
    found = measure(mask, depth, CameraModel(HEIGHT, WIDTH, K))
    assert found.has_support
    assert (found.size_m > 0).all()
    assert found.size_m[2] == pytest.approx(max(height_m, 0), abs=0.006)
    assert found.rotation[:, 2] @ UP > np.cos(np.deg2rad(2))


def test_a_box_always_has_a_volume():
    """Motion planners refuse boxes without one: here of a line, on a plane and without any."""
    mask = np.zeros((HEIGHT, WIDTH), bool)
    mask[240, 200:400] = True
    for depth in (np.ones((HEIGHT, WIDTH), np.float32), mask.astype(np.float32)):
        assert (measure(mask, depth, CameraModel(HEIGHT, WIDTH, K)).size_m > 0).all()

"""The supporting plane of a box on a table in front of a wall, which may fill most of the image."""

import itertools

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

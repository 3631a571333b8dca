"""Rays of a camera model: projecting them with OpenCV's lens models gives the pixels again."""

import cv2
import numpy as np
import pytest

from instructsam.core.errors import GeometryError
from instructsam.core.spatial.camera_model import CameraModel

K = np.array([[300.0, 0, 150], [0, 310.0, 120], [0, 0, 1]])
SIZE = 240, 320


@pytest.mark.parametrize(
    ('model', 'lens'),
    [
        ('plumb_bob', ()),
        ('plumb_bob', (0.0,) * 5),
        ('plumb_bob', (0.1, -0.2, 0.001, -0.002, 0.05)),
        ('rational_polynomial', (0.2, -0.1, 0.001, 0.001, 0.02, 0.1, -0.05, 0.01)),
        ('equidistant', (0.05, -0.01, 0.002, -0.001)),
    ],
)
def test_projected_rays_are_the_pixels(model, lens):
    x, y = CameraModel(*SIZE, K, lens, model).rays
    assert x.shape == y.shape == SIZE
    assert x.dtype == y.dtype == np.float32
    points = np.stack([x, y, np.ones(SIZE)], axis=-1).reshape(-1, 1, 3).astype(np.float64)
    none = np.zeros(3)
    if model == 'equidistant':
        again, _ = cv2.fisheye.projectPoints(points, none, none, K, np.array(lens))
    else:
        again, _ = cv2.projectPoints(points, none, none, K, np.array(lens) if lens else None)
    y, x = np.mgrid[: SIZE[0], : SIZE[1]]
    np.testing.assert_allclose(again.reshape(*SIZE, 2), np.stack([x, y], axis=-1), atol=0.02)


@pytest.mark.parametrize(
    ('k', 'lens', 'model', 'message'),
    [
        (np.zeros((3, 3)), (), 'plumb_bob', 'focal lengths above 0'),
        (np.full((3, 3), np.nan), (), 'plumb_bob', 'focal lengths above 0'),
        (K[:2], (), 'plumb_bob', 'focal lengths above 0'),
        (K, (0.1,) * 5, 'magic', "got 'magic'"),
        (K, (0.1,) * 3, 'plumb_bob', 'got .plumb_bob. with'),
        (K, (np.nan,) * 5, 'plumb_bob', 'not finite'),
    ],
    ids=['zeros', 'nan', 'shape', 'unknown', 'too few', 'nan lens'],
)
def test_invalid_cameras_are_rejected(k, lens, model, message):
    with pytest.raises(GeometryError, match=message):
        CameraModel(*SIZE, k, lens, model)

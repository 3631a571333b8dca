"""Depth images to arrays and camera infos to camera models."""

import numpy as np
import pytest

pytest.importorskip('rclpy', reason='needs ROS 2 or its wheels')

from sensor_msgs.msg import CameraInfo, Image

from instructsam.core.errors import GeometryError
from instructsam_ros.conversions.depth import camera_model, to_depth
from instructsam_ros.conversions.images import ImageFormatError

K = [500.0, 0.0, 31.5, 0.0, 510.0, 23.5, 0.0, 0.0, 1.0]


def image(values, encoding, padding=0, **fields):
    rows = [row.tobytes() + b'x' * padding for row in values]
    height, width = values.shape
    shape = {'height': height, 'width': width, 'step': len(rows[0]), 'encoding': encoding}
    return Image(**{**shape, 'data': b''.join(rows), **fields})


@pytest.mark.parametrize('padding', [0, 6])
def test_millimetres_and_metres(padding):
    values = np.arange(12, dtype=np.uint16).reshape(3, 4) * 1000
    found = to_depth(image(values, '16UC1', padding))
    assert found.dtype == np.uint16
    assert np.array_equal(found, values)
    found = to_depth(image(values.astype('>u2'), '16UC1', padding, is_bigendian=1))
    assert np.array_equal(found, values)
    metres = np.array([[0.5, np.nan], [np.inf, 2]], np.float32)
    np.testing.assert_array_equal(to_depth(image(metres, '32FC1', padding)), metres)


@pytest.mark.parametrize(
    ('fields', 'says'),
    [
        ({'encoding': 'rgb8'}, "'rgb8': expected 16UC1 .mm. or 32FC1 .m., aligned"),
        ({'data': b'12'}, 'data has 2 bytes'),
        ({'step': 1}, 'step is 1'),
        ({'height': 0, 'width': 0, 'data': b''}, 'empty'),
    ],
    ids=['another encoding', 'truncated', 'rows too short', 'empty'],
)
def test_messages_without_depth_are_refused(fields, says):
    with pytest.raises(ImageFormatError, match=says):
        to_depth(image(np.ones((3, 4), np.uint16), **{'encoding': '16UC1', **fields}))


def test_camera_info():
    model = camera_model(CameraInfo(height=48, width=64, k=K))
    assert (model.height, model.width) == (48, 64)
    np.testing.assert_allclose([axis[0, 0] for axis in model.rays], [-31.5 / 500, -23.5 / 510], rtol=1e-6)
    assert camera_model(CameraInfo(height=48, width=64, k=K)) is model  # cached: not computed again for every image


@pytest.mark.parametrize(
    ('fields', 'says'),
    [
        ({'k': [0.0] * 9}, 'focal lengths'),
        ({'k': [float('nan')] * 9}, 'focal lengths'),
        ({'height': 0, 'width': 0}, 'not filled in'),
        ({'distortion_model': 'magic', 'd': [0.1] * 5}, 'magic'),
    ],
    ids=['zeros', 'nan', 'empty', 'unknown lens'],
)
def test_unusable_camera_info_is_refused(fields, says):
    with pytest.raises(GeometryError, match=says):
        camera_model(CameraInfo(**{'height': 48, 'width': 64, 'k': K, **fields}))

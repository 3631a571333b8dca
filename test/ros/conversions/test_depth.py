"""Depth images to arrays."""

import numpy as np
import pytest

pytest.importorskip('rclpy', reason='needs ROS 2 or its wheels')

from sensor_msgs.msg import CompressedImage, Image

from instructsam_ros.conversions.depth import is_depth_message, to_depth
from instructsam_ros.conversions.images import ImageFormatError


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


@pytest.mark.parametrize(
    ('message', 'expected'),
    [
        (Image(encoding='16UC1'), True),
        (Image(encoding='32FC1'), True),
        (Image(encoding='mono16'), False),
        (Image(encoding='rgb8'), False),
        (CompressedImage(format='16UC1; compressedDepth png'), True),
        (CompressedImage(format='16UC1; png compressed bgr8'), True),
        (CompressedImage(format='rgb8; jpeg compressed bgr8'), False),
        (CompressedImage(format='jpeg'), False),
    ],
)
def test_depth_is_told_by_encoding_and_format(message, expected):
    assert is_depth_message(message) is expected

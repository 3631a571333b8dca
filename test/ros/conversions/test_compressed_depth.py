"""Compressed depth to arrays: every format that is published, and damaged or unsuitable messages."""

import struct
import tracemalloc
from contextlib import suppress

import cv2
import numpy as np
import pytest

pytest.importorskip('rclpy', reason='needs ROS 2 or its wheels')

from depth_messages import PLUGIN_A, PLUGIN_B, big_endian_tiff, compressed_depth, inverse, png, rvl, tiff
from sensor_msgs.msg import CompressedImage

from instructsam_ros.conversions import compressed_depth as compressed_depth_module
from instructsam_ros.conversions.compressed_depth import decode_rvl
from instructsam_ros.conversions.depth import to_depth
from instructsam_ros.conversions.images import ImageFormatError

GARBAGE = struct.pack('<iff', 0, -1.9e-13, np.inf)  # of a publisher that leaves the parameters for 16UC1 unset


def scene(height=24, width=32):
    """A slope with noise, holes and a hole at the start and at the end, uint16 mm."""
    rng = np.random.default_rng(0)
    values = (800 + 40 * np.arange(height)[:, None] + rng.integers(0, 9, (height, width))).astype(np.uint16)
    values[rng.random(values.shape) < 0.1] = 0
    values[3:6, 5:20] = values[0, :4] = values[-1, -7:] = 0
    return values


MM = scene()
METRES = np.where(MM > 0, MM / 1000, np.nan).astype(np.float32)


def message(message_format, data):
    return CompressedImage(format=message_format, data=data)


@pytest.mark.parametrize(
    ('message_format', 'data'),
    [
        ('16UC1; compressedDepth', struct.pack('<iff', 0, 0, 0) + png(MM)),
        ('16UC1; compressedDepth png', GARBAGE + png(MM)),
        ('16UC1;compressedDepth  png ', GARBAGE + png(MM)),
        ('mono16; compressedDepth png', GARBAGE + png(MM)),
        ('16UC1', GARBAGE + png(MM)),
        ('16UC1; compressedDepth rvl', GARBAGE + rvl(MM)),
        ('16UC1; compressedDepth png', png(MM)),
        ('16UC1; png compressed ', png(MM)),
        ('16UC1; png compressed', png(MM)),
        ('png', png(MM)),
        ('', png(MM)),
        ('16UC1; tiff compressed ', tiff(MM)),
        ('16UC1; tiff compressed ', big_endian_tiff(MM)),
    ],
)
def test_millimetres_come_back_exactly(message_format, data):
    depth = to_depth(message(message_format, data))
    assert depth.dtype == np.uint16
    np.testing.assert_array_equal(depth, MM)


@pytest.mark.parametrize(('codec', 'suffix'), [(png, ' png'), (png, ''), (rvl, ' rvl')])
def test_inverse_depth_is_metres_within_its_quantisation(codec, suffix):
    data = struct.pack('<iff', 0, PLUGIN_A, PLUGIN_B) + codec(inverse(METRES))
    depth = to_depth(message(f'32FC1; compressedDepth{suffix}', data))
    assert depth.dtype == np.float32
    np.testing.assert_array_equal(np.isnan(depth), MM == 0)
    np.testing.assert_allclose(depth, METRES, rtol=0, atol=METRES[MM > 0].max() ** 2 / PLUGIN_A)


def test_metres_in_a_tiff_are_exact():
    np.testing.assert_array_equal(to_depth(message('32FC1; tiff compressed ', tiff(METRES))), METRES)


def test_inverse_depth_that_is_not_a_distance_is_invalid():
    values = np.array([[0, 1, 2, 3, 4]], np.uint16)
    data = struct.pack('<iff', 0, 6.0, 2.0) + png(values)  # a pole at the value 2
    np.testing.assert_array_equal(to_depth(message('32FC1; compressedDepth png', data)), [[np.nan] * 3 + [6.0, 3.0]])


JPEG = cv2.imencode('.jpg', np.zeros((24, 32), np.uint8))[1].tobytes()


@pytest.mark.parametrize(
    ('message_format', 'data', 'says'),
    [
        ('16UC1; jpeg compressed mono8', JPEG, 'JPEG, which loses the depth'),
        ('jpeg', JPEG, 'JPEG, which loses the depth'),
        ('16UC1; compressedDepth png', GARBAGE + JPEG, 'JPEG, which loses the depth'),
        ('bgr8; png compressed bgr8', png(np.zeros((4, 4, 3), np.uint8)), "encoding is 'bgr8', expected 16UC1"),
        ('16UC1; png compressed ', png((MM / 8).astype(np.uint8)), 'uint8, which is a picture of depth'),
        ('png', png(np.zeros((4, 4, 3), np.uint16)), 'which is a picture of depth'),
        ('32FC1; compressedDepth png', png(MM), 'header of 12 bytes|inverse depth|neither PNG'),
        ('32FC1; png compressed', png(MM), '16-bit values cannot be metres'),
        ('16UC1; tiff compressed', tiff(METRES), '32-bit floats, expected 16-bit mm'),
        ('32FC1; compressedDepth png', GARBAGE + png(MM), 'scale A above 0'),
        ('32FC1; compressedDepth png', struct.pack('<iff', 0, 0, 0) + png(MM), 'scale A above 0'),
        ('png', GARBAGE + png(MM), 'does not begin with the encoding'),
        ('; compressedDepth png', GARBAGE + png(MM), "encoding is '', expected"),
        ('16UC1; compressedDepth zstd', GARBAGE + b'x' * 40, "codec is 'zstd', expected png or rvl"),
        ('16UC1; compressedDepth png', b'', 'it has 0 bytes'),
        ('16UC1; compressedDepth png', GARBAGE, 'it has 12 bytes'),
        ('16UC1; compressedDepth rvl', GARBAGE + b'\1', 'its size is 1 x 0'),
        (
            '16UC1; compressedDepth rvl',
            GARBAGE + struct.pack('<II', 40000, 40000),
            '40000 x 40000, expected at most 64',
        ),
        ('16UC1; compressedDepth rvl', GARBAGE + struct.pack('<II', 4, 4) + b'\0' * 400, '4 x 4 pixels can need'),
        ('16UC1; compressedDepth rvl', GARBAGE + struct.pack('<II', 4, 4) + b'\x11' * 64, '128 numbers, more than 16'),
        ('16UC1; compressedDepth rvl', GARBAGE + struct.pack('<II', 4, 4) + b'\0' * 8, 'empty run'),
        ('16UC1; compressedDepth rvl', GARBAGE + struct.pack('<II', 4, 4) + b'\xff' * 20 + b'\0' * 12, '30 bits'),
        ('h264', b'\0\0\0\1g', '5 bytes that are neither PNG, TIFF nor RVL'),
        ('', b'', '0 bytes that are neither'),
    ],
)
def test_what_is_not_depth_is_named(message_format, data, says):
    with pytest.raises(ImageFormatError, match=says):
        to_depth(message(message_format, data))


@pytest.mark.parametrize(
    ('message_format', 'data'),
    [
        ('16UC1; compressedDepth png', GARBAGE + png(MM)),
        ('16UC1; compressedDepth rvl', GARBAGE + rvl(MM)),
        ('16UC1; png compressed', png(MM)),
        ('16UC1; tiff compressed', tiff(MM)),
    ],
)
def test_size_is_limited(message_format, data):
    assert to_depth(message(message_format, data), max_megapixels=MM.size / 1e6).size == MM.size
    with pytest.raises(ImageFormatError, match=r'expected at most 0\.0007'):
        to_depth(message(message_format, data), max_megapixels=0.0007)


@pytest.mark.parametrize('codec', [png, rvl])
def test_another_size_than_the_image_is_not_decoded(codec):
    depth = compressed_depth(MM, codec)
    assert to_depth(depth, size=MM.shape).shape == MM.shape
    depth.data = bytes(depth.data)[:60]  # which could not be decoded
    with pytest.raises(ImageFormatError, match=rf'depth is \({MM.shape[0]}, {MM.shape[1]}\), the image \(4, 4\)'):
        to_depth(depth, size=(4, 4))


@pytest.mark.parametrize('codec', [png, rvl])
def test_truncated_depth_is_refused(codec):
    data = bytes(compressed_depth(MM, codec).data)
    refused = 0
    for length in range(len(data)):
        try:
            depth = to_depth(message(f'16UC1; compressedDepth {codec.__name__}', data[:length]))
        except ImageFormatError:
            refused += 1
        else:  # only checksums, end markers or padding are missing
            np.testing.assert_array_equal(depth, MM)
    assert refused > 0.9 * len(data)


@pytest.mark.parametrize('codec', [png, rvl, tiff])
def test_damaged_depth_raises_or_has_its_size(codec):
    rng = np.random.default_rng(1)
    sound = bytes(compressed_depth(MM, codec).data)
    name = '16UC1; tiff compressed' if codec is tiff else f'16UC1; compressedDepth {codec.__name__}'
    for _ in range(300):
        data = bytearray(sound[12:] if codec is tiff else sound)
        for at in rng.integers(0, len(data), rng.integers(1, 5)):
            data[at] = rng.integers(256)
        with suppress(ImageFormatError):  # nothing else
            assert to_depth(message(name, bytes(data))).ndim == 2


@pytest.mark.parametrize('block_words', [compressed_depth_module.BLOCK_WORDS, 1])
def test_rvl_of_random_images_round_trips(block_words, monkeypatch):
    monkeypatch.setattr(compressed_depth_module, 'BLOCK_WORDS', block_words)
    rng = np.random.default_rng(2)
    for _ in range(50):
        values = rng.integers(0, 65536, rng.integers(1, 30, 2)).astype(np.uint16)
        values[rng.random(values.shape) < rng.random()] = 0
        np.testing.assert_array_equal(decode_rvl(rvl(values)[8:], values.size).reshape(values.shape), values)


def test_rvl_takes_little_memory():
    values = np.random.default_rng(3).integers(400, 4000, (500, 800)).astype(np.uint16)
    stream = rvl(values)[8:]
    tracemalloc.start()
    decode_rvl(stream, values.size)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 30 * values.size


def test_a_header_stamp_that_is_no_time_is_refused():
    depth = compressed_depth(MM)
    depth.header.stamp.sec = -1
    with pytest.raises(ImageFormatError, match='stamp'):
        to_depth(depth)

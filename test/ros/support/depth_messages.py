"""Depth as image_transport's plugins send it, written from their sources' format and not with the code under test."""

import io
import struct

import cv2
import numpy as np
from PIL import Image
from sensor_msgs.msg import CompressedImage

PLUGIN_A, PLUGIN_MAX_M = 100.0 * 101.0, 10.0
"""compressed_depth_image_transport with its default parameters depth_quantization and depth_max."""
PLUGIN_B = 1.0 - PLUGIN_A / PLUGIN_MAX_M


def png(values):
    return cv2.imencode('.png', values)[1].tobytes()


def big_endian_tiff(values):
    """Return a TIFF of [H, W] uint16; cv2 writes the byte order of the machine only."""
    file = io.BytesIO()
    Image.fromarray(values.astype('>u2')).save(file, 'TIFF')
    assert file.getvalue().startswith(b'MM')
    return file.getvalue()


def tiff(values):
    return cv2.imencode('.tiff', values)[1].tobytes()


def rvl(values):
    """Return columns, rows and the RVL stream of [H, W] uint16, number by number."""
    nibbles = []

    def write(number):
        more = True
        while more:
            more = number >= 8
            nibbles.append(number % 8 + 8 * more)
            number //= 8

    pixels = [int(value) for value in values.ravel()]
    at, previous = 0, 0
    while at < len(pixels):
        depths_at = next((i for i in range(at, len(pixels)) if pixels[i]), len(pixels))
        end = next((i for i in range(depths_at, len(pixels)) if not pixels[i]), len(pixels))
        write(depths_at - at)
        write(end - depths_at)
        for depth in pixels[depths_at:end]:
            delta, previous = depth - previous, depth
            write(2 * delta if delta >= 0 else -2 * delta - 1)
        at = end
    nibbles += [0] * (-len(nibbles) % 8)
    words = (int(''.join(f'{nibble:x}' for nibble in nibbles[i : i + 8]), 16) for i in range(0, len(nibbles), 8))
    return struct.pack('<II', values.shape[1], values.shape[0]) + b''.join(struct.pack('<I', word) for word in words)


def inverse(metres):
    """Return the 16-bit inverse depth of [H, W] float32 m, as the plugin quantises it."""
    valid = metres < PLUGIN_MAX_M  # false for NaN
    return np.where(valid, PLUGIN_A / np.where(valid, metres, 1.0) + PLUGIN_B, 0).astype(np.uint16)


def compressed_depth(values, codec=png, a=0.0, b=0.0, **fields):
    """Return the message of the plugin compressedDepth for [H, W] uint16 mm or float32 m."""
    encoding = '16UC1'
    if values.dtype == np.float32:
        values, encoding, a, b = inverse(values), '32FC1', PLUGIN_A, PLUGIN_B
    message_format = f'{encoding}; compressedDepth {codec.__name__}'
    return CompressedImage(**{'format': message_format, 'data': struct.pack('<iff', 0, a, b) + codec(values), **fields})

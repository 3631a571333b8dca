"""Depth images and camera infos from messages to what core.geometry works with.

REP 118: 16UC1 is millimetres and 0 no measurement, 32FC1 metres and NaN or infinite none. Depth is aligned to colour:
pixel for pixel the same view, so that one camera info tells of both.
"""

from functools import lru_cache

import numpy as np

from instructsam.core.errors import GeometryError
from instructsam.core.spatial.geometry import CameraModel
from instructsam_ros.conversions.images import ImageFormatError, Layout, check_stamp, pixel_rows

MILLIMETRES, METRES = Layout(np.uint16, 1, None), Layout(np.float32, 1, None)
LAYOUTS = {'16UC1': MILLIMETRES, 'mono16': MILLIMETRES, '32FC1': METRES}
EMPTY = 'camera_info of 0 x 0 pixels: it was not filled in; check what publishes it'


def to_depth(msg):
    """The depth of an Image, [H, W]: uint16 mm, or float32 m. Raises ImageFormatError."""
    check_stamp(msg.header.stamp)
    if msg.encoding not in LAYOUTS:
        raise ImageFormatError(
            f'depth image of encoding {msg.encoding[:40]!r}: expected 16UC1 (mm) or 32FC1 (m), aligned to colour'
        )
    return np.ascontiguousarray(pixel_rows(msg, LAYOUTS[msg.encoding]))


def camera_model(info):
    """The CameraModel of a CameraInfo. Raises GeometryError: empty, intrinsics of zeros, an unknown lens model."""
    if not info.height or not info.width:
        raise GeometryError(EMPTY)
    lens = tuple(float(value) for value in info.d)
    return _model(info.height, info.width, tuple(float(value) for value in info.k), lens, info.distortion_model)


@lru_cache(maxsize=8)  # a camera sends the same again and again, and the rays of its pixels are work
def _model(height, width, k, lens, name):
    return CameraModel(height, width, np.reshape(k, (3, 3)), lens, name or 'plumb_bob')

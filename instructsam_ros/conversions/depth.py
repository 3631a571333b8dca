"""Depth images and camera infos to the arrays and the CameraModel that instructsam.core.spatial works with.

REP 118: 16UC1 holds millimetres (0 = invalid), 32FC1 metres (NaN or inf = invalid). Depth must be aligned to colour,
pixel by pixel the same view, so that one camera info describes both.
"""

from functools import lru_cache

import numpy as np
from sensor_msgs.msg import CameraInfo, Image

from instructsam.core.errors import GeometryError
from instructsam.core.spatial.camera_model import CameraModel
from instructsam_ros.conversions.images import ImageFormatError, PixelLayout, check_stamp, pixel_rows

MILLIMETRES = PixelLayout(np.uint16, 1, None)
METRES = PixelLayout(np.float32, 1, None)
LAYOUTS = {'16UC1': MILLIMETRES, 'mono16': MILLIMETRES, '32FC1': METRES}


def to_depth(msg: Image) -> np.ndarray:
    """Return the depth of an Image along the optical axis, [H, W], as uint16 mm or float32 m.

    Raises:
        ImageFormatError: it is not a depth image, or its size, step and data contradict each other.
    """
    check_stamp(msg.header.stamp)
    if msg.encoding not in LAYOUTS:
        raise ImageFormatError(
            f'depth image of encoding {msg.encoding[:40]!r}: expected 16UC1 (mm) or 32FC1 (m), aligned to colour'
        )
    return np.ascontiguousarray(pixel_rows(msg, LAYOUTS[msg.encoding]))


def camera_model(info: CameraInfo) -> CameraModel:
    """Return the CameraModel of a CameraInfo.

    Raises:
        GeometryError: the message is empty, its intrinsics are zero or its lens model is unknown.
    """
    if not info.height or not info.width:
        raise GeometryError('camera_info of 0 x 0 pixels: it was not filled in; check its publisher')
    intrinsics = tuple(float(value) for value in info.k)
    distortion = tuple(float(value) for value in info.d)
    return _camera_model(info.height, info.width, intrinsics, distortion, info.distortion_model or 'plumb_bob')


@lru_cache(
    maxsize=8
)  # a camera repeats the same info with every image, and a model computes the rays of all its pixels
def _camera_model(
    height: int, width: int, intrinsics: tuple[float, ...], distortion: tuple[float, ...], lens: str
) -> CameraModel:
    return CameraModel(height, width, np.reshape(intrinsics, (3, 3)), distortion, lens)

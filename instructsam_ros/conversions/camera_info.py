"""CameraInfo messages to calibrations, and what the name of an image topic says about its images."""

import re

from sensor_msgs.msg import CameraInfo

from instructsam.core.spatial.calibration import Calibration
from instructsam_ros.conversions.transports import split_topic


def calibration(info: CameraInfo) -> Calibration:
    """Return all fields of a CameraInfo except the header."""
    return Calibration(
        width=info.width,
        height=info.height,
        k=tuple(map(float, info.k)),
        d=tuple(map(float, info.d)),
        r=tuple(map(float, info.r)),
        p=tuple(map(float, info.p)),
        distortion_model=info.distortion_model,
        binning_x=info.binning_x,
        binning_y=info.binning_y,
        roi=(info.roi.x_offset, info.roi.y_offset, info.roi.width, info.roi.height),
    )


def is_rectified_topic(topic: str) -> bool:
    """Return whether the name of an image topic says that its images are rectified.

    CameraInfo.msg names rectified images image_rect and image_rect_color; others write rect/image or image_rectified.
    Of the last two segments the last one that says rect or raw decides.
    """
    raw_topic, _ = split_topic(topic)
    segments = [segment for segment in raw_topic.split('/') if segment]
    for segment in reversed(segments[-2:]):
        words = re.split(r'[^a-z]+', segment.lower())
        if 'rect' in words or 'rectified' in words:
            return True
        if 'raw' in words:
            return False
    return False

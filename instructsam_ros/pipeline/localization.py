"""Locates the instances of a result in 3D, in the camera's optical frame or in the target frame of the settings."""

import time
from dataclasses import replace
from typing import NamedTuple

import numpy as np
from std_msgs.msg import Header

from instructsam.core.errors import GeometryError, InstructSAMError
from instructsam.core.result import Result
from instructsam.core.spatial.calibration import camera_model, check_frames, frame_name
from instructsam.core.spatial.camera_model import CameraModel
from instructsam.core.spatial.geometry import check_alignment, locate
from instructsam.core.text import shorten
from instructsam_ros.conversions.camera_info import calibration, is_rectified_topic
from instructsam_ros.conversions.depth import to_depth
from instructsam_ros.conversions.images import ImageFormatError
from instructsam_ros.pipeline.depth_sync import NoDepthError
from instructsam_ros.pipeline.protocols import Caller, DepthPair, DepthSource, TransformSource
from instructsam_ros.pipeline.settings import AUTO, Settings

LONGEST_MESSAGE = 1000
"""Longest reason for missing geometry, in characters: it may contain names from outside."""


class TransformError(InstructSAMError):
    """There is no transform between two frames; the message names them and says why."""


class Localized(NamedTuple):
    """A result with the geometry of its instances, or the reason why it has none."""

    result: Result
    frame_id: str = ''  # coordinate frame of the geometry; '' if there is none
    message: str = ''  # reason why there is none; '' if the result has no instances


def localize(
    result: Result,
    header: Header,
    settings: Settings,
    depth_source: DepthSource,
    transforms: TransformSource,
    caller: Caller,
) -> Localized:
    """Locate the instances of `result`, whose image had `header`.

    Unusable or missing depth and a missing transform do not raise: the result is returned without geometry and the
    message says why. The time is added to the result's timings as 'geometry'.
    """
    start_s = time.perf_counter()
    if not result.instances:
        return Localized(result)
    located = result
    try:
        pair = depth_source.find_depth(header.stamp, settings, caller)
        frame_id = header.frame_id
        located = locate(result, *_depth_and_camera(pair, header, (result.height, result.width), settings))
        if settings.target_frame:
            frame_id, camera_frame = frame_name(settings.target_frame), frame_name(header.frame_id)
            if frame_id != camera_frame:
                left_s = max(0.0, settings.depth_timeout_s - (time.perf_counter() - start_s))  # one wait for both
                waiting = replace(settings, depth_timeout_s=left_s)
                transform = transforms.lookup(frame_id, camera_frame, header.stamp, waiting, caller)
                located = _transformed(located, transform.rotation, transform.translation)
    except (NoDepthError, ImageFormatError, GeometryError, TransformError) as error:
        return Localized(_without_geometry(located), message=shorten(error, LONGEST_MESSAGE))
    times_ms = located.timings_ms | {'geometry': (time.perf_counter() - start_s) * 1e3}
    return Localized(replace(located, timings_ms=times_ms), frame_id)


def _depth_and_camera(
    pair: DepthPair, header: Header, size: tuple[int, int], settings: Settings
) -> tuple[np.ndarray, CameraModel]:
    """Return the depth and the camera model of an image with `header` and `size`, (height, width).

    Raises:
        ImageFormatError: The depth image cannot be decoded.
        GeometryError: Depth or camera info are of another frame or size, or the camera info cannot be used.
    """
    check_frames(
        header.frame_id, pair.depth.header.frame_id, pair.camera_info.header.frame_id, settings.frame_tolerance
    )
    depth = to_depth(pair.depth, settings.max_megapixels, size)
    check_alignment(depth, size)
    is_rectified = settings.rectified == 'true'
    if settings.rectified == AUTO:
        is_rectified = is_rectified_topic(pair.image_topic)
    return depth, camera_model(calibration(pair.camera_info), size, is_rectified=is_rectified)


def _transformed(result: Result, rotation: np.ndarray, translation: np.ndarray) -> Result:
    return replace(
        result,
        instances=tuple(
            replace(each, geometry=each.geometry.moved(rotation, translation)) if each.geometry is not None else each
            for each in result.instances
        ),
    )


def _without_geometry(result: Result) -> Result:
    return replace(result, instances=tuple(replace(each, geometry=None) for each in result.instances))

"""Calibration of a camera as in sensor_msgs/CameraInfo, and its conversion to a CameraModel.

ROI and binning are applied as in REP 104 and image_geometry's PinholeCameraModel. Contradictions are refused: a wrong
position is worse than none.
"""

from __future__ import annotations

from dataclasses import dataclass
from threading import Lock

import numpy as np

from instructsam.core.errors import GeometryError
from instructsam.core.spatial.camera_model import CameraModel

MAX_TURN = np.radians(0.1)
"""Rotation of the rectified frame that is ignored: it moves an object by less than 2 mm per meter."""

PLAUSIBLE_SIZE = 0.6, 1.5
"""Bounds of twice the principal point in image sizes: about 1, unless K belongs to an image of another size."""

MAX_KEPT, MAX_KEPT_PIXELS = 8, 32_000_000
"""Limits of the camera models that are kept: their number, and their pixels in all, whose rays take 8 bytes each."""

_kept: dict[tuple[Calibration, tuple[int, int], bool], CameraModel] = {}  # in order of last use
_kept_lock = Lock()


@dataclass(frozen=True)
class Calibration:
    """The fields of sensor_msgs/CameraInfo; matrices in row-major order."""

    width: int  # px, of the full resolution, or of the images that the camera sends (see camera_model)
    height: int
    k: tuple[float, ...]  # [9], intrinsics of the raw image, px of the full resolution
    d: tuple[float, ...] = ()  # coefficients of the lens
    r: tuple[float, ...] = (0.0,) * 9  # rotation from the raw to the rectified camera frame; zeros: not set
    p: tuple[float, ...] = (0.0,) * 12  # [3, 4], projection into the rectified image; zeros: not set
    distortion_model: str = ''
    binning_x: int = 0  # columns of the full resolution per column of the image; 0: 1
    binning_y: int = 0
    roi: tuple[int, int, int, int] = (0, 0, 0, 0)  # x, y, width, height, px of the full resolution; zeros: everything


def camera_model(calibration: Calibration, size: tuple[int, int], *, is_rectified: bool = False) -> CameraModel:
    """Return the camera model of an image.

    A camera repeats its calibration with every image, and a model computes the rays of all pixels: equal arguments give
    the same model as long as it is among the last ones (MAX_KEPT, MAX_KEPT_PIXELS).

    Raw images are described by K and the lens, rectified ones by P alone. Drivers give different sizes as width and
    height, and the size of the image tells which: the full resolution (REP 104), the window of the roi, or the image
    after binning. Whichever it is, K and P belong to the full resolution.

    Args:
        calibration: The calibration that was sent with the image.
        size: Height and width of the image, px.
        is_rectified: Whether the image has been rectified, as by image_proc.

    Raises:
        GeometryError: The calibration is not filled in, contradicts itself or the image, or does not say enough.
    """
    key = calibration, size, is_rectified
    with _kept_lock:
        _kept[key] = model = _kept.pop(key, None) or _make_model(calibration, size, is_rectified=is_rectified)
        while len(_kept) > 1 and (
            len(_kept) > MAX_KEPT or sum(each.height * each.width for each in _kept.values()) > MAX_KEPT_PIXELS
        ):
            del _kept[next(iter(_kept))]
    return model


def _make_model(calibration: Calibration, size: tuple[int, int], *, is_rectified: bool) -> CameraModel:
    if not calibration.width or not calibration.height:
        raise GeometryError('camera_info of 0 x 0 pixels: it was not filled in; check its publisher')
    for name in 'kdrp':
        values = getattr(calibration, name)
        if not np.isfinite(values).all():
            raise GeometryError(f'camera_info.{name} has numbers that are not finite: {list(values)}')
    (x, y), full_size = _window(calibration, size)
    intrinsics = _intrinsics(calibration, is_rectified)
    if full_size is not None and intrinsics[0, 0] > 0 < intrinsics[1, 1]:  # A CameraModel refuses the others.
        _check_principal_point(intrinsics, full_size, 'p' if is_rectified and any(calibration.p) else 'k')
    intrinsics[:2, 2] -= x, y
    intrinsics[:2] /= np.array([[max(1, calibration.binning_x)], [max(1, calibration.binning_y)]])
    if is_rectified:
        return CameraModel(*size, intrinsics)
    return CameraModel(*size, intrinsics, calibration.d, calibration.distortion_model)


def check_frames(image: str, depth: str, camera_info: str, tolerated: str = '') -> None:
    """Raise GeometryError unless image, depth and camera info have the same frame_id: that of one camera.

    Args:
        image: frame_id of the image, see `frame_name`. Empty: not set.
        depth: frame_id of the depth image.
        camera_info: frame_id of the camera info.
        tolerated: Pairs of frames that count as the same one, see `frame_pairs`.
    """
    image = frame_name(image)
    pairs = frame_pairs(tolerated)
    for name, other in (('depth', frame_name(depth)), ('camera_info', frame_name(camera_info))):
        if other != image and frozenset((image, other)) not in pairs:
            raise GeometryError(
                f'{name} is of the frame {_frame(other)}, the image of {_frame(image)}: both must be of the same '
                'camera. If only the names differ, name the pair in the parameter frame_tolerance'
            )


def frame_name(frame_id: str) -> str:
    """Return a frame_id without the leading slash of ROS 1, which makes no difference."""
    return frame_id.removeprefix('/')


def frame_pairs(text: str) -> frozenset[frozenset[str]]:
    """Return the pairs of frames that `text` names, as in 'rgb_frame=depth_frame, a=b'.

    Raises:
        GeometryError: `text` is not of this form.
    """
    pairs = []
    for part in text.split(',') if text.strip() else ():
        names = [frame_name(name.strip()) for name in part.split('=')]
        if len(names) != 2 or names[0] == names[1]:
            raise GeometryError(f"frame_tolerance is pairs of frames, as in 'rgb_frame=depth_frame, a=b', got {text!r}")
        pairs.append(frozenset(names))
    return frozenset(pairs)


def _frame(name: str) -> str:
    return repr(name) if name else "'' (not set)"


def _window(calibration: Calibration, size: tuple[int, int]) -> tuple[tuple[int, int], tuple[int, int] | None]:
    """Return the offset (x, y) of the image in the full resolution, and that resolution (height, width) if known."""
    binning = max(1, calibration.binning_y), max(1, calibration.binning_x)
    stated, (x, y, width, height) = (calibration.height, calibration.width), calibration.roi
    window = height, width
    if window == (0, 0) or (x, y, window) == (0, 0, stated):
        if _is_binned(stated, binning, size) or _is_binned((stated[0] - y, stated[1] - x), binning, size):
            return (x, y), None if x or y else stated
        if stated == size:
            return (x, y), None if x or y else (stated[0] * binning[0], stated[1] * binning[1])
        raise _size_error('is of', stated, binning, size)
    if not _is_binned(window, binning, size):
        raise _size_error('has a region of interest of', window, binning, size)
    if y + height <= stated[0] and x + width <= stated[1]:
        return (x, y), stated
    if stated in (window, size):
        return (x, y), None
    raise GeometryError(
        f'the region of interest in the camera info, {width} x {height} pixels at ({x}, {y}), is not within its '
        f'{stated[1]} x {stated[0]} pixels: check its publisher'
    )


def _is_binned(full: tuple[int, int], binning: tuple[int, int], size: tuple[int, int]) -> bool:
    """Return whether an image of `size` has one pixel per `binning` pixels of `full`, with or without the remainder."""
    return all(each in (total // by, -(-total // by)) for total, by, each in zip(full, binning, size, strict=True))


def _size_error(what: str, stated: tuple[int, int], binning: tuple[int, int], size: tuple[int, int]) -> GeometryError:
    binned = f', binned by {binning[1]} x {binning[0]}' if binning != (1, 1) else ''
    return GeometryError(
        f'the camera info {what} {stated[1]} x {stated[0]} pixels{binned}, the image is of {size[1]} x {size[0]}: give '
        'the one that belongs to the image'
    )


def _intrinsics(calibration: Calibration, is_rectified: bool) -> np.ndarray:
    """Return a copy of the intrinsics [3, 3] of the raw or rectified image of the full resolution."""
    raw = np.array(calibration.k, np.float64).reshape(3, 3)
    if not is_rectified:
        turn = np.reshape(calibration.r, (3, 3))
        if any(calibration.r) and np.abs(turn - np.eye(3)).max() > MAX_TURN:
            raise GeometryError(
                'the image is raw and camera_info.r turns the camera frame for rectification; the message does not say '
                'which of the two frames its frame_id means. Use the rectified image and depth aligned to it (and, if '
                'the name of its topic does not say so, set the parameter `rectified` to true)'
            )
        return raw
    if not any(calibration.p):
        if any(calibration.d):
            raise GeometryError(
                'the image is rectified, but camera_info.p, which describes rectified images, is all zero: check its '
                'publisher, or set the parameter `rectified` to false if the image is raw'
            )
        return raw  # an undistorted camera sees the same in the raw and in the rectified image
    projection = np.array(calibration.p, np.float64).reshape(3, 4)
    if projection[:, 3].any():
        raise GeometryError(
            f'camera_info.p has the offset {projection[:, 3].tolist()} of the second camera of a stereo pair; the '
            'message does not say whether its frame_id means that camera or the first one. Use the first camera, or '
            'set the parameter `rectified` to false if k describes the image as well and the frame is its own'
        )
    return projection[:, :3].copy()


def _check_principal_point(intrinsics: np.ndarray, full_size: tuple[int, int], name: str) -> None:
    """Raise GeometryError if the middle of the image is so far from the principal point that K is of another size."""
    middle_of = 2 * intrinsics[1, 2] + 1, 2 * intrinsics[0, 2] + 1  # height and width
    low, high = PLAUSIBLE_SIZE
    ratios = middle_of[0] / full_size[0], middle_of[1] / full_size[1]
    if max(ratios) < low or min(ratios) > high:
        raise GeometryError(
            f'camera_info.{name} is that of an image of about {middle_of[1]:.0f} x {middle_of[0]:.0f} pixels, whose '
            f'middle is its principal point; the full resolution is {full_size[1]} x {full_size[0]}. Give the '
            'intrinsics of that size, and the window of a cropped image as roi'
        )

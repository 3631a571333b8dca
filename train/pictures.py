"""Pictures of packages and cameras: decoding, JPEG compression, and cut-outs that are turned and scaled to an image."""

from __future__ import annotations

import cv2
import numpy as np

from instructsam.core.display.jpeg import encode_jpeg
from instructsam.core.errors import DataError


def decode_rgb(content: bytes, name: str) -> np.ndarray:
    """Return an image file as [H, W, 3] uint8 RGB; raise DataError, which begins with `name`, if it is none."""
    image = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR)
    if image is None:
        raise DataError(f'{name} is not an image')
    return np.ascontiguousarray(image[..., ::-1])


def decode_cutout(content: bytes, name: str, opacity: float = 0.5) -> np.ndarray:
    """Return an image file with transparency as [H, W, 4] uint8 RGBA, cropped to what has more than `opacity`.

    Raises:
        DataError: It has no transparency, or nothing else; the message begins with `name`.
    """
    picture = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_UNCHANGED)
    if picture is None or picture.ndim != 3 or picture.shape[2] != 4:
        raise DataError(f'{name} is not an image with transparency')
    is_solid = picture[..., 3] > 255 * opacity
    if not is_solid.any():
        raise DataError(f'{name} is transparent everywhere')
    x, y, width, height = cv2.boundingRect(is_solid.astype(np.uint8))
    return np.ascontiguousarray(picture[y : y + height, x : x + width, [2, 1, 0, 3]])


def turn_matrix(scale: float, angle: float, *, is_mirrored: bool) -> np.ndarray:
    """Return the matrix [2, 2] that scales a picture, turns it by `angle` rad and, if asked, mirrors it before."""
    turn = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    if is_mirrored:
        turn[:, 0] *= -1
    return turn


def warp_cutout(
    picture: np.ndarray,
    turn: np.ndarray,
    center: np.ndarray,
    size: tuple[int, int],
    *,
    scale: float,
    softness: float,
    gain: float = 1.0,
) -> tuple[np.ndarray, np.ndarray]:
    """Return opacity [h, w], about 0 to 255, and premultiplied colour [h, w, 3] of a cut-out on an image, float32.

    Args:
        picture: [H, W, 4] uint8 RGBA.
        turn: [2, 2], see `turn_matrix`.
        center: Place of the picture's middle, (x, y) px.
        size: Width and height of the image.
        scale: That of `turn`.
        softness: Standard deviation of the blur of a picture that is made smaller, px of the image.
        gain: Factor of the colour.
    """
    height, width = picture.shape[:2]
    picture = picture.astype(np.float32)
    picture[..., :3] *= picture[..., 3:] / 255 * np.float32(gain)  # premultiplied, so that no border bleeds in
    if scale < 1:
        picture = cv2.GaussianBlur(picture, (0, 0), softness / scale)
    warped = cv2.warpAffine(picture, np.column_stack([turn, center - turn @ (width / 2, height / 2)]), size)
    return warped[..., 3], warped[..., :3]


def compress_jpeg(image: np.ndarray, quality: int) -> np.ndarray:
    """Return an image [H, W, 3] uint8 RGB as it is after JPEG compression."""
    return decode_rgb(encode_jpeg(image, quality), 'the compressed image')

"""Images as JPEG files in memory, and as data URLs for pages and endpoints."""

import base64

import cv2
import numpy as np

from instructsam.core.errors import ImageError

QUALITY = 90
MAX_SIDE = 65500  # px; libjpeg's limit


def encode_jpeg(image: np.ndarray, quality: int = QUALITY) -> bytes:
    """Return an image as a JPEG file, the same bytes for the same pixels.

    Args:
        image: [H, W, 3] uint8 RGB.
        quality: From 0 to 100.

    Raises:
        ImageError: The image has another shape or type, or is empty or too large for a JPEG file.
    """
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or not image.size:
        raise ImageError(f'an image for a JPEG file is [H, W, 3] uint8 RGB, got {list(image.shape)} of {image.dtype}')
    if max(image.shape) > MAX_SIDE:
        raise ImageError(f'a JPEG file has sides of at most {MAX_SIDE} px, the image has {list(image.shape[:2])}')
    is_done, content = cv2.imencode('.jpg', image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])
    if not is_done:
        raise ImageError(f'OpenCV cannot encode an image of {list(image.shape)} as a JPEG file')
    return content.tobytes()


def jpeg_url(image: np.ndarray, quality: int = QUALITY) -> str:
    """Return an image [H, W, 3] uint8 RGB as a data URL with the JPEG file of `encode_jpeg`."""
    return f'data:image/jpeg;base64,{base64.b64encode(encode_jpeg(image, quality)).decode("ascii")}'


def shrink_to(image: np.ndarray, longer_side_px: int) -> np.ndarray:
    """Return an image [H, W, 3] uint8 with its longer side reduced to a length, if it is longer."""
    scale = longer_side_px / max(image.shape[:2])
    if scale >= 1:
        return image
    height, width = (max(1, round(side * scale)) for side in image.shape[:2])
    return cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)

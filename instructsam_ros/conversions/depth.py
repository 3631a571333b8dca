"""Depth images to the arrays that instructsam.core.spatial works with.

REP 118: 16UC1 holds millimetres (0 = invalid), 32FC1 metres (NaN or inf = invalid). Depth must be aligned to colour,
pixel by pixel the same view, so that one camera info describes both. `compressed_depth` decodes compressed messages.
"""

import numpy as np
from sensor_msgs.msg import CompressedImage, Image

from instructsam.core.modes import MAX_MEGAPIXELS
from instructsam_ros.conversions.compressed_depth import METRES, MILLIMETRES, decode_depth
from instructsam_ros.conversions.images import ImageFormatError, PixelLayout, check_stamp, pixel_rows

LAYOUTS = {encoding: PixelLayout(np.uint16, 1, None) for encoding in MILLIMETRES}
LAYOUTS[METRES] = PixelLayout(np.float32, 1, None)
DEPTH_ENCODINGS = ('16UC1', METRES)  # of REP 118; mono16 may also be a grey image


def to_depth(
    msg: Image | CompressedImage, max_megapixels: float = MAX_MEGAPIXELS, size: tuple[int, int] | None = None
) -> np.ndarray:
    """Return the depth of a message along the optical axis, [H, W], as uint16 mm or float32 m.

    Args:
        msg: The message.
        max_megapixels: Largest compressed depth image that is decoded.
        size: The only size of a compressed depth image that is decoded, (height, width); None for any.

    Raises:
        ImageFormatError: it is not a depth image, its size, step and data contradict each other, or it is damaged or,
            if compressed, of another size than these.
    """
    check_stamp(msg.header.stamp)
    if isinstance(msg, CompressedImage):
        return decode_depth(msg, max_megapixels, size)
    if msg.encoding not in LAYOUTS:
        raise ImageFormatError(
            f'depth image of encoding {msg.encoding[:40]!r}: expected 16UC1 (mm) or 32FC1 (m), aligned to colour'
        )
    return np.ascontiguousarray(pixel_rows(msg, LAYOUTS[msg.encoding]))


def is_depth_message(msg: Image | CompressedImage) -> bool:
    """Return whether an image says by its encoding or format that it is depth."""
    kind = msg.format if isinstance(msg, CompressedImage) else msg.encoding
    return kind.split(';')[0].strip() in DEPTH_ENCODINGS or 'compressedDepth' in kind

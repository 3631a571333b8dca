"""sensor_msgs/Image and CompressedImage to [H, W, 3] uint8 RGB; every defect is an ImageFormatError.

Why not cv_bridge: it is not among the ROS wheels on PyPI, its releases for ROS 2 (Humble to Rolling) read wrong pixels
where the padding of a row is not a whole number of pixels, and it converts no encoding to RGB that is missing here.

16-bit images become 8-bit in two ways. mono16, rgb16 and bayer_*16 are colour or grey at full range: 65535 becomes 255,
as in cv_bridge. 16UC1 says nothing about the meaning of its values: thermal and infrared cameras use it with values in
a small part of the range, so its 1st to 99th percentile becomes 0 to 255. REP 118 also uses it for depth in mm, which
cannot be shown as grey: an image with holes (0, "no measurement") and no other value below 100 mm is refused. Floating
point encodings are depth.
"""

import re
from typing import NamedTuple

import cv2
import numpy as np
from builtin_interfaces.msg import Time
from sensor_msgs.msg import CompressedImage, Image

from instructsam.core.errors import ImageError
from instructsam.core.files.image_header import open_image
from instructsam.core.modes import MAX_MEGAPIXELS
from instructsam.core.text import one_line

MIN_HOLES = 0.01  # smallest share of pixels without a measurement in a depth image
NEAREST_DEPTH_MM = 100  # no depth camera in use measures closer than this

JPEG_START, JPEG_END = b'\xff\xd8', b'\xff\xd9'
PNG_START, PNG_END = b'\x89PNG\r\n\x1a\n', b'IEND\xae\x42\x60\x82'


class ImageFormatError(ImageError):
    """The message does not hold a readable colour or grey image."""


class PixelLayout(NamedTuple):
    """Memory layout of one encoding, and the cv2 code that converts it to RGB (None: it is RGB already)."""

    dtype: type[np.generic]
    channels: int
    code: int | None


LAYOUTS = {
    'mono8': PixelLayout(np.uint8, 1, cv2.COLOR_GRAY2RGB),
    'mono16': PixelLayout(np.uint16, 1, cv2.COLOR_GRAY2RGB),
    '16UC1': PixelLayout(np.uint16, 1, cv2.COLOR_GRAY2RGB),
    'yuv422': PixelLayout(np.uint8, 2, cv2.COLOR_YUV2RGB_UYVY),
    'uyvy': PixelLayout(np.uint8, 2, cv2.COLOR_YUV2RGB_UYVY),
    'yuv422_yuy2': PixelLayout(np.uint8, 2, cv2.COLOR_YUV2RGB_YUY2),
    'yuyv': PixelLayout(np.uint8, 2, cv2.COLOR_YUV2RGB_YUY2),
    'nv12': PixelLayout(np.uint8, 1, cv2.COLOR_YUV2RGB_NV12),
    'nv21': PixelLayout(np.uint8, 1, cv2.COLOR_YUV2RGB_NV21),
    # cv_bridge's cv2_to_imgmsg() writes these, in OpenCV's channel order, if its caller names no encoding.
    '8UC1': PixelLayout(np.uint8, 1, cv2.COLOR_GRAY2RGB),
    '8UC3': PixelLayout(np.uint8, 3, cv2.COLOR_BGR2RGB),
    '8UC4': PixelLayout(np.uint8, 4, cv2.COLOR_BGRA2RGB),
}
for _bits, _dtype in ((8, np.uint8), (16, np.uint16)):
    LAYOUTS |= {
        f'rgb{_bits}': PixelLayout(_dtype, 3, None),
        f'bgr{_bits}': PixelLayout(_dtype, 3, cv2.COLOR_BGR2RGB),
        f'rgba{_bits}': PixelLayout(_dtype, 4, cv2.COLOR_RGBA2RGB),
        f'bgra{_bits}': PixelLayout(_dtype, 4, cv2.COLOR_BGRA2RGB),
        # ROS names a Bayer pattern by pixels (0, 0) to (1, 1), OpenCV by pixels (1, 1) to (2, 2).
        f'bayer_rggb{_bits}': PixelLayout(_dtype, 1, cv2.COLOR_BayerBG2RGB),
        f'bayer_bggr{_bits}': PixelLayout(_dtype, 1, cv2.COLOR_BayerRG2RGB),
        f'bayer_gbrg{_bits}': PixelLayout(_dtype, 1, cv2.COLOR_BayerGR2RGB),
        f'bayer_grbg{_bits}': PixelLayout(_dtype, 1, cv2.COLOR_BayerGB2RGB),
    }


def to_rgb(msg: Image | CompressedImage, max_megapixels: float = MAX_MEGAPIXELS) -> np.ndarray:
    """Convert an image message to RGB, [H, W, 3] uint8, C-contiguous.

    An rgb8 image without row padding is returned as a view of `msg.data`; every other result is new memory.

    Raises:
        ImageFormatError: the message cannot be read, or has more than `max_megapixels`; the text says what was wrong,
            what was expected and what to do.
    """
    check_stamp(msg.header.stamp)
    if isinstance(msg, CompressedImage):
        return _decode(msg, max_megapixels)
    return _convert(msg, max_megapixels)


def check_stamp(stamp: Time) -> None:
    """Raise ImageFormatError if a driver made this stamp from a time that was NaN or negative."""
    if stamp.sec < 0 or stamp.nanosec >= 1_000_000_000:
        raise ImageFormatError(
            f'the header stamp is {stamp.sec} s {stamp.nanosec} ns, expected seconds >= 0 and nanoseconds < 1e9; '
            'the camera driver writes a time that is not a number'
        )


# Raw images


def _check_megapixels(msg: Image, max_megapixels: float) -> None:
    megapixels = msg.width * msg.height / 1e6
    if megapixels > max_megapixels:
        raise ImageFormatError(
            f'Image {msg.width} x {msg.height} has {megapixels:.1f} megapixels, expected at most {max_megapixels:g}; '
            'let the camera driver scale it down, or raise max_megapixels'
        )


def _convert(msg: Image, max_megapixels: float) -> np.ndarray:
    layout = _layout_of(msg.encoding)
    rows = pixel_rows(msg, layout)
    _check_megapixels(msg, max_megapixels)
    if layout.code is None:
        return _to_8_bit(np.ascontiguousarray(rows))
    if msg.encoding == '16UC1':
        rows = _stretch(rows, 'Image of encoding 16UC1')
    return _to_8_bit(cv2.cvtColor(np.ascontiguousarray(rows), layout.code))


def _layout_of(encoding: str) -> PixelLayout:
    if encoding in LAYOUTS:
        return LAYOUTS[encoding]
    name = repr(encoding[:40])
    known = f'expected one of {", ".join(LAYOUTS)}'
    if re.match(r'32F|64F|TYPE_32F', encoding):
        raise ImageFormatError(
            f'Image of encoding {name}: this is depth or another measurement, {known}; '
            'give the topic of the colour image'
        )
    raise ImageFormatError(f'Image of unknown encoding {name}: {known}')


def pixel_rows(msg: Image, layout: PixelLayout) -> np.ndarray:
    """Return the pixels of an Image in native byte order, with rows still `step` bytes apart.

    Returns:
        [rows, W] for one channel, else [rows, W, channels]; nv12 and nv21 have H * 3 / 2 rows.

    Raises:
        ImageFormatError: size, step and data contradict each other.
    """
    encoding, height, width = msg.encoding, msg.height, msg.width
    _check_size(encoding, height, width)
    # NV12 and NV21: `height` rows of luma are followed by height / 2 rows of chroma.
    row_count = height * 3 // 2 if encoding in ('nv12', 'nv21') else height
    row_bytes = width * layout.channels * np.dtype(layout.dtype).itemsize
    name = f'Image {width} x {height} {encoding}'
    if msg.step < row_bytes:
        raise ImageFormatError(
            f'{name}: step is {msg.step} bytes, expected at least {row_bytes}; '
            'the encoding does not match the data, or the driver leaves step unset'
        )
    data = np.frombuffer(msg.data, np.uint8)
    if data.size != row_count * msg.step:
        raise ImageFormatError(
            f'{name}: data has {data.size} bytes, expected {row_count} rows x step {msg.step} = '
            f'{row_count * msg.step}; the driver sends part of the image or another encoding'
        )
    dtype = np.dtype(layout.dtype).newbyteorder('>' if msg.is_bigendian else '<')
    shape = (row_count, width) if layout.channels == 1 else (row_count, width, layout.channels)
    strides = (msg.step, layout.channels * dtype.itemsize, dtype.itemsize)[: len(shape)]
    return np.ndarray(shape, dtype, data, strides=strides).astype(layout.dtype, copy=False)


def _check_size(encoding: str, height: int, width: int) -> None:
    name = f'Image {width} x {height} {encoding}'
    if not height or not width:
        raise ImageFormatError(f'Image of {width} x {height} pixels: it is empty; check the camera driver')
    if encoding in ('yuv422', 'uyvy', 'yuv422_yuy2', 'yuyv') and width % 2:
        raise ImageFormatError(f'{name}: two pixels share their colour, width must be even')
    if encoding in ('nv12', 'nv21') and (width % 2 or height % 2):
        raise ImageFormatError(f'{name}: four pixels share their colour, width and height must be even')
    if encoding.startswith('bayer_') and min(height, width) < 3:
        raise ImageFormatError(f'{name}: a Bayer image needs at least 3 x 3 pixels')


def _to_8_bit(image: np.ndarray) -> np.ndarray:
    """Scale uint16 from its full range to uint8; return uint8 unchanged."""
    return image if image.dtype == np.uint8 else cv2.convertScaleAbs(image, alpha=255 / 65535)


def _stretch(grey: np.ndarray, name: str) -> np.ndarray:
    """Scale [H, W] uint16 of unknown meaning to uint8, so that the 1st to 99th percentile becomes 0 to 255.

    Raises:
        ImageFormatError: the values look like depth; the message begins with `name`.
    """
    histogram = np.bincount(grey.ravel(), minlength=65536)
    near = histogram[1:NEAREST_DEPTH_MM].sum()
    if near == 0 and MIN_HOLES * grey.size <= histogram[0] < grey.size:
        raise ImageFormatError(
            f'{name}: this is depth in mm (values of 0, no others below {NEAREST_DEPTH_MM}), expected a colour or '
            'grey image; give the topic of the colour image, or publish a grey image as mono16'
        )
    low, high = np.searchsorted(np.cumsum(histogram), [0.01 * grey.size, 0.99 * grey.size])
    scaled = (np.arange(65536) - low) * (255 / max(high - low, 1))
    return np.clip(np.rint(scaled), 0, 255).astype(np.uint8)[grey]


# Compressed images


def _decode(msg: CompressedImage, max_megapixels: float) -> np.ndarray:
    data = np.frombuffer(msg.data, np.uint8)
    name = f'CompressedImage of format {msg.format[:60]!r}'
    if 'compressedDepth' in msg.format:
        raise ImageFormatError(
            f'{name}: this is depth, expected a jpeg or png of colour; give the topic of the colour image'
        )
    content = data.tobytes()
    flags = _decode_flags(content, name)
    try:
        with open_image(content, max_megapixels, formats=('JPEG', 'PNG')) as header:
            width, height = header.size
            is_grey = header.mode == 'L'
    except ImageError as error:
        raise ImageFormatError(f'{name}: {one_line(error)}') from error
    try:
        image = cv2.imdecode(data, flags)
    except cv2.error as error:  # for example more pixels than OpenCV's limit
        raise ImageFormatError(f'{name}: OpenCV cannot decode it ({one_line(error)})') from error
    if image is None:
        raise ImageFormatError(f'{name}: the image is damaged, OpenCV cannot decode its {data.size} bytes')
    if image.shape[:2] != (height, width):  # two headers, of which each reader believes another
        raise ImageFormatError(
            f'{name}: the image is damaged, its header says {width} x {height} px and OpenCV finds '
            f'{image.shape[1]} x {image.shape[0]}'
        )
    encoding = msg.format.partition(';')[0].strip()
    if encoding.startswith('bayer_') and (image.ndim == 2 or is_grey):
        # compressed_image_transport does not demosaic: `ORIG_PIXFMT; CODEC compressed` without COMPRESSED_PIXFMT.
        _check_size(encoding, height, width)
        mosaic, code = image if image.ndim == 2 else np.ascontiguousarray(image[..., 0]), _layout_of(encoding).code
        assert code is not None  # Only layouts of RGB, and of depth, have none.
        return _to_8_bit(cv2.cvtColor(mosaic, code))
    if image.ndim == 3:
        code = cv2.COLOR_BGRA2RGB if image.shape[2] == 4 else cv2.COLOR_BGR2RGB
        return _to_8_bit(cv2.cvtColor(image, code))
    if image.dtype == np.uint16 and not msg.format.startswith('mono16'):
        image = _stretch(image, name)
    return cv2.cvtColor(_to_8_bit(image), cv2.COLOR_GRAY2RGB)


def _decode_flags(content: bytes, name: str) -> int:
    """Return cv2.imdecode's flags for a complete JPEG or PNG; raise ImageFormatError for anything else."""
    if content.startswith(JPEG_START):
        is_complete = _is_complete_jpeg(content)
        # The Exif orientation is ignored, because masks refer to the sensor's own pixels.
        flags = cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION
    elif content.startswith(PNG_START):
        is_complete = PNG_END in content[-64:]
        flags = cv2.IMREAD_UNCHANGED
    else:
        raise ImageFormatError(
            f'{name}: {len(content)} bytes that are neither jpeg nor png; publish one of these, or a raw Image'
        )
    if not is_complete:
        raise ImageFormatError(
            f'{name}: the image is truncated after {len(content)} bytes (its end marker is missing), expected a whole '
            'file; check the buffer size of the camera driver'
        )
    return flags


def _is_complete_jpeg(content: bytes) -> bool:
    """Return whether the end marker follows the image data; decoders silently fill missing data with grey.

    The segments before the image data are skipped, since a thumbnail inside them ends with the same marker.
    """
    at = len(JPEG_START)
    while at + 4 <= len(content) and content[at] == 0xFF:
        marker = content[at + 1]
        if marker == 0xFF:  # fill byte
            at += 1
            continue
        at += 2 + int.from_bytes(content[at + 2 : at + 4], 'big')
        if marker == 0xDA:  # start of scan: in the entropy-coded data, FF D9 can only be the end marker
            return content.rfind(JPEG_END, at) >= 0
    return False

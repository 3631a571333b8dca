"""sensor_msgs/Image and CompressedImage to [H, W, 3] uint8 RGB; every fault is one ImageFormatError.

The converter here comes first, so that a frame looks the same on every machine. cv_bridge, where it is installed and
passes a self-check, adds the encodings that are missing here; those released so far for ROS 2 do not pass it.

16 bits become 8 in two ways. mono16, rgb16, bayer_*16 name colour or grey at full range: 65535 becomes 255
(what cv_bridge does). 16UC1 names no meaning: thermal and infrared cameras use it, with values in a small part
of the range, so its 1st to 99th percentile becomes 0 to 255. REP 118 uses it for depth in mm too, which is not a
picture: an image with holes (0, "no measurement") and nothing nearer than 100 mm is refused. Floats are depth.
"""

import functools
import re
from typing import NamedTuple

import cv2
import numpy as np

from instructsam.core import ImageError

DEPTH_HOLES = 0.01  # a depth image has at least this fraction of pixels without a measurement
NEAREST_DEPTH_MM = 100  # no depth camera in use measures nearer


class ImageFormatError(ImageError):
    """The message does not hold a colour or grey image that can be read."""


class Layout(NamedTuple):
    """How one encoding lies in memory, and the cv2 code that makes RGB of it (None: it is RGB)."""

    dtype: type
    channels: int
    code: int | None


LAYOUTS = {
    'mono8': Layout(np.uint8, 1, cv2.COLOR_GRAY2RGB),
    'mono16': Layout(np.uint16, 1, cv2.COLOR_GRAY2RGB),
    '16UC1': Layout(np.uint16, 1, cv2.COLOR_GRAY2RGB),
    'yuv422': Layout(np.uint8, 2, cv2.COLOR_YUV2RGB_UYVY),
    'uyvy': Layout(np.uint8, 2, cv2.COLOR_YUV2RGB_UYVY),
    'yuv422_yuy2': Layout(np.uint8, 2, cv2.COLOR_YUV2RGB_YUY2),
    'yuyv': Layout(np.uint8, 2, cv2.COLOR_YUV2RGB_YUY2),
    'nv12': Layout(np.uint8, 1, cv2.COLOR_YUV2RGB_NV12),
    'nv21': Layout(np.uint8, 1, cv2.COLOR_YUV2RGB_NV21),
    # what cv_bridge's cv2_to_imgmsg() writes when its caller names no encoding: OpenCV's channel order
    '8UC1': Layout(np.uint8, 1, cv2.COLOR_GRAY2RGB),
    '8UC3': Layout(np.uint8, 3, cv2.COLOR_BGR2RGB),
    '8UC4': Layout(np.uint8, 4, cv2.COLOR_BGRA2RGB),
}
for _bits, _dtype in ((8, np.uint8), (16, np.uint16)):
    LAYOUTS |= {
        f'rgb{_bits}': Layout(_dtype, 3, None),
        f'bgr{_bits}': Layout(_dtype, 3, cv2.COLOR_BGR2RGB),
        f'rgba{_bits}': Layout(_dtype, 4, cv2.COLOR_RGBA2RGB),
        f'bgra{_bits}': Layout(_dtype, 4, cv2.COLOR_BGRA2RGB),
        # ROS names a mosaic by the first two rows' first two pixels, OpenCV by those one to the right and below
        f'bayer_rggb{_bits}': Layout(_dtype, 1, cv2.COLOR_BayerBG2RGB),
        f'bayer_bggr{_bits}': Layout(_dtype, 1, cv2.COLOR_BayerRG2RGB),
        f'bayer_gbrg{_bits}': Layout(_dtype, 1, cv2.COLOR_BayerGR2RGB),
        f'bayer_grbg{_bits}': Layout(_dtype, 1, cv2.COLOR_BayerGB2RGB),
    }


def to_rgb(msg):
    """The picture of a sensor_msgs Image or CompressedImage: [H, W, 3] uint8 RGB, C-contiguous.

    An rgb8 image without padded rows is returned as a view of `msg.data`, everything else is new memory.
    Raises ImageFormatError, whose text says what was wrong, what was expected and what to do.
    """
    check_stamp(msg.header.stamp)
    if hasattr(msg, 'format'):
        return _decode(msg)
    if msg.encoding in LAYOUTS:
        return _convert(msg)
    return _convert_by_cv_bridge(msg)


def check_stamp(stamp):
    """Raises ImageFormatError for a time that was NaN or negative when a driver made integers of it."""
    if stamp.sec < 0 or stamp.nanosec >= 1_000_000_000:
        raise ImageFormatError(
            f'the header stamp is {stamp.sec} s {stamp.nanosec} ns, expected seconds >= 0 and nanoseconds < 1e9; '
            'the camera driver writes a time that is not a number'
        )


# Raw images


def _convert(msg):
    layout = LAYOUTS[msg.encoding]
    rows = pixel_rows(msg, layout)
    if layout.code is None:
        return _to_8_bit(np.ascontiguousarray(rows))
    if msg.encoding == '16UC1':
        rows = _stretch(rows, 'Image of encoding 16UC1')
    return _to_8_bit(cv2.cvtColor(np.ascontiguousarray(rows), layout.code))


def pixel_rows(msg, layout):
    """The pixels of an Image as [rows, W] or [rows, W, channels], native byte order, still strided by `step`.

    Raises ImageFormatError where size, step and data do not fit each other.
    """
    encoding, height, width = msg.encoding, msg.height, msg.width
    _check_size(encoding, height, width)
    planes = encoding in ('nv12', 'nv21')  # `height` is the picture's; H / 2 rows of chroma follow
    row_count = height * 3 // 2 if planes else height
    row_bytes = width * layout.channels * np.dtype(layout.dtype).itemsize
    name = f'Image {width} x {height} {encoding}'
    if msg.step < row_bytes:
        raise ImageFormatError(
            f'{name}: step is {msg.step} bytes, expected at least {row_bytes}; '
            'the encoding is not that of the data, or the driver leaves step unset'
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


def _check_size(encoding, height, width):
    if not height or not width:
        raise ImageFormatError(f'Image of {width} x {height} pixels: it is empty; check the camera driver')
    if encoding in ('yuv422', 'uyvy', 'yuv422_yuy2', 'yuyv') and width % 2:
        raise ImageFormatError(
            f'Image {width} x {height} {encoding}: two pixels share their colour, width must be even'
        )
    if encoding in ('nv12', 'nv21') and (width % 2 or height % 2):
        raise ImageFormatError(
            f'Image {width} x {height} {encoding}: four pixels share their colour, width and height must be even'
        )
    if encoding.startswith('bayer_') and min(height, width) < 3:
        raise ImageFormatError(f'Image {width} x {height} {encoding}: a mosaic needs at least 3 x 3 pixels')


def _to_8_bit(image):
    """uint8 as it is; uint16 from its full range."""
    return image if image.dtype == np.uint8 else cv2.convertScaleAbs(image, alpha=255 / 65535)


def _stretch(grey, name):
    """[H, W] uint16 of unknown meaning to uint8: the 1st to 99th percentile becomes 0 to 255. Refuses depth."""
    histogram = np.bincount(grey.ravel(), minlength=65536)
    near = histogram[1:NEAREST_DEPTH_MM].sum()
    if near == 0 and DEPTH_HOLES * grey.size <= histogram[0] < grey.size:
        raise ImageFormatError(
            f'{name}: this is depth in mm (values of 0, no others below {NEAREST_DEPTH_MM}), expected a colour or '
            'grey picture; give the topic of the colour image, or publish a grey image as mono16'
        )
    low, high = np.searchsorted(np.cumsum(histogram), [0.01 * grey.size, 0.99 * grey.size])
    scaled = (np.arange(65536) - low) * (255 / max(high - low, 1))
    return np.clip(np.rint(scaled), 0, 255).astype(np.uint8)[grey]


# cv_bridge


@functools.cache
def cv_bridge():
    """A CvBridge that converts a padded image rightly. Raises ImportError where there is none.

    Not every module of this name does: ROS 2's (Humble to Rolling) reads another picture where the padding is not a
    whole number of pixels, PyPI's is ROS 1's, and one built for NumPy 1 fails with NumPy 2.
    """
    try:
        from cv_bridge import CvBridge
        from sensor_msgs.msg import Image

        probe = Image(height=2, width=1, encoding='bgr8', step=4, data=bytes([1, 2, 3, 0, 4, 5, 6, 0]))
        bridge = CvBridge()
        image = bridge.imgmsg_to_cv2(probe, 'rgb8')
    except Exception as error:  # what a broken installation raises is anybody's guess
        raise ImportError(f'cv_bridge does not work: {error}') from error
    if not np.array_equal(image, [[[3, 2, 1]], [[6, 5, 4]]]):
        raise ImportError('cv_bridge reads padded rows wrongly')
    return bridge


def _convert_by_cv_bridge(msg):
    """Encodings that LAYOUTS does not have."""
    name = repr(msg.encoding[:40])
    known = f'expected one of {", ".join(LAYOUTS)}'
    if re.match(r'32F|64F|TYPE_32F', msg.encoding):
        raise ImageFormatError(
            f'Image of encoding {name}: this is depth or another measurement, {known}; '
            'give the topic of the colour image'
        )
    try:
        bridge = cv_bridge()
    except ImportError:
        raise ImageFormatError(f'Image of unknown encoding {name}: {known}') from None
    _check_size(msg.encoding, msg.height, msg.width)
    try:
        return np.ascontiguousarray(bridge.imgmsg_to_cv2(msg, 'rgb8'))
    except Exception as error:  # CvBridgeError, and what its binding lets through
        raise ImageFormatError(f'Image of encoding {name}: cv_bridge refuses it ({error}), {known}') from error


# Compressed images


def _decode(msg):
    data = np.frombuffer(msg.data, np.uint8)
    name = f'CompressedImage of format {msg.format[:60]!r}'
    if 'compressedDepth' in msg.format:
        raise ImageFormatError(
            f'{name}: this is depth, expected a jpeg or png of colour; give the topic of the colour image'
        )
    content = data.tobytes()
    if content.startswith(b'\xff\xd8'):
        complete = _jpeg_is_complete(content)
        flags = cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION  # masks are on the sensor's own pixels
    elif content.startswith(b'\x89PNG\r\n\x1a\n'):
        complete = b'IEND\xae\x42\x60\x82' in content[-64:]
        flags = cv2.IMREAD_UNCHANGED
    else:
        raise ImageFormatError(
            f'{name}: {data.size} bytes that are neither jpeg nor png; publish one of these, or a raw Image'
        )
    if not complete:
        raise ImageFormatError(
            f'{name}: the picture is cut off after {data.size} bytes (its end marker is missing), expected a whole '
            'file; check the buffer size of the camera driver'
        )
    try:
        image = cv2.imdecode(data, flags)
    except cv2.error as error:  # e.g. more pixels than OpenCV's limit
        raise ImageFormatError(f'{name}: OpenCV cannot decode it ({" ".join(str(error).split())})') from error
    if image is None:
        raise ImageFormatError(f'{name}: the picture is damaged, OpenCV cannot decode its {data.size} bytes')
    if image.ndim == 3:
        code = cv2.COLOR_BGRA2RGB if image.shape[2] == 4 else cv2.COLOR_BGR2RGB
        return _to_8_bit(cv2.cvtColor(image, code))
    if image.dtype == np.uint16 and not msg.format.startswith('mono16'):
        image = _stretch(image, name)
    return cv2.cvtColor(_to_8_bit(image), cv2.COLOR_GRAY2RGB)


def _jpeg_is_complete(content):
    """Whether the end marker follows the picture's own data; decoders fill what is missing with grey, silently.

    The segments before it are stepped over, since a thumbnail in them ends with the same marker.
    """
    at = 2
    while at + 4 <= len(content) and content[at] == 0xFF:
        marker = content[at + 1]
        if marker == 0xFF:  # fill byte
            at += 1
            continue
        at += 2 + int.from_bytes(content[at + 2 : at + 4], 'big')
        if marker == 0xDA:  # start of scan: in what follows, FF D9 is the end marker and nothing else
            return content.rfind(b'\xff\xd9', at) >= 0
    return False

"""Every encoding against images laid out by hand in NumPy, and every defect against its error message."""

import itertools
import struct
import zlib

import cv2
import numpy as np
import pytest

pytest.importorskip('rclpy', reason='needs ROS 2 or its wheels')

from sensor_msgs.msg import CompressedImage, Image

from instructsam_ros.conversions import images

HEIGHT, WIDTH = 24, 32
COLOURS = np.array([[[200, 30, 60], [20, 180, 90]], [[40, 70, 220], [128, 128, 128]]], np.uint8)
RGB = COLOURS.repeat(HEIGHT // 2, axis=0).repeat(WIDTH // 2, axis=1)  # four areas of one colour each
GREY = RGB[..., 1]
# Pixels away from the borders between the areas, where chroma subsampling and Bayer patterns mix neighbours.
INSIDE = np.ix_([4, 5, 6, 7, 17, 18, 19], [5, 6, 7, 8, 22, 23, 24])


def bayer(pattern):
    out = np.empty((HEIGHT, WIDTH), np.uint8)
    for (y, x), colour in zip(itertools.product((0, 1), (0, 1)), pattern, strict=True):
        out[y::2, x::2] = RGB[y::2, x::2, 'rgb'.index(colour)]
    return out


def yuv():
    """Return Y, U and V of ITU-R BT.601 in studio range: Y 16..235, U and V 16..240."""
    r, g, b = np.moveaxis(RGB.astype(float), 2, 0)
    y = 16 + 0.257 * r + 0.504 * g + 0.098 * b
    u = 128 - 0.148 * r - 0.291 * g + 0.439 * b
    v = 128 + 0.439 * r - 0.368 * g - 0.071 * b
    return (np.rint(plane).astype(np.uint8) for plane in (y, u, v))


def packed_422(luma_first):
    y, u, v = yuv()
    chroma = np.where(np.arange(WIDTH) % 2, v, u)
    return np.stack([y, chroma] if luma_first else [chroma, y], axis=2)


def planes_420(order):
    y, u, v = yuv()
    chroma = np.stack([{'u': u, 'v': v}[name][::2, ::2] for name in order], axis=2)
    return np.vstack([y, chroma.reshape(HEIGHT // 2, WIDTH)])


def with_alpha(rgb):
    return np.dstack([rgb, np.full((HEIGHT, WIDTH), 77, np.uint8)])


def full_range(image):
    return image.astype(np.uint16) * 257


COLOUR = {
    'rgb8': RGB,
    'bgr8': RGB[..., ::-1],
    'rgba8': with_alpha(RGB),
    'bgra8': with_alpha(RGB[..., ::-1]),
    'bayer_rggb8': bayer('rggb'),
    'bayer_bggr8': bayer('bggr'),
    'bayer_gbrg8': bayer('gbrg'),
    'bayer_grbg8': bayer('grbg'),
    'yuv422': packed_422(luma_first=False),
    'yuv422_yuy2': packed_422(luma_first=True),
    '8UC3': RGB[..., ::-1],
    '8UC4': with_alpha(RGB[..., ::-1]),
}
COLOUR |= {f'{name[:-1]}16': full_range(COLOUR[name]) for name in COLOUR if name[0] in 'rb'}
PLANAR = {'nv12': planes_420('uv'), 'nv21': planes_420('vu')}
COLOUR |= {'uyvy': COLOUR['yuv422'], 'yuyv': COLOUR['yuv422_yuy2'], **PLANAR}
MONO = {'mono8': GREY, '8UC1': GREY, 'mono16': full_range(GREY)}
SIXTEEN_BIT = sorted(name for name in COLOUR | MONO if name.endswith('16'))


def image(encoding, pixels, padding=0, big_endian=False):
    """Return the message of `pixels` [rows, W(, channels)], with `padding` arbitrary bytes after each row."""
    pixels = pixels.astype(pixels.dtype.newbyteorder('>' if big_endian else '<'))
    rows = np.ascontiguousarray(pixels).view(np.uint8).reshape(len(pixels), -1)
    padded = np.pad(rows, ((0, 0), (0, padding)), constant_values=99)
    return Image(
        height=HEIGHT,
        width=WIDTH,
        encoding=encoding,
        is_bigendian=int(big_endian),
        step=padded.shape[1],
        data=padded.tobytes(),
    )


def check(rgb, expected, tolerance):
    assert rgb.shape == (HEIGHT, WIDTH, 3)
    assert rgb.dtype == np.uint8
    difference = np.abs(rgb.astype(int) - expected.astype(int))
    assert difference[INSIDE].max() <= tolerance


@pytest.mark.parametrize('padding', [0, 2, 7])
@pytest.mark.parametrize('encoding', [*COLOUR, *MONO])
def test_colours_and_padding(encoding, padding):
    pixels = (COLOUR | MONO)[encoding]
    expected = GREY[..., None] if encoding in MONO else RGB
    is_yuv = encoding in PLANAR or encoding[0] in 'yu'
    check(images.to_rgb(image(encoding, pixels, padding)), expected, tolerance=3 if is_yuv else 0)


@pytest.mark.parametrize('padding', [0, 3])
@pytest.mark.parametrize('encoding', SIXTEEN_BIT)
def test_big_endian(encoding, padding):
    pixels = (COLOUR | MONO)[encoding] + np.uint16(5)  # the low byte affects the rounding only
    expected = GREY[..., None] if encoding in MONO else RGB
    check(images.to_rgb(image(encoding, pixels, padding, big_endian=True)), expected, tolerance=0)


def test_common_encodings_are_known():
    assert {'rgb8', 'bgr8', 'rgba8', 'bgra8', 'mono8', 'mono16', '16UC1', 'yuv422', 'yuv422_yuy2', 'nv12'} < set(
        images.LAYOUTS
    )


def test_rgb8_is_not_copied_and_padded_rgb8_is_contiguous():
    msg = image('rgb8', RGB)
    assert np.shares_memory(images.to_rgb(msg), np.frombuffer(msg.data, np.uint8))
    padded = images.to_rgb(image('rgb8', RGB, padding=5))
    assert padded.flags.c_contiguous
    assert np.array_equal(padded, RGB)


@pytest.mark.parametrize('size', [(1, 1), (4320, 7680)])
def test_smallest_and_8k(size):
    pixels = np.full((*size, 3), 7, np.uint8)
    msg = image('bgr8', pixels)
    msg.height, msg.width = size
    assert images.to_rgb(msg).shape == (*size, 3)


# 16UC1: a thermal image is accepted, depth is refused


def thermal():
    """Return centikelvin as FLIR cameras publish them: 20 to 40 degrees Celsius, no zeros."""
    return np.linspace(29315, 31315, HEIGHT * WIDTH).astype(np.uint16).reshape(HEIGHT, WIDTH)


def depth():
    """Return millimetres; a tenth of the pixels has no measurement (REP 118)."""
    millimetres = np.linspace(380, 4000, HEIGHT * WIDTH).astype(np.uint16).reshape(HEIGHT, WIDTH)
    millimetres[:, ::10] = 0
    return millimetres


@pytest.mark.parametrize('big_endian', [False, True])
def test_16uc1_uses_the_range_of_the_image(big_endian):
    rgb = images.to_rgb(image('16UC1', thermal(), padding=4, big_endian=big_endian))
    grey = rgb[..., 0].ravel().astype(int)
    assert (rgb == rgb[..., :1]).all()
    assert (np.diff(grey) >= 0).all()
    assert grey[0] == 0
    assert grey[-1] == 255
    assert 120 < np.median(grey) < 136


@pytest.mark.parametrize('value', [0, 1, 500, 65535])
def test_16uc1_of_one_value_is_an_image(value):
    assert np.ptp(images.to_rgb(image('16UC1', np.full((HEIGHT, WIDTH), value, np.uint16)))) == 0


def test_16uc1_with_dark_pixels_is_an_image():
    infrared = np.arange(HEIGHT * WIDTH, dtype=np.uint16).reshape(HEIGHT, WIDTH) // 4  # 0 0 0 0 1 1 1 1 ...
    assert images.to_rgb(image('16UC1', infrared)).max() == 255


def test_depth_is_refused_as_colour_but_accepted_as_mono16():
    with pytest.raises(images.ImageFormatError, match=r'depth in mm.*topic of the colour image'):
        images.to_rgb(image('16UC1', depth()))
    assert images.to_rgb(image('mono16', depth())).shape == (HEIGHT, WIDTH, 3)


# Compressed


def compressed(format_, suffix, pixels, *options):
    return CompressedImage(format=format_, data=cv2.imencode(suffix, pixels, options)[1].tobytes())


@pytest.mark.parametrize('format_', ['jpeg', 'rgb8; jpeg compressed bgr8', 'bgr8; jpeg compressed bgr8', ''])
@pytest.mark.parametrize('progressive', [0, 1])
def test_jpeg(format_, progressive):
    msg = compressed(format_, '.jpg', RGB[..., ::-1], cv2.IMWRITE_JPEG_PROGRESSIVE, progressive)
    check(images.to_rgb(msg), RGB, tolerance=4)


@pytest.mark.parametrize('pixels', [RGB, full_range(RGB)])
@pytest.mark.parametrize('format_', ['png', 'rgb8; png compressed bgr8'])
def test_colour_png(format_, pixels):
    check(images.to_rgb(compressed(format_, '.png', pixels[..., ::-1])), RGB, tolerance=0)


def test_grey_and_transparent_files():
    check(images.to_rgb(compressed('mono8; jpeg compressed ', '.jpg', GREY)), GREY[..., None], tolerance=4)
    check(images.to_rgb(compressed('png', '.png', GREY)), GREY[..., None], tolerance=0)
    check(images.to_rgb(compressed('png', '.png', with_alpha(RGB[..., ::-1]))), RGB, tolerance=0)


def test_16_bit_png():
    named = compressed('mono16; png compressed mono16', '.png', full_range(GREY))
    check(images.to_rgb(named), GREY[..., None], tolerance=0)
    assert np.ptp(images.to_rgb(compressed('16UC1; png compressed ', '.png', thermal()))) == 255
    for format_ in ('png', '16UC1; png compressed '):
        with pytest.raises(images.ImageFormatError, match='depth in mm'):
            images.to_rgb(compressed(format_, '.png', depth()))


BAYER = [encoding for encoding in COLOUR if encoding.startswith('bayer_')]


@pytest.mark.parametrize('encoding', BAYER)
def test_a_mosaic_in_a_png_becomes_colour(encoding):
    expected = images.to_rgb(image(encoding, COLOUR[encoding]))
    assert (images.to_rgb(compressed(f'{encoding}; png compressed ', '.png', COLOUR[encoding])) == expected).all()


def test_a_mosaic_in_a_jpeg_becomes_colour():
    mosaic = np.full((HEIGHT, WIDTH), 50, np.uint8)
    mosaic[::2, ::2] = 200
    msg = compressed('bayer_rggb8; jpeg compressed ', '.jpg', mosaic, cv2.IMWRITE_JPEG_QUALITY, 100)
    check(images.to_rgb(msg), np.array([200, 50, 50]), tolerance=6)


def test_colour_of_a_demosaiced_camera_stays():
    for ending, tolerance in (('.png', 0), ('.jpg', 4)):
        msg = compressed(f'bayer_rggb8; {ending[1:]} compressed bgr8', ending, RGB[..., ::-1])
        check(images.to_rgb(msg), RGB, tolerance)


def test_an_unknown_mosaic_is_refused():
    with pytest.raises(images.ImageFormatError, match='bayer_xyz8'):
        images.to_rgb(compressed('bayer_xyz8; png compressed ', '.png', GREY))


def test_bytes_after_the_end_of_a_jpeg_are_ignored():
    msg = compressed('jpeg', '.jpg', RGB[..., ::-1])
    msg.data.frombytes(bytes(100))  # some drivers send their whole buffer
    check(images.to_rgb(msg), RGB, tolerance=4)


def with_thumbnail(jpeg):
    """Return `jpeg` with an APP1 segment that holds a complete small JPEG, as Exif does."""
    thumbnail = b'Exif\0\0' + cv2.imencode('.jpg', RGB[:8, :8])[1].tobytes()
    return jpeg[:2] + b'\xff\xe1' + (len(thumbnail) + 2).to_bytes(2, 'big') + thumbnail + jpeg[2:]


def test_exif_orientation_does_not_rotate_the_image():
    exif = b'Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0'  # orientation 6: by 90 degrees
    jpeg = cv2.imencode('.jpg', RGB[..., ::-1])[1].tobytes()
    rotated = jpeg[:2] + b'\xff\xe1' + (len(exif) + 2).to_bytes(2, 'big') + exif + jpeg[2:]
    check(images.to_rgb(CompressedImage(format='jpeg', data=rotated)), RGB, tolerance=4)


JPEG = cv2.imencode('.jpg', RGB)[1].tobytes()
PNG = cv2.imencode('.png', RGB)[1].tobytes()


@pytest.mark.parametrize('kept', [4, 30, len(JPEG) // 2, len(JPEG) - 200, len(JPEG) - 2, len(JPEG) - 1])
def test_truncated_jpeg(kept):
    for whole in (JPEG, with_thumbnail(JPEG)):
        cut = whole[: kept + len(whole) - len(JPEG)]
        with pytest.raises(images.ImageFormatError, match='truncated'):
            images.to_rgb(CompressedImage(format='jpeg', data=cut))
    assert images.to_rgb(CompressedImage(format='jpeg', data=with_thumbnail(JPEG))).shape == RGB.shape


@pytest.mark.parametrize('kept', [8, 60, len(PNG) - 12, len(PNG) - 1])
def test_truncated_png(kept):
    with pytest.raises(images.ImageFormatError, match='truncated'):
        images.to_rgb(CompressedImage(format='png', data=PNG[:kept]))


def test_damaged_png():
    damaged = bytearray(PNG)
    damaged[len(PNG) // 2] ^= 0xFF
    with pytest.raises(images.ImageFormatError, match='damaged'):
        images.to_rgb(CompressedImage(format='png', data=bytes(damaged)))


# Sizes above the limit


def declaring(content, width, height):
    """Return a JPEG or PNG whose header declares another size than its pixels have."""
    if content is PNG:
        header = struct.pack('>II', width, height) + content[24:29]
        return content[:16] + header + struct.pack('>I', zlib.crc32(b'IHDR' + header)) + content[33:]
    at = content.index(b'\xff\xc0') + 5
    return content[:at] + struct.pack('>HH', height, width) + content[at + 4 :]


@pytest.mark.parametrize('content', [JPEG, PNG])
def test_a_header_that_declares_too_many_pixels(content, monkeypatch):
    monkeypatch.setattr(cv2, 'imdecode', None)  # nothing is decoded
    for width, height, reason in [(30000, 30000, '900000000 pixels'), (9000, 8000, '72.0 megapixels')]:
        with pytest.raises(images.ImageFormatError, match=f'{reason}.*64 megapixels'):
            images.to_rgb(CompressedImage(format='jpeg', data=declaring(content, width, height)))


def test_the_limit_of_megapixels_is_a_parameter():
    for msg in (image('rgb8', RGB), CompressedImage(format='jpeg', data=JPEG)):
        assert images.to_rgb(msg, max_megapixels=0.001).shape == RGB.shape
        with pytest.raises(images.ImageFormatError, match=r'0\.0 megapixels, expected at most 0\.0007'):
            images.to_rgb(msg, max_megapixels=0.0007)


def test_two_headers_of_one_image():
    start, end = JPEG.index(b'\xff\xc0'), JPEG.index(b'\xff\xc4')
    twice = JPEG[:start] + declaring(JPEG, 9000, 9000)[start:end] + JPEG[start:]
    with pytest.raises(images.ImageFormatError, match='damaged'):
        images.to_rgb(CompressedImage(format='jpeg', data=twice))


# One message for each defect


def changed(encoding, pixels, /, **fields):
    msg = image(encoding, pixels)
    for name, value in fields.items():
        setattr(msg, name, value)
    return msg


@pytest.mark.parametrize(
    ('msg', 'expected'),
    [
        (changed('rgb8', RGB, encoding='rgb9'), "unknown encoding 'rgb9'.*expected one of.*rgb8"),
        (changed('rgb8', RGB, encoding=''), "unknown encoding ''"),
        (changed('rgb8', RGB, encoding='x' * 100_000), "unknown encoding 'xxx"),
        (changed('rgb8', RGB, encoding='32FC1'), "'32FC1'.*depth.*topic of the colour image"),
        (changed('rgb8', RGB, encoding='TYPE_32FC1'), 'depth'),
        (changed('rgb8', RGB, height=0), '32 x 0 pixels: it is empty'),
        (changed('rgb8', RGB, width=0), '0 x 24 pixels: it is empty'),
        (changed('rgb8', RGB, step=0), 'step is 0 bytes, expected at least 96'),
        (changed('rgb8', RGB, step=95), 'step is 95 bytes, expected at least 96'),
        (changed('mono16', full_range(GREY), step=63), 'step is 63 bytes, expected at least 64'),
        (changed('mono16', depth(), encoding='rgb8'), 'step is 64 bytes, expected at least 96'),
        (changed('rgb8', RGB, data=bytes(96 * 24 - 1)), 'data has 2303 bytes, expected 24 rows x step 96 = 2304'),
        (changed('rgb8', RGB, data=bytes(96 * 25)), 'data has 2400 bytes'),
        (changed('rgb8', RGB, data=b''), 'data has 0 bytes'),
        (changed('rgb8', RGB, height=2**32 - 1), 'data has 2304 bytes'),
        (changed('yuv422', COLOUR['yuv422'], width=31), 'width must be even'),
        (changed('nv12', planes_420('uv'), height=23), 'width and height must be even'),
        (changed('nv12', planes_420('uv'), width=31), 'width and height must be even'),
        (changed('nv12', planes_420('uv')[:HEIGHT]), 'data has 768 bytes, expected 36 rows'),
        (changed('bayer_rggb8', bayer('rggb')[:2], height=2), 'at least 3 x 3 pixels'),
        (CompressedImage(format='16UC1; compressedDepth png', data=PNG), 'this is depth'),
        (CompressedImage(format='jpeg', data=b''), '0 bytes that are neither jpeg nor png'),
        (CompressedImage(format='h264', data=b'\0\0\0\1gB'), "format 'h264'.*neither jpeg nor png"),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_faults(msg, expected):
    with pytest.raises(images.ImageFormatError, match=expected) as caught:
        images.to_rgb(msg)
    assert '\n' not in str(caught.value)
    assert len(str(caught.value)) < 700


@pytest.mark.parametrize(('sec', 'nanosec'), [(0, 1_000_000_000), (-1, 0), (-(2**31), 2**31)])
def test_invalid_stamps(sec, nanosec):
    for msg in (image('rgb8', RGB), CompressedImage(format='jpeg', data=JPEG)):
        msg.header.stamp.sec, msg.header.stamp.nanosec = sec, nanosec
        with pytest.raises(images.ImageFormatError, match=r'header stamp.*not a number'):
            images.to_rgb(msg)

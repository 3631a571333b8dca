"""Headers of images: sizes, formats and texts that cannot be believed are refused before any pixel is decoded."""

import io
import struct
import time
import zlib

import numpy as np
import pytest
from PIL import Image

from instructsam.core.errors import ImageError
from instructsam.core.files.image_file import decode_image, read_depth, read_image
from instructsam.core.files.image_header import FORMATS, open_image


def encoded(file_format, size=(40, 30), mode='RGB', **options):
    buffer = io.BytesIO()
    Image.new(mode, size).save(buffer, file_format, **options)
    return buffer.getvalue()


def chunk(name, content):
    return struct.pack('>I', len(content)) + name + content + struct.pack('>I', zlib.crc32(name + content))


def png(width, height, depth=8, colour=2, *, chunks=b'', rows=1):
    """Return a PNG with the first `rows` rows of the declared size, all zero."""
    samples = {0: 1, 2: 3, 6: 4}[colour]
    data = zlib.compress(bytes(rows * (1 + width * samples * depth // 8)), 9)
    header = chunk(b'IHDR', struct.pack('>IIBBBBB', width, height, depth, colour, 0, 0, 0))
    return b'\x89PNG\r\n\x1a\n' + header + chunks + chunk(b'IDAT', data) + chunk(b'IEND', b'')


def jpeg(width, height):
    """Return a JPEG whose frame header declares another size than its pixels have."""
    content = encoded('JPEG', (16, 16))
    at = content.index(b'\xff\xc0') + 5
    return content[:at] + struct.pack('>HH', height, width) + content[at + 4 :]


def gif(width, height):
    content = encoded('GIF', (4, 4))
    return content[:6] + struct.pack('<HH', width, height) + content[10:]


def bmp(width, height):
    content = encoded('BMP', (4, 4))
    return content[:18] + struct.pack('<ii', width, height) + content[26:]


def webp(width, height):
    content = encoded('WEBP', (4, 4), lossless=True)
    at = content.index(b'VP8L') + 9
    bits = (width - 1) | (height - 1) << 14
    return content[:at] + struct.pack('<I', bits) + content[at + 4 :]


@pytest.mark.parametrize('file_format', FORMATS)
def test_headers(file_format):
    image = open_image(encoded(file_format))
    assert (image.format, *image.size) == (file_format, 40, 30)


@pytest.mark.parametrize(
    ('content', 'megapixels'),
    [
        (jpeg(30000, 30000), '900000000 pixels'),
        (jpeg(9000, 9000), '81.0 megapixels'),
        (png(12000, 12000, 16, 6), '144.0 megapixels'),
        (png(8001, 8000), '64.0 megapixels'),
        (png(2**31 - 1, 2**31 - 1, rows=0), 'pixels'),
        (gif(65535, 1000), '65.5 megapixels'),
        (bmp(10000, 10000), '100.0 megapixels'),
        (webp(16383, 16383), '268402689 pixels'),
        (b'P6 20000 5000 255 ', '100.0 megapixels'),
    ],
    ids=lambda value: value if isinstance(value, str) else '',
)
def test_a_declared_size_above_the_limit(tmp_path, content, megapixels):
    with pytest.raises(ImageError, match=f'{megapixels}.* 64 megapixels'):
        open_image(content)
    (tmp_path / 'image').write_bytes(content)
    with pytest.raises(ImageError, match=megapixels):
        read_image(tmp_path / 'image')


def test_the_limit_is_a_parameter(tmp_path):
    content = encoded('PNG', (1000, 1000))
    assert open_image(content, 1.0).width == 1000
    with pytest.raises(ImageError, match=r'1000 x 1000 px, 1\.0 megapixels, expected at most 0\.9 megapixels'):
        open_image(content, 0.9)
    (tmp_path / 'a.png').write_bytes(content)
    with pytest.raises(ImageError, match=r'a.png: .*at most 0.9 megapixels'):
        read_depth(tmp_path / 'a.png', 0.9)


def tiff(width, height, tile_width, tile_height):
    """Return a TIFF of one compressed grey tile."""
    data = zlib.compress(bytes(256))
    tags = {
        256: width, 257: height, 258: 8, 259: 8, 262: 1, 277: 1,
        322: tile_width, 323: tile_height, 324: 200, 325: len(data),
    }  # fmt: skip
    entries = b''.join(struct.pack('<HHII', tag, 4, 1, value) for tag, value in tags.items())
    content = b'II*\0' + struct.pack('<IH', 8, len(tags)) + entries + bytes(4)
    return content.ljust(200, b'\0') + data


def test_a_tile_that_is_larger_than_its_image():
    np.testing.assert_array_equal(np.asarray(open_image(tiff(16, 16, 16, 16))), 0)
    with pytest.raises(ImageError, match=r'3600\.0 megapixels'):
        open_image(tiff(16, 16, 60000, 60000))


@pytest.mark.parametrize('file_format', ['EPS', 'PDF', 'ICO', 'TGA', 'JPEG2000', 'PCX', 'SGI'])
def test_formats_that_are_not_named_are_not_opened(file_format, tmp_path):
    content = encoded(file_format, (32, 32))
    with pytest.raises(ImageError, match='one of the formats JPEG, PNG'):
        open_image(content)
    (tmp_path / 'a.png').write_bytes(content)
    with pytest.raises(ImageError, match=r'a.png: it is not an image in one of the formats'):
        read_image(tmp_path / 'a.png')
    with pytest.raises(ImageError, match='formats JPEG, PNG'):
        open_image(encoded('GIF'), formats=('JPEG', 'PNG'))


@pytest.mark.parametrize('name', [b'zTXt', b'iTXt', b'iCCP'])
def test_texts_and_profiles_that_inflate(name):
    filler = zlib.compress(bytes(20_000_000), 9)
    start = {b'zTXt': b'a\0\0', b'iTXt': b'a\0\1\0\0\0', b'iCCP': b'a\0\0'}[name]
    content = png(8, 8, chunks=20 * chunk(name, start + filler), rows=8)
    with pytest.raises(ImageError, match='header of the image cannot be read: Decompressed data too large'):
        open_image(content)


def test_a_jpeg_of_many_scans():
    content = encoded('JPEG', (64, 64), progressive=True)
    assert open_image(content).width == 64
    first = content.index(b'\xff\xda')
    scans = content[first:-2]
    for end in (content[-2:], b''):
        with pytest.raises(ImageError, match='more than 100 scans'):
            open_image(content[:first] + 50 * scans + end)
    for filler in (b'\xff\xe0\0\2', b'\xff\xfe\0\0'):  # a comment is never shorter than its length
        with pytest.raises(ImageError, match='10000 segments'):
            open_image(content[:-2] + 10_001 * filler)


def test_scans_that_are_none(tmp_path):
    """A thumbnail, bytes after the end such as the video of a motion photo, and restart markers between pixels."""
    content = encoded('JPEG', (64, 64), progressive=True, restart_marker_blocks=1)
    assert content.count(b'\xff\xd0') > 1
    scan = b'\xff\xda\0\x08\1\1\0\0\x3f\0'
    thumbnail = b'\xff\xe1' + struct.pack('>H', 2 + 300 * len(scan)) + 300 * scan
    (tmp_path / 'a.jpg').write_bytes(content[:2] + thumbnail + content[2:] + 300_000 * scan)
    assert read_image(tmp_path / 'a.jpg').shape == (64, 64, 3)


def test_many_scans_are_refused_at_once():
    """Twenty million bytes take milliseconds, wherever FF stands among them."""
    start = encoded('JPEG', (64, 64), progressive=True)[:-2]
    for pixels in (b'\xff\0', b'\xff', b'\xff\xd0', b'\0'):
        used = time.process_time()
        with pytest.raises(ImageError, match='more than 100 scans'):
            open_image(start + 20_000_000 // len(pixels) * pixels + 101 * b'\xff\xda\0\2')
        assert time.process_time() - used < 2


def test_an_animation_costs_its_first_frame_only():
    frames = [Image.new('L', (50, 50), value) for value in range(1, 60)]
    for file_format in ('GIF', 'WEBP', 'PNG', 'TIFF'):
        content = io.BytesIO()
        frames[0].save(content, file_format, save_all=True, append_images=frames[1:])
        image = open_image(content.getvalue(), 0.003)
        assert image.size == (50, 50)
        image.load()


@pytest.mark.parametrize('file_format', FORMATS)
def test_cut_headers(file_format):
    for cut in (1, 6):
        with pytest.raises(ImageError, match='image'):
            open_image(encoded(file_format)[:cut])


def test_special_files_are_no_images(tmp_path):
    for path in ('/dev/zero', '/proc/self/maps', tmp_path):
        for read in (read_image, read_depth, decode_image):
            with pytest.raises(ImageError, match='cannot read'):
                read(path)


def test_a_numpy_file_that_declares_more_than_it_has(tmp_path):
    with open(tmp_path / 'a.npy', 'wb') as file:
        np.lib.format.write_array_header_1_0(file, {'descr': '<f4', 'fortran_order': False, 'shape': (10**7, 10**7)})
    with pytest.raises(ImageError, match='cannot read'):
        read_depth(tmp_path / 'a.npy')

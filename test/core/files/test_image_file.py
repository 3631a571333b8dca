"""Image files: every format becomes upright 8-bit RGB, every defect one ImageError."""

import io
import random

import numpy as np
import pytest
from PIL import Image

from instructsam.core.errors import ImageError, InstructSAMError
from instructsam.core.files.image_file import check_image_path, read_depth, read_image, write_image

RED = (200, 30, 40)


@pytest.mark.parametrize(
    ('mode', 'value', 'expected'),
    [
        ('RGB', RED, RED),
        ('L', 77, (77, 77, 77)),
        ('1', 1, (255, 255, 255)),
        ('LA', (77, 0), (77, 77, 77)),
        ('RGBA', (*RED, 0), RED),
        ('I;16', 0x4D80, (0x4D, 0x4D, 0x4D)),
    ],
)
def test_pixel_formats(tmp_path, mode, value, expected):
    Image.new(mode, (3, 2), value).save(tmp_path / 'a.png')
    image = read_image(tmp_path / 'a.png')
    assert image.dtype == np.uint8
    assert image.shape == (2, 3, 3)
    np.testing.assert_array_equal(image[0, 0], expected)


def test_palette_cmyk_and_animation(tmp_path):
    red = Image.new('RGB', (16, 16), RED)
    red.convert('P', palette=Image.Palette.ADAPTIVE).save(tmp_path / 'palette.png')
    red.convert('CMYK').save(tmp_path / 'cmyk.tif')
    red.save(tmp_path / 'animated.gif', save_all=True, append_images=[Image.new('RGB', (16, 16), 'blue')])
    for path in tmp_path.iterdir():
        np.testing.assert_allclose(read_image(path)[0, 0], RED, atol=3)


def test_is_rotated_upright(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # the image must be rotated by 90 degrees clockwise
    Image.fromarray(np.arange(6, dtype=np.uint8).reshape(2, 3)).save(tmp_path / 'a.png', exif=exif)
    np.testing.assert_array_equal(read_image(tmp_path / 'a.png')[..., 0], [[3, 0], [4, 1], [5, 2]])


@pytest.mark.parametrize('dtype', [np.float32, np.int32])
def test_numbers_without_a_range_are_refused(tmp_path, dtype):
    Image.fromarray(np.zeros((2, 3), dtype)).save(tmp_path / 'a.tif')
    with pytest.raises(ImageError, match='32-bit'):
        read_image(tmp_path / 'a.tif')


PGM = np.array([[0, 1, 500], [1000, 2000, 4000]])


@pytest.mark.parametrize('maximum', [4000, 4095, 10000, 65534, 65535])
@pytest.mark.parametrize('header', ['P5\n3 2\n{}\n', 'P5 # 16 bits\n# 8 9\n3 2 {} ', 'P2\n3 2\n{}\n'])
def test_depth_in_a_pgm_file_is_as_stored(tmp_path, header, maximum):
    """Pillow scales the numbers of the file from its maximum to 65535."""
    pixels = PGM.astype('>u2').tobytes() if header.startswith('P5') else ' '.join(map(str, PGM.ravel())).encode()
    (tmp_path / 'a.pgm').write_bytes(header.format(maximum).encode() + pixels)
    depth = read_depth(tmp_path / 'a.pgm')
    assert depth.dtype == np.uint16
    np.testing.assert_array_equal(depth, PGM)


def test_the_scale_of_a_pgm_file_is_undone_exactly(tmp_path):
    values = np.arange(65535)
    (tmp_path / 'a.pgm').write_bytes(b'P5\n257 255\n65534\n' + values.astype('>u2').tobytes())
    np.testing.assert_array_equal(read_depth(tmp_path / 'a.pgm').ravel(), values)


@pytest.mark.parametrize(('maximum', 'expected'), [(65535, [0x12, 0xFF]), (0x1FFF, [0x91, 0xFF])])
def test_the_upper_bits_of_a_pgm_file_are_used(tmp_path, maximum, expected):
    values = np.array([0x1234, maximum], '>u2')
    (tmp_path / 'a.pgm').write_bytes(b'P5\n2 1\n%d\n' % maximum + values.tobytes())
    np.testing.assert_array_equal(read_image(tmp_path / 'a.pgm')[0], np.array(expected)[:, None].repeat(3, 1))


def test_files_that_are_not_images(tmp_path):
    (tmp_path / 'text.png').write_text('hello')
    (tmp_path / 'empty.jpg').touch()
    for name, reason in [
        ('', 'directory'),
        ('absent.png', 'No such file'),
        ('text.png', 'not an image'),
        ('empty.jpg', 'the file is empty'),
        ('\udcff.png', 'No such file'),
    ]:
        with pytest.raises(ImageError, match=reason):
            read_image(tmp_path / name)


@pytest.mark.parametrize('file_format', ['PNG', 'JPEG', 'GIF', 'TIFF', 'WEBP', 'BMP'])
def test_broken_files(tmp_path, file_format, recwarn):
    buffer = io.BytesIO()
    Image.effect_mandelbrot((64, 48), (-2, -1, 1, 1), 20).convert('RGB').save(buffer, file_format)
    whole = buffer.getvalue()
    path = tmp_path / 'image'
    dice = random.Random(file_format)
    messages = []
    for _ in range(150):
        broken = bytearray(whole)
        if dice.random() < 0.5:
            del broken[dice.randrange(len(broken)) :]
        else:
            for _ in range(dice.randrange(1, 20)):
                broken[dice.randrange(len(broken))] = dice.randrange(256)
        path.write_bytes(broken)
        try:
            image = read_image(path)
        except ImageError as error:
            messages.append(str(error))
        else:
            assert image.dtype == np.uint8
    assert len(messages) > 10
    assert all(str(path) in message for message in messages)
    assert not recwarn.list


@pytest.mark.parametrize('name', ['a.png', 'a.JPG', 'a.webp'])
def test_write(tmp_path, name):
    check_image_path(tmp_path / name)
    write_image(tmp_path / name, np.full((8, 8, 3), RED, np.uint8))
    np.testing.assert_allclose(read_image(tmp_path / name)[0, 0], RED, atol=3)


def test_paths_that_cannot_be_written(tmp_path):
    (tmp_path / 'folder.png').mkdir()
    for name, reason in [('a.xyz', 'format'), ('absent/a.png', 'no folder'), ('folder.png', 'a folder')]:
        with pytest.raises(InstructSAMError, match=reason):
            check_image_path(tmp_path / name)
    with pytest.raises(InstructSAMError, match=r'cannot write .* Is a directory'):
        write_image(tmp_path / 'folder.png', np.zeros((8, 8, 3), np.uint8))

"""The header of an encoded image, read before a pixel is decoded: a file of 700 bytes can declare 900 megapixels.

Pillow reads the header only when it opens an image, and bounds the texts and profiles in it. Whatever decodes the
pixels afterwards, Pillow or OpenCV, needs memory in proportion to the size that has been checked here.
"""

import io
import re
import warnings
from collections.abc import Sequence
from typing import BinaryIO

from PIL import Image, UnidentifiedImageError

from instructsam.core.errors import ImageError
from instructsam.core.modes import MAX_MEGAPIXELS

FORMATS = ('JPEG', 'PNG', 'WEBP', 'GIF', 'BMP', 'TIFF', 'PPM')
"""Formats that are read, in Pillow's names. Others run other programs (EPS) or have rarely used decoders."""

MAX_JPEG_SCANS = 100
"""Progressive encoders write about 10. Every scan costs time in proportion to the image, however short it is."""

MAX_JPEG_SEGMENTS = 10_000
"""The longest colour profile takes 255."""

START_OF_SCAN, END_OF_IMAGE = b'\xda', b'\xd9'
JPEG_SEGMENT = re.compile(rb'\xff([\xc0-\xc7\xc9-\xcf\xd9-\xdd\xe0-\xef\xfe])')
"""Markers before a length (ITU-T T.81, table B.1), and the end. Decoders stop at others or skip them without one."""

TILE_WIDTH, TILE_LENGTH = 322, 323  # TIFF tags


def open_image(content: bytes, max_megapixels: float = MAX_MEGAPIXELS, formats: Sequence[str] = FORMATS) -> Image.Image:
    """Return an image that may be decoded; of an animation, that is the first frame.

    Args:
        content: The encoded image.
        max_megapixels: Largest number of pixels, in millions.
        formats: Formats that are accepted, some of FORMATS.

    Raises:
        ImageError: The header is broken, of another format, or declares more pixels than the limit.
    """
    image = open_header(io.BytesIO(content), max_megapixels, formats)
    if image.format in ('JPEG', 'MPO'):
        _check_scans(content)
    return image


def open_header(
    file: BinaryIO, max_megapixels: float = MAX_MEGAPIXELS, formats: Sequence[str] = FORMATS
) -> Image.Image:
    """Return an image of which only the header is used; other arguments and errors are those of `open_image`.

    `file` is read up to the end of the header, so that the sizes of many files are found quickly.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')  # about odd metadata
            image = Image.open(file, formats=tuple(formats))
    except UnidentifiedImageError:
        raise ImageError(f'it is not an image in one of the formats {", ".join(formats)}') from None
    except Image.DecompressionBombError as error:  # Pillow's own limit
        pixels = re.search(r'\d{6,}', str(error))
        raise ImageError(
            f'the image has {pixels[0] if pixels else "too many"} pixels, expected at most {max_megapixels:g} '
            'megapixels; scale it down'
        ) from None
    except Exception as error:  # on broken files Pillow raises SyntaxError, ValueError, struct.error, ...
        raise ImageError(f'the header of the image cannot be read: {error}') from error
    _check_size(image, max_megapixels)
    return image


def _check_scans(content: bytes) -> None:
    """Raise ImageError if a JPEG has too many scans.

    Its segments are walked: a thumbnail in one of them, or a video after the end, has scans or looks like it.
    """
    position = scans = segments = 0
    while (match := JPEG_SEGMENT.search(content, position)) and match[1] != END_OF_IMAGE:
        segments += 1
        scans += match[1] == START_OF_SCAN
        if scans > MAX_JPEG_SCANS or segments > MAX_JPEG_SEGMENTS:
            raise ImageError(
                f'the JPEG has more than {MAX_JPEG_SCANS} scans or {MAX_JPEG_SEGMENTS} segments; encode it again'
            )
        # After the segment of a scan come its pixels, where FF is followed by 00 or a number that is not a segment.
        position = match.end() + max(2, int.from_bytes(content[match.end() : match.end() + 2], 'big'))


def _check_size(image: Image.Image, max_megapixels: float) -> None:
    width, height = image.size
    # A tile is decoded as a whole, however little of it lies in the image.
    tags = getattr(image, 'tag_v2', {})
    tile_width, tile_height = (int(tags.get(tag, side)) for tag, side in ((TILE_WIDTH, 1), (TILE_LENGTH, 1)))
    pixels = max(width * height, tile_width * tile_height)
    if pixels > max_megapixels * 1e6:
        raise ImageError(
            f'the image is {width} x {height} px, {pixels / 1e6:.1f} megapixels, expected at most '
            f'{max_megapixels:g} megapixels; scale it down or raise the limit'
        )

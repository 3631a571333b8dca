"""Reading and writing image files with Pillow."""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from instructsam.core.atomic_write import check_path, replaced
from instructsam.core.errors import ImageError, InstructSAMError
from instructsam.core.files.image_header import open_image
from instructsam.core.files.regular_file import read_regular_file
from instructsam.core.modes import MAX_MEGAPIXELS

BYTES_PER_PIXEL = 8  # 16-bit RGBA, the largest pixels that are read; a larger file holds something else
METADATA_BYTES = 64_000_000

ORIENTATION_TAG = 0x0112  # in EXIF and TIFF; 2 to 8 are rotations and reflections
PGM_HEADER = re.compile(rb'P[25](?:(?:\s|#[^\r\n]*[\r\n])+(\d+)){3}\s')  # the group is the third number, maxval
PILLOW_MAXIMUM = 65535  # to which Pillow scales the maxval of a PGM file with more than 8 bits


def read_image(path: str | Path, max_megapixels: float = MAX_MEGAPIXELS, *, allow_rotation: bool = True) -> np.ndarray:
    """Read an image as [H, W, 3] uint8 RGB, rotated upright according to its EXIF tag.

    Grey, palette and CMYK images are converted, and transparency is dropped. The upper 8 of 16 bits and the first frame
    of an animation are used.

    Raises ImageError if the file is not a regular file, is not an image of one of the formats FORMATS, has more than
    `max_megapixels`, is truncated, or has 32-bit or floating-point pixels, whose range is not defined; without
    `allow_rotation`, also if the tag says that the pixels are not stored upright.
    """
    image = decode_image(path, max_megapixels, allow_rotation=allow_rotation)
    is_16_bit = image.mode.startswith('I;16') or _is_16_bit_pgm(image)
    image = ImageOps.exif_transpose(image)
    if is_16_bit:
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    elif image.mode in ('I', 'F'):
        raise ImageError(f'cannot use {path}: its pixels are 32-bit numbers. Convert it to 8 or 16 bits')
    return np.array(image.convert('RGB'))


def decode_image(
    path: str | Path, max_megapixels: float = MAX_MEGAPIXELS, *, allow_rotation: bool = True
) -> Image.Image:
    """Return the image in a file, decoded, in the mode of the file; of some formats Pillow rotates it upright.

    Raises ImageError as `read_image` does, for pixels of any kind.
    """
    return _decode(path, _read(path, max_megapixels), max_megapixels, allow_rotation=allow_rotation)


def _decode(path: str | Path, content: bytes, max_megapixels: float, *, allow_rotation: bool) -> Image.Image:
    try:
        image = open_image(content, max_megapixels)
        # Pillow rotates some formats when they are loaded and then drops the tag.
        if not allow_rotation and image.getexif().get(ORIENTATION_TAG) in range(2, 9):
            raise ImageError(
                f'its EXIF orientation is {image.getexif()[ORIENTATION_TAG]}, so it is to be rotated, and '
                'then image, depth and intrinsics no longer belong together. Store it upright without the tag'
            )
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')  # about odd metadata
            image.load()
    except Exception as error:  # on broken files Pillow's decoders raise SyntaxError, ValueError, struct.error, ...
        raise ImageError(f'cannot read {path}: {error}') from error
    return image


def read_depth(path: str | Path, max_megapixels: float = MAX_MEGAPIXELS) -> np.ndarray:
    """Read a depth image as [H, W] uint16 mm or float32 m, 0 or not finite where there is no measurement.

    The file is a 16-bit image in mm, a floating-point TIFF in m or a NumPy file in m (of integers: in mm). Raises
    ImageError if it cannot be used.
    """
    content = _read(path, max_megapixels)
    if Path(path).suffix == '.npy':
        try:
            depth = np.load(io.BytesIO(content), allow_pickle=False)
        except Exception as error:  # NumPy raises exceptions of many types
            raise ImageError(f'cannot read {path}: {error}') from error
    else:
        image = _decode(path, content, max_megapixels, allow_rotation=False)
        depth = np.asarray(image)
        if _is_16_bit_pgm(image):
            depth = _stored_pgm(path, content, depth)
    if depth.ndim != 2 or depth.dtype.kind not in 'uif' or depth.dtype == np.uint8:
        raise ImageError(
            f'{path} is not a depth image: expected one channel of 16-bit mm or floating-point m, got {depth.dtype} '
            f'{list(depth.shape)}'
        )
    if depth.dtype.kind == 'f':
        return depth.astype(np.float32)
    if depth.size and (depth.min() < 0 or depth.max() > np.iinfo(np.uint16).max):
        raise ImageError(f'{path} is not a depth image: its {depth.dtype} numbers are not 16-bit mm')
    return depth.astype(np.uint16)


def _is_16_bit_pgm(image: Image.Image) -> bool:
    """Return whether an image is a PGM file with more than 8 bits, whose mode is that of 32-bit integers."""
    return image.format == 'PPM' and image.mode == 'I'


def _stored_pgm(path: str | Path, content: bytes, scaled: np.ndarray) -> np.ndarray:
    """Return the numbers in a PGM file of more than 8 bits, [H, W] uint16.

    Pillow scales them from 0 to maxval to 0 to PILLOW_MAXIMUM and rounds, which never maps two numbers to one.

    Args:
        path: The file, for messages.
        content: The file's content.
        scaled: Pillow's pixels.
    """
    header = PGM_HEADER.match(content)
    if header is None:
        raise ImageError(f'cannot read {path}: the header of the PGM file has no maxval')
    return np.rint(scaled * (int(header[1]) / PILLOW_MAXIMUM)).astype(np.uint16)


def _read(path: str | Path, max_megapixels: float) -> bytes:
    try:
        return read_regular_file(path, max_bytes=int(max_megapixels * 1e6 * BYTES_PER_PIXEL) + METADATA_BYTES)
    except OSError as error:
        raise ImageError(f'cannot read {path}: {error.strerror or error}') from error


def check_image_path(path: str | Path, taken: Iterable[str | Path] = ()) -> None:
    """Raise InstructSAMError if `write_image` could not write `path`; cheap, so that it can come before the work.

    taken: See `check_path`.
    """
    Image.init()
    if Image.registered_extensions().get(Path(path).suffix.lower()) not in Image.SAVE:
        raise InstructSAMError(f'cannot write {path}: this is not the ending of a known image format. Use .png or .jpg')
    check_path(path, taken)


def write_image(path: str | Path, image: np.ndarray) -> None:
    """Write `image` [H, W, 3] uint8 RGB in the format of the file's ending, completely or not at all.

    Raises StorageError if the file cannot be written, and InstructSAMError if the format does not allow the image.
    """
    try:
        with replaced(path) as part:
            Image.fromarray(image).save(part)
    except (OSError, ValueError) as error:
        raise InstructSAMError(f'cannot write {path}: {error}') from error

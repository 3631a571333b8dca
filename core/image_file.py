"""Pictures in files, through Pillow."""

import warnings
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from instructsam.core.errors import ImageError, InstructSAMError


def read_image(path):
    """[H, W, 3] uint8 RGB, turned upright as its EXIF tag says.

    Grey, palette and CMYK pictures are converted, transparency is dropped, of 16 bits the upper 8 are taken, of an
    animation the first frame. Raises ImageError: not there, not a picture, cut short, or of 32-bit or float pixels,
    whose range nobody knows.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')  # of odd metadata and of 89 megapixels; from 179 on it is an error
            with Image.open(path) as file:
                image = ImageOps.exif_transpose(file)
    except UnidentifiedImageError:
        raise ImageError(f'cannot read {path}: not a picture in a format that Pillow knows') from None
    except OSError as error:
        raise ImageError(f'cannot read {path}: {error.strerror or error}') from error
    except Exception as error:  # on broken files Pillow's decoders raise SyntaxError, ValueError, struct.error, ...
        raise ImageError(f'cannot read {path}: {error}') from error
    if image.mode.startswith('I;16'):
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    elif image.mode in ('I', 'F'):
        raise ImageError(f'cannot use {path}: its pixels are 32-bit numbers. Convert it to 8 or 16 bits')
    return np.array(image.convert('RGB'))


def read_depth(path):
    """[H, W] float32 m from a 16-bit picture in mm, a floating-point TIFF or a NumPy file in m; 0: no depth there.

    Raises ImageError.
    """
    try:
        if Path(path).suffix == '.npy':
            depth = np.load(path, allow_pickle=False)
        else:
            with Image.open(path) as file:
                depth = np.asarray(file)
    except Exception as error:  # as in read_image
        raise ImageError(f'cannot read {path}: {getattr(error, "strerror", None) or error}') from error
    if depth.ndim != 2 or depth.dtype.kind not in 'uif' or depth.dtype == np.uint8:
        raise ImageError(
            f'{path} is no depth image: one channel of 16-bit mm or of floating-point m, got {depth.dtype} '
            f'{list(depth.shape)}'
        )
    return depth.astype(np.float32) / (1 if depth.dtype.kind == 'f' else 1000)


def check_image_path(path):
    """Raises InstructSAMError if `write_image` could not write `path`; cheap, for asking before the work is done."""
    Image.init()
    if Image.registered_extensions().get(Path(path).suffix.lower()) not in Image.SAVE:
        raise InstructSAMError(f'cannot write {path}: no known picture format ends like that. Use .png or .jpg')
    check_path(path)


def check_path(path):
    """Raises InstructSAMError if no file can be written at `path`."""
    folder = Path(path).parent
    if not folder.is_dir():
        raise InstructSAMError(f'cannot write {path}: there is no folder {folder}')
    if Path(path).is_dir():
        raise InstructSAMError(f'cannot write {path}: it is a folder')


def write_image(path, image):
    """Writes `image` [H, W, 3] uint8 RGB in the format of the file's ending. Raises InstructSAMError."""
    try:
        Image.fromarray(image).save(path)
    except (OSError, ValueError) as error:
        raise InstructSAMError(f'cannot write {path}: {getattr(error, "strerror", None) or error}') from error

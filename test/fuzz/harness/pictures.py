"""Small pictures as files of many formats, all of the same contents."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image

HEIGHT, WIDTH = 48, 64


def rgb() -> np.ndarray:
    """Return a red and a green square on a grey gradient, [48, 64, 3] uint8."""
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    pixels = np.stack([80 + x, 80 + y, 120 + 0 * x], axis=-1).astype(np.uint8)
    pixels[8:24, 6:26] = 220, 20, 20
    pixels[26:42, 36:58] = 20, 200, 20
    return pixels


def depth_mm() -> np.ndarray:
    """Return the depth of a plane with two boxes on it, [48, 64] uint16 mm."""
    depth = np.full((HEIGHT, WIDTH), 1000, np.uint16)
    depth[8:24, 6:26] = 950
    depth[26:42, 36:58] = 940
    return depth


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    """Return an image as a file of a format of Pillow."""
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def npy(array: np.ndarray) -> bytes:
    """Return an array as a NumPy file."""
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def color_files() -> dict[str, bytes]:
    """Return the picture in the formats that people have."""
    image = Image.fromarray(rgb())
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by 90 degrees
    grey16 = Image.fromarray(rgb()[..., 0].astype(np.uint16) * 257)
    return {
        'rgb.png': encoded(image, 'PNG'),
        'palette.png': encoded(image.quantize(16), 'PNG'),
        'rgba.png': encoded(image.convert('RGBA'), 'PNG'),
        'grey16.png': encoded(grey16, 'PNG'),
        'one_bit.png': encoded(image.convert('1'), 'PNG'),
        'rgb.jpg': encoded(image, 'JPEG', quality=95),
        'progressive.jpg': encoded(image, 'JPEG', progressive=True),
        'turned.jpg': encoded(image, 'JPEG', exif=exif),
        'cmyk.jpg': encoded(image.convert('CMYK'), 'JPEG'),
        'rgb.webp': encoded(image, 'WEBP', lossless=True),
        'rgb.bmp': encoded(image, 'BMP'),
        'rgb.tiff': encoded(image, 'TIFF'),
        'packed.tiff': encoded(image, 'TIFF', compression='tiff_lzw'),
        'animated.gif': encoded(image, 'GIF', save_all=True, append_images=[image.rotate(90)]),
    }


def depth_files() -> dict[str, bytes]:
    """Return the depth in the formats that `--depth` takes."""
    metres = depth_mm().astype(np.float32) / 1000
    return {
        'depth.png': encoded(Image.fromarray(depth_mm()), 'PNG'),
        'depth.tiff': encoded(Image.fromarray(metres), 'TIFF'),
        'depth.npy': npy(metres),
        'depth_mm.npy': npy(depth_mm()),
    }

"""Antialiased text in any script on an RGB array.

OpenCV 5 draws Latin, Cyrillic, Greek, Chinese, Japanese, Korean and more with fonts of its own, in microseconds.
OpenCV 4 (apt ROS) has ASCII strokes only: with it, Pillow draws, with the system's DejaVu Sans if it is installed, else
with Pillow's built-in Latin font.
"""

import threading
from functools import lru_cache
from typing import Any

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

WEIGHT = 600  # semibold: thin strokes are hard to read on a photograph
ELLIPSIS = '…'

_lock = threading.Lock()  # OpenCV's glyph cache is not thread-safe


def printable(text: str) -> str:
    """Return the text on one line, without characters that cannot be drawn (lone surrogates become '?')."""
    return ' '.join(text.encode('utf-8', 'replace').decode('utf-8').split())


def text_width(text: str, size: int) -> int:
    """Return the width in px of one line of text at `size` px."""
    if not text:
        return 0
    with _lock:
        if _font_face():
            return cv2.getTextSize((1 << 20, 1 << 20), text, (0, 0), _font_face(), size, WEIGHT)[2]
        return int(np.ceil(_pillow_font(size).getlength(text)))


def fit(text: str, size: int, width: int) -> str:
    """Return the text shortened with an ellipsis to at most `width` px at `size` px; '' if nothing fits."""
    if text_width(text, size) <= width:
        return text
    low, high = 0, len(text)
    while low < high:  # a binary search for the longest prefix that fits
        middle = (low + high + 1) // 2
        if text_width(text[:middle].rstrip() + ELLIPSIS, size) <= width:
            low = middle
        else:
            high = middle - 1
    return text[:low].rstrip() + ELLIPSIS if low else ''


def draw_text(image: np.ndarray, text: str, x: int, baseline: int, size: int, color: tuple[int, int, int]) -> None:
    """Draw one line of text into an image in place; the image border cuts it off.

    Args:
        image: [H, W, 3] uint8 RGB.
        text: The text.
        x: Column where it begins, px.
        baseline: Row of its baseline, px.
        size: Font size, px.
        color: RGB.
    """
    if not text:
        return
    with _lock:
        if _font_face():
            cv2.putText(image, text, (x, baseline), color, _font_face(), size, WEIGHT)
            return
        top, bottom = max(baseline - 2 * size, 0), max(baseline + size, 0)
        strip = Image.fromarray(np.ascontiguousarray(image[top:bottom]))
        if strip.height:
            ImageDraw.Draw(strip).text((x, baseline - top), text, fill=color, font=_pillow_font(size), anchor='ls')
            image[top:bottom] = np.asarray(strip)


@lru_cache
def _font_face() -> Any:
    """Return OpenCV 5's font, or None with OpenCV 4."""
    font_face = getattr(cv2, 'FontFace', None)
    return font_face('sans') if font_face else None


@lru_cache
def _pillow_font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    try:
        return ImageFont.truetype('DejaVuSans.ttf', size)
    except OSError:  # not installed
        return ImageFont.load_default(size)

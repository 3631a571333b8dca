"""Antialiased text in any script on an RGB array.

OpenCV 5 draws Latin, Cyrillic, Greek, Chinese, Japanese, Korean and more with fonts of its own, in microseconds.
OpenCV 4 (apt ROS) has ASCII strokes only: there Pillow draws, with the system's DejaVu Sans if it is installed, else
with Pillow's built-in Latin font.
"""

import threading
from functools import lru_cache

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

WEIGHT = 600  # semibold: thin strokes drown in a photograph
ELLIPSIS = '…'

_lock = threading.Lock()  # OpenCV's glyph cache is not thread-safe


def printable(text):
    """`text` on one line, with nothing in it that cannot be drawn (lone surrogates become '?')."""
    return ' '.join(text.encode('utf-8', 'replace').decode('utf-8').split())


def text_width(text, size):
    """Width in px of one line of `text` at `size` px."""
    if not text:
        return 0
    with _lock:
        if _face():
            return cv2.getTextSize((1 << 20, 1 << 20), text, (0, 0), _face(), size, WEIGHT)[2]
        return int(np.ceil(_pillow_font(size).getlength(text)))


def fit(text, size, width):
    """`text` shortened with an ellipsis until it is at most `width` px wide; '' if nothing fits."""
    if text_width(text, size) <= width:
        return text
    low, high = 0, len(text)
    while low < high:  # the longest prefix that fits
        middle = (low + high + 1) // 2
        if text_width(text[:middle].rstrip() + ELLIPSIS, size) <= width:
            low = middle
        else:
            high = middle - 1
    return text[:low].rstrip() + ELLIPSIS if low else ''


def draw_text(image, text, x, baseline, size, color):
    """One line of `text` into `image` [H, W, 3] uint8 in place; what lies outside is cut off. Sizes in px."""
    if not text:
        return
    with _lock:
        if _face():
            cv2.putText(image, text, (x, baseline), color, _face(), size, WEIGHT)
            return
        top, bottom = max(baseline - 2 * size, 0), max(baseline + size, 0)
        strip = Image.fromarray(np.ascontiguousarray(image[top:bottom]))
        if strip.height:
            ImageDraw.Draw(strip).text((x, baseline - top), text, fill=color, font=_pillow_font(size), anchor='ls')
            image[top:bottom] = np.asarray(strip)


@lru_cache
def _face():
    return cv2.FontFace('sans') if hasattr(cv2, 'FontFace') else None


@lru_cache
def _pillow_font(size):
    try:
        return ImageFont.truetype('DejaVuSans.ttf', size)
    except OSError:  # not installed
        return ImageFont.load_default(size)

"""A sheet for people: pictures in rows, each with masks drawn in and lines of text below."""

import cv2
import numpy as np

from instructsam.core.display.lettering import draw_text, fit, text_width

FONT_PX, ROW_PX, GAP_PX = 11, 15, 8
PAPER, INK, FAINT = (250, 250, 247), (25, 25, 25), (120, 120, 120)


def cell(picture, lines):
    """`picture` [H, W, 3] uint8 and below it `lines` of (text, rgb), shortened to its width: a new array."""
    height, width = picture.shape[:2]
    made = np.full((height + len(lines) * ROW_PX + 3 * GAP_PX, width + GAP_PX, 3), PAPER, np.uint8)
    made[:height, :width] = picture
    for row, (text, ink) in enumerate(lines):
        draw_text(made, fit(text, FONT_PX, width), 0, height + 3 * ROW_PX // 2 + row * ROW_PX, FONT_PX, ink)
    return made


def sheet(cells, columns):
    """Cells of one size, `columns` in a row, as one picture [H, W, 3] uint8."""
    cells = [*cells, *[np.full_like(cells[0], PAPER)] * (-len(cells) % columns)]
    rows = [np.hstack(cells[i : i + columns]) for i in range(0, len(cells), columns)]
    return np.pad(np.vstack(rows), ((GAP_PX, 0), (GAP_PX, 0), (0, 0)), constant_values=PAPER[0])


def tint(picture, mask, rgb, opacity):
    """Fill `mask` [H, W] bool in place."""
    picture[mask] = ((1 - opacity) * picture[mask] + opacity * np.array(rgb)).astype(np.uint8)


def outline(picture, mask, rgb):
    """A line of one pixel around `mask` [H, W] bool, in place."""
    edge = cv2.dilate(mask.astype(np.uint8), np.ones((3, 3))) - mask
    picture[edge > 0] = rgb


def wrap(text, width):
    """Two lines; the first is at most `width` px wide."""
    words, first = text.split(), []
    while words and text_width(' '.join([*first, words[0]]), FONT_PX) <= width:
        first.append(words.pop(0))
    return ' '.join(first), ' '.join(words)

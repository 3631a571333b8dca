"""Contact sheets for display: images in rows, with masks drawn in and lines of text below."""

from collections.abc import Sequence

import cv2
import numpy as np

from instructsam.core.display.lettering import draw_text, fit, text_width

FONT_PX, ROW_PX, GAP_PX = 11, 15, 8
PAPER, INK, FAINT = (250, 250, 247), (25, 25, 25), (120, 120, 120)

Color = tuple[int, int, int]
"""RGB, 0 to 255."""


def cell(image: np.ndarray, lines: Sequence[tuple[str, Color]]) -> np.ndarray:
    """Return an image with lines of text below it, shortened to its width, as a new array [h, w, 3] uint8.

    Args:
        image: [H, W, 3] uint8 RGB.
        lines: Text and color of each line.
    """
    height, width = image.shape[:2]
    canvas = np.full((height + len(lines) * ROW_PX + 3 * GAP_PX, width + GAP_PX, 3), PAPER, np.uint8)
    canvas[:height, :width] = image
    for row, (text, color) in enumerate(lines):
        draw_text(canvas, fit(text, FONT_PX, width), 0, height + 3 * ROW_PX // 2 + row * ROW_PX, FONT_PX, color)
    return canvas


def contact_sheet(cells: Sequence[np.ndarray], columns: int) -> np.ndarray:
    """Return cells of one size, `columns` per row, as one image [H, W, 3] uint8."""
    cells = [*cells, *[np.full_like(cells[0], PAPER)] * (-len(cells) % columns)]
    rows = [np.hstack(cells[i : i + columns]) for i in range(0, len(cells), columns)]
    return np.pad(np.vstack(rows), ((GAP_PX, 0), (GAP_PX, 0), (0, 0)), constant_values=PAPER[0])


def tint(image: np.ndarray, mask: np.ndarray, color: Color, opacity: float) -> None:
    """Blend a color into mask [H, W] bool of an image [H, W, 3] uint8, in place."""
    image[mask] = ((1 - opacity) * image[mask] + opacity * np.array(color)).astype(np.uint8)


def outline(image: np.ndarray, mask: np.ndarray, color: Color) -> None:
    """Draw a line of one pixel around mask [H, W] bool in an image [H, W, 3] uint8, in place."""
    edge = cv2.dilate(mask.astype(np.uint8), np.ones((3, 3))) - mask
    image[edge > 0] = color


def wrap(text: str, width: int) -> tuple[str, str]:
    """Return the text as two lines, of which the first is at most `width` px wide."""
    words, first = text.split(), []
    while words and text_width(' '.join([*first, words[0]]), FONT_PX) <= width:
        first.append(words.pop(0))
    return ' '.join(first), ' '.join(words)

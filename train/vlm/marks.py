"""Numbered marks on the masks of an image, so that a vision-language model can refer to them (set of marks).

Yang et al., "Set-of-Mark Prompting", arXiv 2310.11441. Colours and places depend on the masks alone: the same masks
give the same picture.
"""

from __future__ import annotations

import colorsys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import cv2
import numpy as np

from instructsam.core.display.lettering import draw_text, text_width
from instructsam.core.rle import Rle

Color = tuple[int, int, int]
"""RGB, 0 to 255."""

FILL = 0.15  # opacity of a mask: the colours below stay visible
OUTLINE: Color = (245, 245, 235)
DARK, LIGHT = (20, 20, 20), (255, 255, 255)
GOLDEN = (5**0.5 - 1) / 2
BRIGHTNESS = ((1.0, 1.0), (0.55, 1.0), (1.0, 0.62))
"""(saturation, value) of the colours, in turn."""

VIEW_PX = 480
"""Height of each view of a mask."""

CONTEXT_SHARE, ZOOM_SHARE = 0.05, 0.25
"""Largest share of a view that its mask covers; the view is widened until then, or to the whole image."""

MIN_MARGIN_PX = 16
MARGIN = 0.2  # of the box, around it


def mark_color(index: int) -> Color:
    """Return the colour of the mark at `index`, from 0; neighbours are far apart, and no two of 100 are equal."""
    saturation, value = BRIGHTNESS[index % len(BRIGHTNESS)]
    red, green, blue = colorsys.hsv_to_rgb(index * GOLDEN % 1, saturation, value)
    return round(255 * red), round(255 * green), round(255 * blue)


def draw_marks(image: np.ndarray, masks: Sequence[Rle]) -> np.ndarray:
    """Return the image with every mask tinted, outlined and numbered from 1, a new array [H, W, 3] uint8.

    A number stands at the point deepest inside its mask, or close to it if another number is there already.

    Args:
        image: [H, W, 3] uint8 RGB.
        masks: Masks of the image's size.

    Raises:
        ValueError: A mask has another size.
    """
    canvas = np.array(image, order='C')
    for index, mask in enumerate(masks):
        _tint(canvas, mask, mark_color(index))
    placed: list[_Box] = []
    for index, mask in enumerate(masks):
        if mask.area:
            placed.append(_draw_number(canvas, str(index + 1), _deepest_point(mask), mark_color(index), placed))
    return canvas


def mask_views(image: np.ndarray, mask: Rle) -> np.ndarray:
    """Return two views of one mask side by side: its surroundings with its box, and a closer one with its outline.

    Args:
        image: [H, W, 3] uint8 RGB.
        mask: A mask of the image's size that is not empty.

    Returns:
        A new array [VIEW_PX, W', 3] uint8. The left view has the colours of the image itself.

    Raises:
        ValueError: The mask has another size, or is empty.
    """
    if not mask.area:
        raise ValueError('an empty mask has no views')
    color = _contrasting_color(image, mask)
    boxed, zoomed = np.array(image, order='C'), np.array(image, order='C')
    _tint(zoomed, mask, color)
    context, zoom = (_window(mask, share) for share in (CONTEXT_SHARE, ZOOM_SHARE))
    left, right = _view(boxed, context), _view(zoomed, zoom)
    x_scale, y_scale = left.shape[1] / (context.x1 - context.x0), VIEW_PX / (context.y1 - context.y0)
    x0, y0, x1, y1 = mask.box
    low = round(x_scale * (x0 - context.x0)), round(y_scale * (y0 - context.y0))
    high = round(x_scale * (x1 - context.x0)) - 1, round(y_scale * (y1 - context.y0)) - 1
    cv2.rectangle(left, low, high, DARK, 4)
    cv2.rectangle(left, low, high, color, 2)
    return np.hstack([left, np.full((VIEW_PX, 8, 3), 255, np.uint8), right])


class _Box(NamedTuple):
    """A rectangle in px; x1 and y1 are exclusive."""

    x0: int
    y0: int
    x1: int
    y1: int

    def overlaps(self, other: _Box) -> bool:
        return self.x0 < other.x1 and other.x0 < self.x1 and self.y0 < other.y1 and other.y0 < self.y1


@dataclass(frozen=True)
class _Plate:
    """Size of the plate below a number, and of its font, in px."""

    width: int
    height: int
    font: int

    @classmethod
    def of(cls, text: str, shape: tuple[int, ...]) -> _Plate:
        font = max(12, round((shape[0] * shape[1]) ** 0.5 / 40))
        return cls(text_width(text, font) + font // 2, round(1.3 * font), font)


def _tint(canvas: np.ndarray, mask: Rle, color: Color) -> None:
    """Fill a mask with FILL of its colour, and draw a thin light outline with a dark rim."""
    if (mask.height, mask.width) != canvas.shape[:2]:
        raise ValueError(f'a mask of {mask.height} x {mask.width} px on an image of {canvas.shape[0]} x '
                         f'{canvas.shape[1]} px')  # fmt: skip
    x0, y0, x1, y1 = mask.box
    inside = mask.crop()
    patch = canvas[y0:y1, x0:x1]
    patch[inside] = np.rint((1 - FILL) * patch[inside] + FILL * np.array(color)).astype(np.uint8)
    outlines, _ = cv2.findContours(
        np.ascontiguousarray(inside).view(np.uint8), cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE, offset=(x0, y0)
    )
    thickness = max(1, round((canvas.shape[0] * canvas.shape[1]) ** 0.5 / 500))
    cv2.drawContours(canvas, outlines, -1, color, thickness + 2)
    cv2.drawContours(canvas, outlines, -1, OUTLINE, thickness)


def _deepest_point(mask: Rle) -> tuple[int, int]:
    """Return the point (x, y) px of a mask that is farthest from its border; of several, the first."""
    x0, y0, _, _ = mask.box
    inside = np.pad(mask.crop().astype(np.uint8), 1)
    distance = cv2.distanceTransform(inside, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    # The squares are whole numbers. The roots differ in their last bits between runs, and so would the first of equals.
    squared = np.rint(np.square(distance))
    row, column = np.unravel_index(int(squared.argmax()), squared.shape)
    return x0 + int(column) - 1, y0 + int(row) - 1


def _draw_number(canvas: np.ndarray, text: str, point: tuple[int, int], color: Color, placed: Sequence[_Box]) -> _Box:
    """Draw a number in its colour on a dark or light plate, close to `point` where there is room; return its box."""
    plate = _Plate.of(text, canvas.shape)
    boxes = list(_places(point, plate, canvas.shape))
    box = next((box for box in boxes if not any(box.overlaps(other) for other in placed)), boxes[0])
    brightness = 0.299 * color[0] + 0.587 * color[1] + 0.114 * color[2]
    cv2.rectangle(canvas, box[:2], (box.x1 - 1, box.y1 - 1), DARK if brightness > 110 else LIGHT, cv2.FILLED)
    draw_text(canvas, text, box.x0 + plate.font // 4, box.y1 - round(0.3 * plate.font), plate.font, color)
    return box


def _places(point: tuple[int, int], plate: _Plate, shape: tuple[int, ...]) -> Iterator[_Box]:
    """Yield places of a plate within the image, the closest to `point` first."""
    step = plate.height // 2
    offsets = sorted(
        ((dx * step, dy * step) for dx in range(-12, 13) for dy in range(-12, 13)),
        key=lambda offset: (offset[0] ** 2 + offset[1] ** 2, offset),
    )
    for dx, dy in offsets:
        x0 = min(max(point[0] + dx - plate.width // 2, 0), max(shape[1] - plate.width, 0))
        y0 = min(max(point[1] + dy - plate.height // 2, 0), max(shape[0] - plate.height, 0))
        yield _Box(x0, y0, x0 + plate.width, y0 + plate.height)


def _contrasting_color(image: np.ndarray, mask: Rle) -> Color:
    """Return the colour, of the first 12 marks, that is farthest from the mean colour around a mask."""
    window = _window(mask, ZOOM_SHARE)
    mean = image[window.y0 : window.y1, window.x0 : window.x1].reshape(-1, 3).mean(axis=0)
    return max(map(mark_color, range(12)), key=lambda color: float(np.square(np.array(color) - mean).sum()))


def _window(mask: Rle, share: float) -> _Box:
    """Return the part of the image around a mask of which it covers at most `share`, as far as the image reaches."""
    x0, y0, x1, y1 = mask.box
    margin = [max(MARGIN * side, MIN_MARGIN_PX) for side in (x1 - x0, y1 - y0)]
    grown = (x1 - x0 + 2 * margin[0]) * (y1 - y0 + 2 * margin[1])
    factor = max(1.0, mask.area / share / grown) ** 0.5
    half = [factor * (side / 2 + pad) for side, pad in zip((x1 - x0, y1 - y0), margin, strict=True)]
    x, y = (x0 + x1) / 2, (y0 + y1) / 2
    return _Box(
        max(0, int(x - half[0])),
        max(0, int(y - half[1])),
        min(mask.width, round(x + half[0])),
        min(mask.height, round(y + half[1])),
    )


def _view(image: np.ndarray, window: _Box) -> np.ndarray:
    """Return a part of the image, enlarged or reduced to a height of VIEW_PX."""
    part = image[window.y0 : window.y1, window.x0 : window.x1]
    width = max(1, min(round(part.shape[1] * VIEW_PX / part.shape[0]), 4 * VIEW_PX))
    mode = cv2.INTER_AREA if part.shape[0] > VIEW_PX else cv2.INTER_CUBIC
    return np.ascontiguousarray(cv2.resize(part, (width, VIEW_PX), interpolation=mode))

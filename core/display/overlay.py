"""Overlay of a result on its image: masks, outlines and labels of the instances, the instruction and its outcome."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import cv2
import numpy as np

from instructsam.core.display.lettering import draw_text, fit, printable, text_width
from instructsam.core.result import UNTRACKED, Instance, Result
from instructsam.core.rle import Rle

Color = tuple[int, int, int]
"""RGB, 0 to 255."""

Box = tuple[int, int, int, int]
"""(x0, y0, x1, y1) px, x1 and y1 exclusive."""

# Okabe and Ito's palette for color-blind readers, without its black and ordered so that neighbours are far apart.
PALETTE = ((86, 180, 233), (230, 159, 0), (0, 158, 115), (204, 121, 167), (240, 228, 66), (213, 94, 0), (0, 114, 178))
FILL = 0.35  # opacity of a filled mask
BAR = 0.65  # opacity of the bars below text about the whole image
INK, PAPER, WARNING = (20, 20, 20), (255, 255, 255), (255, 193, 7)


def number_of(instance: Instance, index: int) -> int:
    """Return the number that decides an instance's color: its track id, or its index in the result if it has none."""
    return index if instance.track_id == UNTRACKED else instance.track_id


def id_text(instance: Instance) -> str:
    """Return the track id as labels show it, such as '#3 '; '' if the instance has none."""
    return '' if instance.track_id == UNTRACKED else f'#{instance.track_id} '


def instance_color(index: int) -> Color:
    """Return the color of a number, see `number_of`; after one round of the palette, hues are paler."""
    hue, paler = np.array(PALETTE[index % len(PALETTE)]), index // len(PALETTE) % 2
    red, green, blue = (int(value) for value in hue + (255 - hue) * 0.5 * paler)
    return red, green, blue


def draw_overlay(image: np.ndarray, result: Result) -> np.ndarray:
    """Return the overlay of a result on its image, a new array [H, W, 3] uint8.

    All sizes scale with the image; below about 100 px, text does not fit and only masks are drawn. An object with a
    track id shows it, and keeps its color from image to image.

    Args:
        image: [H, W, 3] uint8 RGB, the image that the result is about.
        result: The result to draw.

    Raises:
        ValueError: The sizes differ.
    """
    if image.shape != (result.height, result.width, 3):
        raise ValueError(
            f'the result is of an image of {result.height} x {result.width}, got an array of shape {image.shape}'
        )
    canvas = np.array(image, order='C')
    style = _Style.for_image(canvas)
    shown = [
        _Shown(instance, instance.box, instance_color(number_of(instance, index)))
        for index, instance in enumerate(result.instances)
    ]
    for each in reversed(shown):  # drawn last, the best score is on top
        _draw_mask(canvas, each.instance.mask, each.box, each.color, style)
    if not style.fits_text(canvas):
        return canvas
    top = _draw_warning(canvas, printable(result.warning), style)
    bottom = _draw_footer(canvas, result, style)
    _draw_labels(canvas, shown, style, top, bottom)
    return canvas


class _Shown(NamedTuple):
    instance: Instance
    box: Box
    color: Color


@dataclass(frozen=True)
class _Style:
    """Sizes in px for one image."""

    font: int  # height of a line of letters
    line: int  # width of an outline

    @classmethod
    def for_image(cls, canvas: np.ndarray) -> _Style:
        scale = (canvas.shape[0] * canvas.shape[1] / (640 * 480)) ** 0.5
        return cls(max(9, round(14 * scale)), max(1, round(1.6 * scale)))

    @property
    def row(self) -> int:
        """Height of a line of text with the space above and below."""
        return round(1.5 * self.font)

    @property
    def pad(self) -> int:
        """Space left and right of text."""
        return round(0.45 * self.font)

    def fits_text(self, canvas: np.ndarray) -> bool:
        return canvas.shape[0] >= 5 * self.row and canvas.shape[1] >= 8 * self.font


def _draw_mask(canvas: np.ndarray, mask: Rle, box: Box, color: Color, style: _Style) -> None:
    """Draw fill and outline of a mask in one blend, within its box.

    A blurred mask gives each pixel's distance from the border, so that tint and opacity are functions of its value and
    one look-up draws fill, outline and a dark rim (for bright images), all antialiased. OpenCV's own antialiased
    polylines take 30 times as long on ragged masks.
    """
    x0, y0, x1, y1 = box
    margin = 3 * style.line + 1
    area = (slice(max(y0 - margin, 0), y1 + margin), slice(max(x0 - margin, 0), x1 + margin))
    patch = canvas[area]
    pixels = np.ascontiguousarray(mask.decode()[area]).view(np.uint8) * 255
    inside = cv2.GaussianBlur(pixels, (0, 0), 0.7 * style.line, borderType=cv2.BORDER_REPLICATE)
    tint, keep = _blend_tables(color)
    kept = cv2.multiply(patch, cv2.applyColorMap(inside, keep), scale=1 / 255)
    cv2.add(kept, cv2.applyColorMap(inside, tint), patch)


@lru_cache(maxsize=32)
def _blend_tables(color: Color) -> tuple[np.ndarray, np.ndarray]:
    """Return, per blurred mask value, the tint to add and the share of the image to keep, each [256, 1, 3] uint8."""
    inside = np.arange(256) / 255  # 0 outside, 0.5 on the border, 1 inside
    opacity = np.interp(inside, (0.01, 0.08, 0.92, 1), (0, 1, 1, FILL))[:, None]
    rim = np.interp(inside, (0.15, 0.25), (1, 0))[:, None]
    tint = (rim * np.array(INK) + (1 - rim) * np.array(color)) * opacity
    keep = np.repeat(1 - opacity, 3, axis=1) * 255
    return tint.round().astype(np.uint8)[:, None], keep.round().astype(np.uint8)[:, None]


def _draw_warning(canvas: np.ndarray, warning: str, style: _Style) -> int:
    """Draw the banner along the top and return its height."""
    if not warning:
        return 0
    canvas[: style.row] = WARNING
    text = fit(warning, style.font, canvas.shape[1] - 2 * style.pad)
    x = (canvas.shape[1] - text_width(text, style.font)) // 2
    _put(canvas, text, x, 0, INK, style)
    return style.row


def _draw_footer(canvas: np.ndarray, result: Result, style: _Style) -> int:
    """Draw the bar along the bottom, instruction left and outcome right, and return the row of its top."""
    height, width = canvas.shape[:2]
    top = height - style.row
    canvas[top:] = cv2.addWeighted(canvas[top:], 1 - BAR, np.zeros_like(canvas[top:]), BAR, 0)
    count = len(result.instances)
    nothing = 'no answer' if result.status == 'error' else 'no target'
    status = f'{count} object' + 's' * (count > 1) if count else nothing
    x = width - style.pad - text_width(status, style.font)
    _put(canvas, status, x, top, PAPER if count else WARNING, style)
    instruction = fit(printable(result.instruction), style.font, x - 3 * style.pad)
    _put(canvas, instruction, style.pad, top, PAPER, style)
    return top


def _draw_labels(canvas: np.ndarray, shown: list[_Shown], style: _Style, top: int, bottom: int) -> None:
    """Draw a label at each instance between the rows `top` and `bottom`; the best score chooses its position first."""
    width = canvas.shape[1]
    boxes = np.array([each.box for each in shown]).reshape(-1, 4)
    spots, labels = np.zeros((0, 4), int), []
    for index, (instance, box, color) in enumerate(shown):
        number, score = id_text(instance), f' {instance.score:.2f}'
        room = width // 2 - 2 * style.pad - text_width(number + score, style.font)
        text = (number + fit(printable(instance.phrase), style.font, room) + score).strip()
        size = (min(text_width(text, style.font) + 2 * style.pad, width), style.row)
        spot = _free_spot(box, size, (0, top, width, bottom), labels=spots, boxes=np.delete(boxes, index, axis=0))
        spots = np.vstack([spots, spot])
        labels.append((text, spot.tolist(), color))
    for text, (x0, y0, x1, y1), color in reversed(labels):  # if they overlap, the best score is on top
        cv2.rectangle(canvas, (x0, y0), (x1 - 1, y1 - 1), color, cv2.FILLED)
        cv2.rectangle(canvas, (x0, y0), (x1 - 1, y1 - 1), INK, max(1, style.line // 2))
        _put(canvas, text, x0 + style.pad, y0, INK if _luminance(color) > 90 else PAPER, style)


def _free_spot(box: Box, size: tuple[int, int], limits: Box, *, labels: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """Return the position of a label, [4] (x0, y0, x1, y1) px.

    It is near its instance, preferably above its box, does not cover other labels unless it must, and avoids the boxes
    of other instances if they are easy to avoid.

    Args:
        box: Box of the label's instance.
        size: (width, height) of the label, px.
        limits: Part of the image that the label stays in.
        labels: Boxes [N, 4] of the labels that are placed already.
        boxes: Boxes [M, 4] of the other instances.
    """
    (x0, y0, x1, y1), (width, height), (left, top, right, bottom) = box, size, limits
    rows = np.arange((bottom - top) // height)[:, None] * height
    ys = np.hstack([y0 - height - rows, y1 + rows, y0 + rows, y1 - height - rows]).ravel()
    xs = np.array([x0, x1 - width, (x0 + x1 - width) // 2, x0 - width, x1])
    corners = np.stack(np.meshgrid(xs, ys), axis=-1).reshape(-1, 2)
    corners = np.clip(corners, (left, top), (max(left, right - width), max(top, bottom - height)))
    spots = np.hstack([corners, corners + size])
    gap = np.maximum(np.maximum(np.array(box)[:2] - spots[:, 2:], spots[:, :2] - np.array(box)[2:]), 0).sum(axis=1)
    area = width * height
    cost = gap / height + (10 * _overlap(spots, labels) + _overlap(spots, boxes)) / area
    cost += 0.5 * _overlap(spots, np.array([box])) / area
    return spots[cost.argmin()]


def _overlap(spots: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Return, for each box of `spots` [S, 4], the area [S] px that `others` [N, 4] cover, summed over them."""
    low, high = np.maximum(spots[:, None, :2], others[:, :2]), np.minimum(spots[:, None, 2:], others[:, 2:])
    return np.clip(high - low, 0, None).prod(axis=2).sum(axis=1)


def _put(canvas: np.ndarray, text: str, x: int, top: int, ink: Color, style: _Style) -> None:
    """Draw one line of text, vertically centered in the row that begins at `top`."""
    draw_text(canvas, text, x, top + (style.row + round(0.7 * style.font)) // 2, style.font, ink)


def _luminance(color: Color) -> float:
    red, green, blue = color
    return 0.299 * red + 0.587 * green + 0.114 * blue

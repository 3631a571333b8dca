"""A picture for people: the image with every instance filled, outlined and named, and what was asked."""

from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np

from instructsam.core.display.lettering import draw_text, fit, printable, text_width

# Okabe and Ito's palette for colour-blind readers without its black, neighbours in the list far apart.
PALETTE = ((86, 180, 233), (230, 159, 0), (0, 158, 115), (204, 121, 167), (240, 228, 66), (213, 94, 0), (0, 114, 178))
FILL = 0.35  # opacity of a filled mask
BAR = 0.65  # opacity of the bars behind text that belongs to the whole picture
INK, PAPER, WARNING = (20, 20, 20), (255, 255, 255), (255, 193, 7)


def color(index):
    """RGB of the instance at `index` in the result; after one round of the palette the same hues, paler."""
    hue, paler = np.array(PALETTE[index % len(PALETTE)]), index // len(PALETTE) % 2
    return tuple(int(v) for v in hue + (255 - hue) * 0.5 * paler)


def draw(image, result):
    """The overlay of `result` on its `image`, a new array.

    image: [H, W, 3] uint8 RGB, the image that the result is about. All sizes scale with it; below about 100 px there
    is no room for text and only masks are drawn. Raises ValueError if the sizes differ.
    """
    if image.shape != (result.height, result.width, 3):
        raise ValueError(f'the result is of an image of {result.height} x {result.width}, got an array {image.shape}')
    canvas = np.array(image, order='C')
    style = _Style.of(canvas)
    shown = [(instance, instance.box, color(i)) for i, instance in enumerate(result.instances)]
    for instance, box, rgb in reversed(shown):  # the best score on top
        _draw_mask(canvas, instance.mask, box, rgb, style)
    if not style.has_room(canvas):
        return canvas
    top = _draw_warning(canvas, printable(result.warning), style)
    bottom = _draw_footer(canvas, result, style)
    _draw_labels(canvas, shown, style, top, bottom)
    return canvas


@dataclass(frozen=True)
class _Style:
    """Sizes in px for one image."""

    font: int
    line: int  # width of an outline

    @classmethod
    def of(cls, canvas):
        scale = (canvas.shape[0] * canvas.shape[1] / (640 * 480)) ** 0.5
        return cls(max(9, round(14 * scale)), max(1, round(1.6 * scale)))

    @property
    def row(self):
        """Height of a line of text with air above and below."""
        return round(1.5 * self.font)

    @property
    def pad(self):
        """Air left and right of text."""
        return round(0.45 * self.font)

    def has_room(self, canvas):
        return canvas.shape[0] >= 5 * self.row and canvas.shape[1] >= 8 * self.font


def _draw_mask(canvas, mask, box, rgb, style):
    """Fill and outline in one blend, within the mask's box.

    A blurred mask tells how far inside or outside a pixel is, so that tint and opacity are functions of it and one
    look-up draws fill, outline and a dark rim (for bright pictures), all without stairs. OpenCV's own antialiased
    polylines take 30 times as long on ragged masks.
    """
    x0, y0, x1, y1 = box
    margin = 3 * style.line + 1
    area = (slice(max(y0 - margin, 0), y1 + margin), slice(max(x0 - margin, 0), x1 + margin))
    patch = canvas[area]
    pixels = np.ascontiguousarray(mask.decode()[area]).view(np.uint8) * 255
    inside = cv2.GaussianBlur(pixels, (0, 0), 0.7 * style.line, borderType=cv2.BORDER_REPLICATE)
    tint, keep = _blend_tables(rgb)
    kept = cv2.multiply(patch, cv2.applyColorMap(inside, keep), scale=1 / 255)
    cv2.add(kept, cv2.applyColorMap(inside, tint), patch)


@lru_cache(maxsize=32)
def _blend_tables(rgb):
    """For each blurred mask value the tint to add and how much of the picture stays, both [256, 1, 3] uint8."""
    inside = np.arange(256) / 255  # 0 outside, 0.5 on the border, 1 inside
    opacity = np.interp(inside, (0.01, 0.08, 0.92, 1), (0, 1, 1, FILL))[:, None]
    rim = np.interp(inside, (0.15, 0.25), (1, 0))[:, None]
    tint = (rim * np.array(INK) + (1 - rim) * np.array(rgb)) * opacity
    keep = np.repeat(1 - opacity, 3, axis=1) * 255
    return tuple(table.round().astype(np.uint8)[:, None] for table in (tint, keep))


def _draw_warning(canvas, warning, style):
    """The banner along the top; returns its height."""
    if not warning:
        return 0
    canvas[: style.row] = WARNING
    text = fit(warning, style.font, canvas.shape[1] - 2 * style.pad)
    x = (canvas.shape[1] - text_width(text, style.font)) // 2
    _put(canvas, text, x, 0, INK, style)
    return style.row


def _draw_footer(canvas, result, style):
    """The bar along the bottom, instruction left and outcome right; returns its top."""
    height, width = canvas.shape[:2]
    top = height - style.row
    canvas[top:] = cv2.addWeighted(canvas[top:], 1 - BAR, np.zeros_like(canvas[top:]), BAR, 0)
    count = len(result.instances)
    status = 'no target' if not count else f'{count} object' + 's' * (count > 1)
    x = width - style.pad - text_width(status, style.font)
    _put(canvas, status, x, top, PAPER if count else WARNING, style)
    instruction = fit(printable(result.instruction), style.font, x - 3 * style.pad)
    _put(canvas, instruction, style.pad, top, PAPER, style)
    return top


def _draw_labels(canvas, shown, style, top, bottom):
    """A label by each instance, best score first, between the rows `top` and `bottom`."""
    width = canvas.shape[1]
    boxes = np.array([box for _, box, _ in shown]).reshape(-1, 4)
    spots, labels = np.zeros((0, 4), int), []
    for index, (instance, box, rgb) in enumerate(shown):
        score = f' {instance.score:.2f}'
        room = width // 2 - 2 * style.pad - text_width(score, style.font)
        text = (fit(printable(instance.phrase), style.font, room) + score).strip()
        size = (min(text_width(text, style.font) + 2 * style.pad, width), style.row)
        spot = _free_spot(box, size, (0, top, width, bottom), labels=spots, boxes=np.delete(boxes, index, axis=0))
        spots = np.vstack([spots, spot])
        labels.append((text, spot.tolist(), rgb))
    for text, (x0, y0, x1, y1), rgb in reversed(labels):  # where there is no room for all, the best score on top
        cv2.rectangle(canvas, (x0, y0), (x1 - 1, y1 - 1), rgb, cv2.FILLED)
        cv2.rectangle(canvas, (x0, y0), (x1 - 1, y1 - 1), INK, max(1, style.line // 2))
        _put(canvas, text, x0 + style.pad, y0, INK if _luminance(rgb) > 90 else PAPER, style)


def _free_spot(box, size, limits, labels, boxes):
    """Where a label of `size` (w, h) goes: [4] (x0, y0, x1, y1) px inside `limits`.

    Near its own `box`, above it rather than below or inside, off the other `labels` [N, 4] if that can be had, and
    off the other instances' `boxes` [M, 4] if it is cheap.
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


def _overlap(spots, others):
    """Pixels of each of `spots` [S, 4] that `others` [N, 4] cover, summed over them: [S]."""
    low, high = np.maximum(spots[:, None, :2], others[:, :2]), np.minimum(spots[:, None, 2:], others[:, 2:])
    return np.clip(high - low, 0, None).prod(axis=2).sum(axis=1)


def _put(canvas, text, x, top, ink, style):
    """One line of text centred in the row that begins at `top`."""
    draw_text(canvas, text, x, top + (style.row + round(0.7 * style.font)) // 2, style.font, ink)


def _luminance(rgb):
    return 0.299 * rgb[0] + 0.587 * rgb[1] + 0.114 * rgb[2]

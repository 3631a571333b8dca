"""Conventions of boxes in the replies of vision-language models, and boxes in pixels of the upright picture.

Every family of models was trained with a convention of its own and keeps to it whatever a prompt says:

- Gemini: `[ymin, xmin, ymax, xmax]`, 0 to 1000 of the picture.
- Qwen3-VL: `[x1, y1, x2, y2]`, 0 to 1000 of the picture.
- Qwen2.5-VL: `[x1, y1, x2, y2]` in px of the picture as its processor resizes it (sides in multiples of 28 px).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from instructsam.core.model.preprocess import QwenPreprocessor
from instructsam.train.data_engine.rows import Box

Size = tuple[int, int]
"""(height, width), px."""

QWEN25_PIXELS = QwenPreprocessor(min_pixels=3136, max_pixels=12_845_056, patch_size=14, merge_size=2)
"""Limits in the preprocessor_config.json of Qwen2.5-VL."""

UNITS = {
    'thousand': 'integers from 0 to 1000, relative to the sides of the image',
    'share': 'numbers from 0 to 1, relative to the sides of the image',
    'pixel': 'absolute pixels of the image',
    'resized': 'absolute pixels of the image',
}
ORDERS = {
    'xyxy': ('x1', 'y1', 'x2', 'y2'),
    'yxyx': ('ymin', 'xmin', 'ymax', 'xmax'),
    'xywh': ('x', 'y', 'width', 'height'),
}


@dataclass(frozen=True)
class Convention:
    """Order and unit of the four numbers of a box.

    Attributes:
        name: Name in a recipe.
        key: Field of the reply, as in the family's training data.
        order: One of ORDERS.
        unit: One of UNITS; resized: pixels after the resize of Qwen2.5-VL's processor.
    """

    name: str
    key: str
    order: Literal['xyxy', 'yxyx', 'xywh']
    unit: Literal['thousand', 'share', 'pixel', 'resized']

    def describe(self) -> str:
        """Return the convention as a phrase for a prompt."""
        return f'{self.key}: [{", ".join(ORDERS[self.order])}], {UNITS[self.unit]}'

    def to_box(self, values: Sequence[float], sent: Size, full: Size) -> Box:
        """Return the box of four numbers of a reply.

        Args:
            values: The numbers; finite.
            sent: Size of the picture that was sent.
            full: Size of the upright picture.
        """
        a, b, c, d = values
        x0, y0, x1, y1 = {'xyxy': (a, b, c, d), 'yxyx': (b, a, d, c), 'xywh': (a, b, a + c, b + d)}[self.order]
        height, width = self._scale(sent)
        x_scale, y_scale = full[1] / width, full[0] / height
        return (x0 * x_scale, y0 * y_scale, x1 * x_scale, y1 * y_scale)

    def to_values(self, box: Box, sent: Size, full: Size) -> tuple[float, float, float, float]:
        """Return the four numbers with which a model of this convention states a box; the inverse of `to_box`."""
        height, width = self._scale(sent)
        x0, x1 = (value * width / full[1] for value in box[::2])
        y0, y1 = (value * height / full[0] for value in box[1::2])
        return {'xyxy': (x0, y0, x1, y1), 'yxyx': (y0, x0, y1, x1), 'xywh': (x0, y0, x1 - x0, y1 - y0)}[self.order]

    def _scale(self, sent: Size) -> tuple[float, float]:
        """Return the numbers that stand for the picture's height and width."""
        if self.unit == 'thousand':
            return (1000.0, 1000.0)
        if self.unit == 'share':
            return (1.0, 1.0)
        return sent if self.unit == 'pixel' else QWEN25_PIXELS.target_size(*sent)


CONVENTIONS = {
    each.name: each
    for each in (
        Convention('gemini', 'box_2d', 'yxyx', 'thousand'),
        Convention('qwen3-vl', 'bbox_2d', 'xyxy', 'thousand'),
        Convention('qwen2.5-vl', 'bbox_2d', 'xyxy', 'resized'),
        Convention('pixels', 'box', 'xyxy', 'pixel'),
        Convention('pixels-xywh', 'box', 'xywh', 'pixel'),
        Convention('shares', 'box', 'xyxy', 'share'),
    )
}


def box_iou(first: Box, second: Box) -> float:
    """Return the intersection over union of two boxes; 0 if one is empty or reversed."""
    width = min(first[2], second[2]) - max(first[0], second[0])
    height = min(first[3], second[3]) - max(first[1], second[1])
    if width <= 0 or height <= 0:
        return 0.0
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (first, second)]
    if min(areas) <= 0:
        return 0.0
    return width * height / (sum(areas) - width * height)

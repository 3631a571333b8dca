"""Binary masks as run lengths in COCO's order: column by column, starting with a run of background."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from pycocotools import mask as coco

MAX_DIGITS = 7  # base-32 digits that hold every number below 2**32


class Rle:
    """One mask as run lengths. Treat it as immutable: results share it.

    It is created from run lengths or from COCO's compressed text; the other form is computed on first access.

    Attributes:
        height: Rows of the mask, px.
        width: Columns of the mask, px.
    """

    def __init__(self, height: int, width: int, counts: ArrayLike | None = None, *, compressed: bytes | None = None):
        """Create a mask from `counts`, or from a valid `compressed` text.

        Args:
            height: Rows of the mask, px.
            width: Columns of the mask, px.
            counts: Run lengths [runs], alternately background and foreground; they sum to height * width.
            compressed: COCO's text of the run lengths instead. It is not validated; see `from_coco`.

        Raises:
            ValueError: The run lengths do not add up to height * width.
        """
        self.height = height
        self.width = width
        if compressed is not None:
            self._compressed = {'size': [height, width], 'counts': compressed}
            return
        runs = np.ascontiguousarray(counts, dtype=np.uint32)
        total = int(runs.sum(dtype=np.uint64))
        if total != height * width:
            raise ValueError(f'run lengths add up to {total}, expected {height} x {width} = {height * width}')
        runs.flags.writeable = False
        self.counts = runs

    @classmethod
    def encode(cls, mask: np.ndarray) -> Rle:
        """Encode `mask` [H, W]: bool, or any type in which non-zero is foreground."""
        mask = np.asarray(mask)
        if mask.ndim != 2:
            raise ValueError(f'a mask has two dimensions, got shape {mask.shape}')
        flat = mask.astype(bool, copy=False).ravel(order='F')
        edges = np.flatnonzero(flat[1:] != flat[:-1]) + 1
        first = [0] if flat.size and flat[0] else []  # an empty background run comes first
        bounds = np.concatenate([first, [0], edges, [flat.size]]) if flat.size else np.zeros(1)
        height, width = mask.shape
        return cls(height, width, np.diff(bounds).astype(np.uint32))

    @classmethod
    def from_coco(cls, segmentation: Mapping[str, Any]) -> Rle:
        """Create a mask from COCO's `{"size": [h, w], "counts": str | bytes | list}`.

        Raises ValueError if the size is negative or the counts are not run lengths of that size.
        """
        height, width = segmentation['size']
        if min(height, width) < 0:
            raise ValueError(f'a mask has a size of at least 0 x 0, got {height} x {width}')
        counts = segmentation.get('counts')
        if not isinstance(counts, (str, bytes)):
            if not (isinstance(counts, list) and all(isinstance(each, int) and 0 <= each < 2**32 for each in counts)):
                raise ValueError(f'counts must be run lengths or their text, got {str(counts)[:60]!r}')
            return cls(height, width, np.array(counts, dtype=np.uint32))
        runs = _decode_counts(counts.encode() if isinstance(counts, str) else counts)
        if runs.size and not 0 <= runs.min() <= runs.max() < 2**32:
            raise ValueError(f'counts must be run lengths or their text, got {counts[:60]!r}')
        return cls(height, width, runs)

    @classmethod
    def from_checked(cls, segmentation: Mapping[str, Any]) -> Rle:
        """Create a mask from COCO's compressed form that is known to be valid; `counts` is decoded on first access."""
        (height, width), text = segmentation['size'], segmentation['counts']
        return cls(height, width, compressed=text.encode() if isinstance(text, str) else text)

    @cached_property
    def counts(self) -> np.ndarray:
        """Run lengths [runs] uint32, alternately background and foreground; read-only."""
        runs = _decode_counts(self._compressed['counts']).astype(np.uint32)
        runs.flags.writeable = False
        return runs

    @cached_property
    def _compressed(self) -> Any:
        """COCO's compressed form with `counts` as bytes, as pycocotools takes it."""
        uncompressed: Any = {'size': [self.height, self.width], 'counts': self.counts.tolist()}
        return coco.frPyObjects(uncompressed, self.height, self.width)

    def decode(self) -> np.ndarray:
        """Return the mask, [H, W] bool."""
        values = np.arange(len(self.counts)) % 2 == 1
        return np.repeat(values, self.counts).reshape(self.width, self.height).T

    def crop(self) -> np.ndarray:
        """Return the part of the mask in its box, [y1 - y0, x1 - x0] bool; only the columns of the box are decoded."""
        x0, y0, x1, y1 = self.box
        bounds = np.clip(np.cumsum(self.counts, dtype=np.int64), x0 * self.height, x1 * self.height)
        lengths = np.diff(bounds, prepend=x0 * self.height)
        values = np.arange(len(lengths)) % 2 == 1
        return np.repeat(values, lengths).reshape(x1 - x0, self.height).T[y0:y1]

    def to_coco(self) -> dict[str, Any]:
        """Return COCO's compressed form, ready for JSON: `{"size": [h, w], "counts": str}`."""
        return {'size': [self.height, self.width], 'counts': self._compressed['counts'].decode('ascii')}

    @property
    def area(self) -> int:
        """Number of foreground pixels."""
        return int(coco.area(self._compressed))

    @property
    def box(self) -> tuple[int, int, int, int]:
        """Tight box (x0, y0, x1, y1) in px, x1 and y1 exclusive; all zeros for an empty mask."""
        if not self.area:
            return (0, 0, 0, 0)
        x, y, width, height = (int(value) for value in coco.toBbox(self._compressed))
        return (x, y, x + width, y + height)

    @classmethod
    def merge(cls, masks: Sequence[Rle], *, intersect: bool = False) -> Rle:
        """Return the union, or with `intersect` the intersection, of one or more masks of one size."""
        sizes = {(mask.height, mask.width) for mask in masks}
        if len(sizes) != 1:
            raise ValueError(f'expected one or more masks of one size, got the sizes {sorted(sizes)}')
        if len(masks) == 1:
            return masks[0]
        return cls.from_checked(coco.merge([mask._compressed for mask in masks], intersect=intersect))

    def intersection_area(self, other: Rle) -> int:
        """Return the number of pixels that are foreground in both masks."""
        if (self.height, self.width) != (other.height, other.width):
            raise ValueError(
                f'expected masks of one size, got {(self.height, self.width)} and {(other.height, other.width)}'
            )
        return int(coco.area(coco.merge([self._compressed, other._compressed], intersect=True)))

    def inverse(self) -> Rle:
        """Return the mask with foreground and background exchanged."""
        counts = self.counts[1:] if len(self.counts) and not self.counts[0] else np.append(np.uint32(0), self.counts)
        return Rle(self.height, self.width, counts)

    def iou(self, others: Sequence[Rle]) -> np.ndarray:
        """Return the intersection over union with each of `others`, [len(others)] float64."""
        return ious([self], others)[0]


def ious(masks: Sequence[Rle], others: Sequence[Rle]) -> np.ndarray:
    """Return the mask IoU of each of `masks` with each of `others`, [len(masks), len(others)] float64."""
    if not masks or not others:
        return np.zeros((len(masks), len(others)))
    is_crowd = [0] * len(others)
    return np.asarray(coco.iou([each._compressed for each in masks], [each._compressed for each in others], is_crowd))


def _decode_counts(text: bytes) -> np.ndarray:
    """Decode COCO's text to run lengths [runs] int64.

    A number is written in digits of base 32, the lowest first; its last digit carries the sign. From the fourth number
    on, the text holds the difference from the number two before. pycocotools' own decoder reads past the end of a
    truncated text.
    """
    digits = np.frombuffer(text, dtype=np.uint8).astype(np.int64) - 48
    if not digits.size:
        return digits
    if (digits & ~63).any():
        raise ValueError(f'counts hold the byte {text[int(((digits < 0) | (digits >= 64)).argmax())]}')
    ends = np.flatnonzero(digits < 32)  # index of each number's last digit
    if digits[-1] >= 32:
        raise ValueError('counts are truncated')
    starts = np.append(0, ends[:-1] + 1)
    lengths = ends + 1 - starts
    if lengths.max() > MAX_DIGITS:
        raise ValueError('counts hold a number that is not a run length')
    powers = np.arange(digits.size) - np.repeat(starts, lengths)
    counts = np.add.reduceat((digits & 31) << 5 * powers, starts)
    counts -= ((digits[ends] & 16) > 0) * (1 << 5 * lengths)
    for first in (1, 2):
        counts[first::2] = counts[first::2].cumsum()
    return counts

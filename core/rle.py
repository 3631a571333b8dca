"""Binary masks as run lengths in COCO's order: column by column, the first run is background."""
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from pycocotools import mask as coco


@dataclass(frozen=True, eq=False)
class Rle:
    """One mask. `counts` [runs] uint32, alternately background and foreground, sums to height * width."""

    height: int  # px
    width: int  # px
    counts: np.ndarray

    def __post_init__(self):
        counts = np.ascontiguousarray(self.counts, dtype=np.uint32)
        counts.flags.writeable = False
        object.__setattr__(self, 'counts', counts)
        if int(counts.sum(dtype=np.uint64)) != self.height * self.width:
            raise ValueError(
                f'run lengths add up to {counts.sum(dtype=np.uint64)}, '
                f'expected {self.height} x {self.width} = {self.height * self.width}'
            )

    @classmethod
    def encode(cls, mask):
        """From `mask` [H, W], bool or anything where non-zero is foreground."""
        mask = np.asarray(mask)
        if mask.ndim != 2:
            raise ValueError(f'a mask has two dimensions, got shape {mask.shape}')
        flat = mask.astype(bool, copy=False).ravel(order='F')
        edges = np.flatnonzero(flat[1:] != flat[:-1]) + 1
        first = [0] if flat.size and flat[0] else []  # an empty background run comes first
        bounds = np.concatenate([first, [0], edges, [flat.size]]) if flat.size else np.zeros(1)
        return cls(*mask.shape, np.diff(bounds).astype(np.uint32))

    @classmethod
    def from_coco(cls, segmentation):
        """From COCO's `{"size": [h, w], "counts": str | bytes | list}`. ValueError: no run lengths of that size."""
        height, width = segmentation['size']
        counts = segmentation.get('counts')
        if isinstance(counts, (str, bytes)):
            counts = _uncompressed(counts.encode() if isinstance(counts, str) else counts)
        if not (isinstance(counts, list) and all(isinstance(each, int) and each >= 0 for each in counts)):
            raise ValueError(f'counts are run lengths or their text, got {str(counts)[:60]!r}')
        return cls(height, width, np.array(counts, dtype=np.uint32))

    def decode(self):
        """The mask, [H, W] bool."""
        values = np.arange(len(self.counts)) % 2 == 1
        return np.repeat(values, self.counts).reshape(self.width, self.height).T

    def to_coco(self):
        """COCO's compressed form, ready for JSON: `{"size": [h, w], "counts": str}`."""
        return {'size': [self.height, self.width], 'counts': self._compressed['counts'].decode('ascii')}

    @property
    def area(self):
        """Foreground pixels."""
        return int(self.counts[1::2].sum(dtype=np.uint64))

    @property
    def box(self):
        """Tight box (x0, y0, x1, y1) in px, x1 and y1 exclusive; all zeros for an empty mask."""
        if not self.area:
            return (0, 0, 0, 0)
        x, y, width, height = (int(v) for v in coco.toBbox(self._compressed))
        return (x, y, x + width, y + height)

    def iou(self, others):
        """Intersection over union with each of `others`, [len(others)] float64."""
        if not others:
            return np.zeros(0)
        return coco.iou([self._compressed], [other._compressed for other in others], [0] * len(others))[0]

    @cached_property
    def _compressed(self):
        uncompressed = {'size': [self.height, self.width], 'counts': self.counts.tolist()}
        return coco.frPyObjects(uncompressed, self.height, self.width)


def _uncompressed(text):
    """Run lengths of COCO's text: digits of base 32, the lowest first; from the fourth on, what is added to the one two
    before. (pycocotools decodes a text that is cut short to whatever is in memory.)"""
    counts, value, shift = [], 0, 0
    for byte in text:
        digit = byte - 48
        if not 0 <= digit < 64:
            raise ValueError(f'counts hold the byte {byte}')
        value |= (digit & 31) << shift
        shift += 5
        if not digit & 32:  # the last digit, which has the sign
            value -= (digit & 16) << shift - 4
            counts.append(value + (counts[-2] if len(counts) > 2 else 0))
            value, shift = 0, 0
    if shift:
        raise ValueError('counts are cut short')
    return counts

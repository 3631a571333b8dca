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
        if not isinstance(counts, (str, bytes)):
            if not (isinstance(counts, list) and all(isinstance(each, int) and each >= 0 for each in counts)):
                raise ValueError(f'counts are run lengths or their text, got {str(counts)[:60]!r}')
            return cls(height, width, np.array(counts, dtype=np.uint32))
        counts = _uncompressed(counts.encode() if isinstance(counts, str) else counts)
        if counts.size and not 0 <= counts.min() <= counts.max() < 2**32:
            raise ValueError(f'counts are run lengths or their text, got {segmentation["counts"][:60]!r}')
        return cls(height, width, counts)

    @classmethod
    def from_checked(cls, segmentation):
        """From COCO's compressed form that is known to be good: it is not looked at before somebody wants the runs."""
        (height, width), text = segmentation['size'], segmentation['counts']
        rle = object.__new__(cls)
        rle.__dict__.update(height=height, width=width)
        rle.__dict__['_compressed'] = {
            'size': [height, width],
            'counts': text.encode() if isinstance(text, str) else text,
        }
        return rle

    def __getattr__(self, name):
        """`counts` of a checked text, the first time."""
        if name != 'counts' or '_compressed' not in self.__dict__:
            raise AttributeError(name)
        self.__dict__['counts'] = _uncompressed(self._compressed['counts']).astype(np.uint32)
        return self.counts

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
        return int(coco.area(self._compressed))

    @property
    def box(self):
        """Tight box (x0, y0, x1, y1) in px, x1 and y1 exclusive; all zeros for an empty mask."""
        if not self.area:
            return (0, 0, 0, 0)
        x, y, width, height = (int(v) for v in coco.toBbox(self._compressed))
        return (x, y, x + width, y + height)

    @classmethod
    def merge(cls, masks, intersect=False):
        """The union of one or more masks of one size, or what all have in common."""
        sizes = {(mask.height, mask.width) for mask in masks}
        if len(sizes) != 1:
            raise ValueError(f'masks to merge are one or more of one size, got {sorted(sizes)}')
        if len(masks) == 1:
            return masks[0]
        return cls.from_checked(coco.merge([mask._compressed for mask in masks], intersect=intersect))

    def common(self, other):
        """Foreground pixels that both have."""
        if (self.height, self.width) != (other.height, other.width):
            raise ValueError(f'masks of one size, got {[(one.height, one.width) for one in (self, other)]}')
        return int(coco.area(coco.merge([self._compressed, other._compressed], intersect=True)))

    def inverse(self):
        """Background as foreground."""
        counts = self.counts[1:] if len(self.counts) and not self.counts[0] else np.append(np.uint32(0), self.counts)
        return Rle(self.height, self.width, counts)

    def iou(self, others):
        """Intersection over union with each of `others`, [len(others)] float64."""
        return ious([self], others)[0]

    @cached_property
    def _compressed(self):
        uncompressed = {'size': [self.height, self.width], 'counts': self.counts.tolist()}
        return coco.frPyObjects(uncompressed, self.height, self.width)


def ious(masks, others):
    """Intersection over union of each of `masks` with each of `others`, [len(masks), len(others)] float64."""
    if not masks or not others:
        return np.zeros((len(masks), len(others)))
    return coco.iou([one._compressed for one in masks], [one._compressed for one in others], [0] * len(others))


def _uncompressed(text):
    """Run lengths [runs] int64 of COCO's text: digits of base 32, the lowest first; from the fourth on, what is added
    to the one two before. (pycocotools decodes a text that is cut short to whatever is in memory.)
    """
    digits = np.frombuffer(text, dtype=np.uint8).astype(np.int64) - 48
    if not digits.size:
        return digits
    if (digits & ~63).any():
        raise ValueError(f'counts hold the byte {text[int(((digits < 0) | (digits >= 64)).argmax())]}')
    ends = np.flatnonzero(digits < 32)  # the last digit of each, which has the sign
    if digits[-1] >= 32:
        raise ValueError('counts are cut short')
    starts = np.append(0, ends[:-1] + 1)
    lengths = ends + 1 - starts
    if lengths.max() > 7:  # 2**32 has seven digits
        raise ValueError('counts hold a number that is no run length')
    places = np.arange(digits.size) - np.repeat(starts, lengths)
    counts = np.add.reduceat((digits & 31) << 5 * places, starts)
    counts -= ((digits[ends] & 16) > 0) * (1 << 5 * lengths)
    for first in (1, 2):
        counts[first::2] = counts[first::2].cumsum()
    return counts

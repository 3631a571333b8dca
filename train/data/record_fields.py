"""The fields of a record, read and checked: texts, lists, masks in every form that annotations come in, boxes."""

import json
from dataclasses import dataclass

from pycocotools import mask as coco

from instructsam.core.rle import Rle


class RecordError(ValueError):
    """A record that cannot be used; the message says which part of it and why."""


@dataclass(frozen=True)
class Target:
    """What one phrase means: masks, or boxes where there are no masks, or neither: nothing is there."""

    masks: tuple[Rle, ...] = ()  # at the image's size
    boxes: tuple[tuple[float, float, float, float], ...] = ()  # xyxy, 0 to 1

    def __len__(self):
        return len(self.masks) + len(self.boxes)


def read_text(raw, key, owner):
    """The text raw[key], stripped. owner: whose field it is, for the message. Raises RecordError."""
    value = raw.get(key) if isinstance(raw, dict) else None
    if not isinstance(value, str) or not value.strip():
        raise RecordError(f'{owner} has a text under {key!r}, got {str(raw)[:80]!r}')
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise RecordError(f'the {key} {value[:60]!r} is no valid Unicode') from error
    return value.strip()


def read_list(raw, key):
    """The list raw[key], given as it is or as JSON text. Raises RecordError."""
    found = raw[key]
    if isinstance(found, str):
        try:
            found = json.loads(found)
        except ValueError as error:
            raise RecordError(f'{key} is no JSON: {error}') from error
    if not isinstance(found, list) or not found:
        raise RecordError(f'{key} is a list that is not empty')
    return found


def read_target(entries, kind, height, width):
    """The Target of annotation entries (None: nothing is there), each JSON or its text. kind: mask or bbox.

    Masks without a pixel are dropped. Raises RecordError.
    """
    if kind not in ('mask', 'bbox'):
        raise RecordError(f'ann_type {kind!r} is not one of mask, bbox')
    if entries is None:
        return Target()
    entries = [_loaded(entry) for entry in (entries if isinstance(entries, list) else [entries])]
    if kind == 'bbox':
        return Target(boxes=tuple(_box(entry, height, width) for entry in entries))
    masks = tuple(mask for mask in (read_mask(entry, height, width) for entry in entries) if mask.area)
    if entries and not masks:
        raise RecordError('no mask has a pixel; null instead of masks says that nothing is there')
    return Target(masks=masks)


def listed(value):
    """One mask (RLE, polygon or polygons), or a list of masks, as a list; None stays None. JSON or its text."""
    value = _loaded(value)
    if isinstance(value, dict) or _is_outline(value):
        return [value]
    if value is None or isinstance(value, list):
        return value
    raise RecordError(f'a mask is RLE, polygons or a list of them, got {str(value)[:60]}')


def read_mask(segmentation, height, width):
    """RLE (compressed or not) or polygons as an Rle. Raises RecordError: unreadable, or not of the image's size."""
    if isinstance(segmentation, dict):
        return _run_lengths(segmentation, height, width)
    if _is_outline(segmentation):
        polygons = segmentation if isinstance(segmentation[0], list) else [segmentation]
        if all(_is_polygon(polygon, height, width) for polygon in polygons):
            merged = coco.merge(coco.frPyObjects([list(map(float, p)) for p in polygons], height, width))
            return Rle.from_coco(merged)
    raise RecordError(
        f'a mask is RLE or polygons [x, y, ...] of three points or more near the image, got {str(segmentation)[:60]}'
    )


def _run_lengths(segmentation, height, width):
    size = segmentation.get('size')
    if size not in ([height, width], (height, width)):
        raise RecordError(f'a mask of size {size} on an image of {[height, width]}')
    try:
        return Rle.from_coco({**segmentation, 'size': [height, width]})  # JSON may have said 60.0
    except (ValueError, OverflowError) as error:
        raise RecordError(f'a mask cannot be read: {error}') from error


def _box(box, height, width):
    """[x, y, w, h] px -> xyxy 0 to 1, cut at the image's border."""
    if not _is_numbers(box) or len(box) != 4 or not all(abs(v) < 1e9 for v in box):
        raise RecordError(f'a box is [x, y, w, h], got {str(box)[:60]}')
    x0, y0 = max(0.0, box[0] / width), max(0.0, box[1] / height)
    x1, y1 = min(1.0, (box[0] + box[2]) / width), min(1.0, (box[1] + box[3]) / height)
    if x1 <= x0 or y1 <= y0:
        raise RecordError(f'the box {box} lies outside the image of {width} x {height} px, or is empty')
    return (x0, y0, x1, y1)


def _loaded(entry):
    if not isinstance(entry, str):
        return entry
    try:
        return json.loads(entry)
    except ValueError as error:
        raise RecordError(f'an entry of ann or mask is no JSON: {error}') from error


def _is_outline(value):
    """Whether `value` is one polygon or a list of them, good or bad, and not a list of masks."""
    first = value[0] if isinstance(value, list) and value else None
    return isinstance(first, (int, float)) or (
        isinstance(first, list) and bool(first) and isinstance(first[0], (int, float))
    )


def _is_polygon(value, height, width):
    """Three points or more that are not far outside: rasterising takes time and memory by length."""
    far = 2 * max(height, width)
    return _is_numbers(value) and len(value) >= 6 and len(value) % 2 == 0 and all(-far <= v <= far for v in value)


def _is_numbers(value):
    return isinstance(value, list) and bool(value) and all(isinstance(v, (int, float)) for v in value)

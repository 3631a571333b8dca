"""Reads and checks the fields of a record: texts, lists, boxes, and masks in every annotated form."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from pycocotools import mask as coco

from instructsam.core.errors import InstructSAMError
from instructsam.core.modes import MAX_MEGAPIXELS_RANGE
from instructsam.core.rle import Rle

Box = tuple[float, float, float, float]
"""xyxy, as shares of the image's width and height."""


class RecordError(InstructSAMError, ValueError):
    """A record that cannot be used; the message says which part of it and why."""


@dataclass(frozen=True)
class Target:
    """The ground truth of one phrase: masks, or boxes where no masks are known; neither means that nothing is there."""

    masks: tuple[Rle, ...] = ()  # same size as the image
    boxes: tuple[Box, ...] = ()

    def __len__(self) -> int:
        return len(self.masks) + len(self.boxes)


def read_text(raw: Any, key: str, owner: str) -> str:
    """Return the text raw[key], stripped.

    Args:
        raw: The JSON object, or whatever was found instead of one.
        key: Name of the field.
        owner: Description of the object, for the error message.

    Raises:
        RecordError: If there is no text.
    """
    value = raw.get(key) if isinstance(raw, dict) else None
    if not isinstance(value, str) or not value.strip():
        raise RecordError(f'{owner} needs a text under {key!r}, got {str(raw)[:80]!r}')
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise RecordError(f'the {key} {value[:60]!r} is not valid Unicode') from error
    return value.strip()


def read_list(raw: dict[str, Any], key: str) -> list[Any]:
    """Return the list raw[key], given as it is or as JSON text.

    Raises:
        RecordError: If it is not a list, or empty.
    """
    found = raw[key]
    if isinstance(found, str):
        try:
            found = json.loads(found)
        except (ValueError, RecursionError) as error:
            raise RecordError(f'{key} is not valid JSON: {error}') from error
    if not isinstance(found, list) or not found:
        raise RecordError(f'{key} must be a non-empty list')
    return found


def read_target(entries: Any, annotation_type: Any, height: int, width: int) -> Target:
    """Return the Target of annotation entries; masks without a pixel are dropped.

    Args:
        entries: One entry or a list of them, each as JSON or as its text; None: nothing is there.
        annotation_type: mask or bbox.
        height: Height of the image in px.
        width: Width of the image in px.

    Raises:
        RecordError: If an entry cannot be read, or no mask has a pixel.
    """
    if annotation_type not in ('mask', 'bbox'):
        raise RecordError(f'ann_type {annotation_type!r} is not one of mask, bbox')
    if entries is None:
        return Target()
    if annotation_type == 'bbox':
        entries = entries if isinstance(entries, list) else [entries]
        return Target(boxes=tuple(_box(_parsed(entry), height, width) for entry in entries))
    entries = listed(entries) or []
    masks = tuple(mask for mask in (read_mask(_parsed(entry), height, width) for entry in entries) if mask.area)
    if entries and not masks:
        raise RecordError('no mask has a pixel; use null instead of masks if no object is there')
    return Target(masks=masks)


def listed(value: Any) -> list[Any] | None:
    """Return one mask (RLE, polygon or polygons) or a list of masks as a list; None stays None.

    The value is JSON or its text.

    Raises:
        RecordError: If it is neither.
    """
    value = _parsed(value)
    if isinstance(value, dict) or _is_outline(value):
        return [value]
    if value is None or isinstance(value, list):
        return value
    raise RecordError(f'a mask must be RLE, polygons or a list of them, got {str(value)[:60]}')


def read_mask(segmentation: Any, height: int, width: int) -> Rle:
    """Return a mask given as RLE (compressed or not) or as polygons.

    Raises:
        RecordError: If it cannot be read, does not have the image's size, or no image can be as large.
    """
    most = MAX_MEGAPIXELS_RANGE[1]
    if height * width > most * 1e6:
        raise RecordError(f'an image of {height} x {width} px: expected at most {most:g} megapixels')
    if isinstance(segmentation, dict):
        return _run_lengths(segmentation, height, width)
    if _is_outline(segmentation):
        polygons = segmentation if isinstance(segmentation[0], list) else [segmentation]
        if all(_is_polygon(polygon, height, width) for polygon in polygons):
            outlines: Any = [list(map(float, polygon)) for polygon in polygons]
            return Rle.from_coco(coco.merge(coco.frPyObjects(outlines, height, width)))
    raise RecordError(
        'a mask must be RLE or polygons [x, y, ...] of three points or more near the image, '
        f'got {str(segmentation)[:60]}'
    )


def _run_lengths(segmentation: dict[str, Any], height: int, width: int) -> Rle:
    size = segmentation.get('size')
    if size not in ([height, width], (height, width)):
        raise RecordError(f'a mask of size {size} on an image of {[height, width]}: the sizes must be equal')
    try:
        # The size is passed on as integers: JSON may hold 60.0.
        return Rle.from_coco({**segmentation, 'size': [height, width]})
    except (ValueError, OverflowError) as error:
        raise RecordError(f'a mask cannot be read: {error}') from error


def _box(box: Any, height: int, width: int) -> Box:
    """Convert [x, y, w, h] in px to xyxy in 0 to 1, clipped to the image."""
    if not _is_numbers(box) or len(box) != 4 or not all(abs(v) < 1e9 for v in box):
        raise RecordError(f'a box must be [x, y, w, h], got {str(box)[:60]}')
    x0, y0 = max(0.0, box[0] / width), max(0.0, box[1] / height)
    x1, y1 = min(1.0, (box[0] + box[2]) / width), min(1.0, (box[1] + box[3]) / height)
    if x1 <= x0 or y1 <= y0:
        raise RecordError(f'the box {box} lies outside the image of {width} x {height} px, or is empty')
    return (x0, y0, x1, y1)


def _parsed(entry: Any) -> Any:
    """Parse an entry that is JSON text; return any other entry as it is."""
    if not isinstance(entry, str):
        return entry
    try:
        return json.loads(entry)
    except (ValueError, RecursionError) as error:
        raise RecordError(f'an entry of ann or mask is not valid JSON: {error}') from error


def _is_outline(value: Any) -> bool:
    """Return whether `value` is one polygon or a list of polygons, valid or not, rather than a list of masks."""
    first = value[0] if isinstance(value, list) and value else None
    return isinstance(first, (int, float)) or (
        isinstance(first, list) and bool(first) and isinstance(first[0], (int, float))
    )


def _is_polygon(value: Any, height: int, width: int) -> bool:
    """Return whether `value` is a polygon of at least three points, none far outside the image.

    Points far outside are refused because the time and memory of rasterising grow with the length of the outline.
    """
    far = 2 * max(height, width)
    return _is_numbers(value) and len(value) >= 6 and len(value) % 2 == 0 and all(-far <= v <= far for v in value)


def _is_numbers(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(v, (int, float)) for v in value)

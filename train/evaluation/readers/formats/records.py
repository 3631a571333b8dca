"""A record as a Query: its text, its masks, or the reason why it is broken; and queries grouped by image."""

import os
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeGuard

from instructsam.core.errors import DataError
from instructsam.core.rle import Rle
from instructsam.train.data.record_fields import RecordError, listed, read_mask, read_text
from instructsam.train.evaluation.query import ImageQueries, Query
from instructsam.train.evaluation.readers.formats.documents import Record
from instructsam.train.evaluation.readers.formats.files import DatasetFiles
from instructsam.train.evaluation.readers.formats.images import ImageFolder, image_size

Size = tuple[int, int]
"""(height, width) of an image, px."""


class GroundTruth(NamedTuple):
    """The masks of a query."""

    masks: tuple[Rle, ...]
    ignore: Rle | None = None


class QueryOfImage(NamedTuple):
    """A query and the path of the image that it is about."""

    image: str
    query: Query


def make_query(
    where: str,
    query_id: str,
    image: Path | None,
    record: Record,
    key: str,
    read_ground_truth: Callable[[], GroundTruth],
    *,
    form: str = '',
    groups: dict[str, str | list[str]] | None = None,
) -> QueryOfImage:
    """Return the query of a record; a RecordError of its text or masks becomes the query's `error`.

    Args:
        where: File and record, for the error.
        query_id: Id of the query.
        image: Path of the image; None if the record names none.
        record: The record.
        key: Key of the text in the record.
        read_ground_truth: Reads the masks; raises RecordError.
        form: Form of the prompt; kept in a broken query.
        groups: Groups of the query; kept in a broken query.
    """
    groups, text = groups or {}, ''
    try:
        text = read_text(record, key, 'a record')
        if image is None:
            raise RecordError('its image is not named, or unknown')
        masks, ignore = read_ground_truth()
        return QueryOfImage(str(image), Query(query_id, text, masks, ignore, groups, form))
    except RecordError as error:
        query = Query(query_id, text, groups=groups, form=form, error=f'{where}: {error}')
        return QueryOfImage(str(image or ''), query)


def failed_query(where: str, query_id: str, image: Path | None, reason: object) -> QueryOfImage:
    """Return the query of a record that has no usable text."""
    return QueryOfImage(str(image or ''), Query(query_id, '', error=f'{where}: {reason}'))


def group_by_image(files: DatasetFiles, annotations: Path, queries: Iterable[QueryOfImage]) -> list[ImageQueries]:
    """Group queries by their image, in the order of the first query about each.

    Raises:
        DataError: There is no query, or ids are not unique.
    """
    by_image: dict[str, list[Query]] = {}
    counts = Counter()
    for image, query in queries:
        by_image.setdefault(image, []).append(query)
        counts[query.id] += 1
    if not counts:
        raise DataError(f'{annotations} is empty: it has no record of the split {files.split!r}')
    if repeated := [query_id for query_id, count in counts.items() if count > 1]:
        shown = ', '.join(repeated[:8]) + (' ...' if len(repeated) > 8 else '')
        raise DataError(f'{annotations} has duplicate ids, expected one per query: {shown}. Renumber them')
    return [ImageQueries(image, tuple(group)) for image, group in by_image.items()]


def text_of(record: Record, key: str) -> str:
    """Return record[key] if it is a text, else ''."""
    value = record.get(key)
    return value if isinstance(value, str) else ''


def image_path(record: Record, key: str, folder: ImageFolder) -> Path | None:
    """Return the path of the record's image; None if it names none."""
    name = text_of(record, key)
    return folder.path(name) if name else None


def read_size(record: Record) -> Size:
    """Return the size of the image that the record gives.

    Raises:
        RecordError: The record has no valid size.
    """
    height, width = record.get('height'), record.get('width')
    if not _is_length(height) or not _is_length(width):
        raise RecordError(f'a record needs the height and width of its image in px, got {height!r} and {width!r}')
    return height, width


def read_size_or_image(record: Record, image: Path | None) -> Size | None:
    """Return the size that the record gives, or else that of the image file; None if neither exists.

    Raises:
        RecordError: The record has an invalid size, or the image cannot be read.
    """
    if image is not None and 'height' not in record and 'width' not in record:
        return image_size(image) if os.path.isfile(image) else None
    return read_size(record)


def read_masks(value: Any, size: Size | None) -> tuple[Rle, ...]:
    """Read the masks in `value`: one, a list, or null or [] for none. A list of polygons is one mask, as in COCO.

    Args:
        value: Run lengths, polygons, or a list of them.
        size: Size of the image; None takes that of the first mask, which must then be run lengths.

    Raises:
        RecordError: A mask cannot be read, or has another size.
    """
    masks = listed(value) or []
    if size is None and masks:
        size = masks[0].get('size') if isinstance(masks[0], dict) else None
        if not _is_size(size):
            raise RecordError(f'the image is missing, whose size is needed to read the mask {str(masks[0])[:60]}')
    return tuple(read_mask(mask, *size) for mask in masks) if size is not None else ()


def read_targets(value: Any, size: Size | None) -> tuple[Rle, ...]:
    """Read masks like `read_masks`, each of which must have a pixel."""
    return tuple(map(require_pixels, read_masks(value, size)))


def require_pixels(mask: Rle) -> Rle:
    """Return the mask.

    Raises:
        RecordError: It has no pixel.
    """
    if not mask.area:
        raise RecordError('a mask has no pixel')
    return mask


def merge_masks(masks: Sequence[Rle]) -> tuple[Rle, ...]:
    """Return the union of all masks as the only one; empty for none."""
    return (Rle.merge(masks),) if masks else ()


def _is_size(size: Any) -> bool:
    return isinstance(size, (list, tuple)) and len(size) == 2 and all(map(_is_length, size))


def _is_length(value: Any) -> TypeGuard[int]:
    return isinstance(value, int) and value > 0

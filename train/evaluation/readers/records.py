"""A record as a Query: its text, its masks, and what is wrong with it; then Queries as Scenes."""

import os
from collections import Counter

from instructsam.core.errors import DataError
from instructsam.core.rle import Rle
from instructsam.train.data.record_fields import RecordError, listed, read_mask, read_text
from instructsam.train.evaluation.query import Query, Scene
from instructsam.train.evaluation.readers.images import picture_size


def ask(where, id, image, record, key, masks, **known):
    """(path of the image, Query) for the text record[key].

    masks() gives the fields that come from annotations, as a dict. Its RecordErrors, and the text's, become the Query's
    `error`, after `where`: file and record. known: fields that hold even then. image: None if the record has none.
    """
    text = ''
    try:
        text = read_text(record, key, 'a record')
        if image is None:
            raise RecordError('its image is not named, or unknown')
        return str(image), Query(id, text, **masks(), **known)
    except RecordError as error:
        return str(image or ''), Query(id, text, error=f'{where}: {error}', **known)


def failed(where, id, image, reason):
    """(path of the image, Query) for a record of which nothing can be asked."""
    return str(image or ''), Query(id, '', error=f'{where}: {reason}')


def scenes(request, annotations, asked):
    """The pairs of `ask` as Scenes, one an image, in order. Raises DataError: none, or ids that are not unique."""
    grouped, ids = {}, Counter()
    for image, query in asked:
        grouped.setdefault(image, []).append(query)
        ids[query.id] += 1
    if not ids:
        raise DataError(f'{annotations} is empty: it has no record of the split {request.split!r}')
    if twice := [id for id, times in ids.items() if times > 1]:
        shown = ', '.join(twice[:8]) + (' ...' if len(twice) > 8 else '')
        raise DataError(f'{annotations} has ids more than once, expected one a query: {shown}. Number them anew')
    return [Scene(image, tuple(queries)) for image, queries in grouped.items()]


def text_of(record, key):
    """record[key] where that is a text, or else ''."""
    value = record.get(key)
    return value if isinstance(value, str) else ''


def image_of(record, key, pictures):
    """Path of the record's image, None where it names none."""
    name = text_of(record, key)
    return pictures.path(name) if name else None


def read_size(record, image=None):
    """(height, width) px of the image: the record's, or else that of the file. Raises RecordError.

    image: its file, where records may be without; None if that is not there either.
    """
    if image is not None and 'height' not in record and 'width' not in record:
        return picture_size(image) if os.path.isfile(image) else None
    size = record.get('height'), record.get('width')
    if not _is_size(size):
        raise RecordError(f'a record has height and width of its image in px, got {size[0]!r} and {size[1]!r}')
    return size


def read_masks(value, size):
    """The masks in `value`: one, a list, or null or [] for none. A list of polygons is one mask, as in COCO.

    size: of the image; None: that of the first mask, given as run lengths. Raises RecordError.
    """
    masks = listed(value) or []
    if size is None and masks:
        size = masks[0].get('size') if isinstance(masks[0], dict) else None
        if not _is_size(size):
            raise RecordError(f'the image is not there, which has the size of the mask {str(masks[0])[:60]}')
    return tuple(read_mask(mask, *size) for mask in masks)


def read_targets(value, size):
    """`read_masks` of which each has to have a pixel."""
    return tuple(map(visible, read_masks(value, size)))


def visible(mask):
    """The mask. Raises RecordError if it has no pixel."""
    if not mask.area:
        raise RecordError('a mask has no pixel')
    return mask


def union(masks):
    """All masks as one: () for none."""
    return (Rle.merge(masks),) if masks else ()


def _is_size(size):
    return isinstance(size, (list, tuple)) and len(size) == 2 and all(isinstance(v, int) and v > 0 for v in size)

"""RoboRefIt: commands about one object each, with masks as PNG files or, converted, as run lengths."""

import os
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np

from instructsam.core.errors import ImageError
from instructsam.core.files.image_file import decode_image
from instructsam.core.rle import Rle
from instructsam.train.data.record_fields import RecordError
from instructsam.train.evaluation.query import ImageQueries
from instructsam.train.evaluation.readers.formats.documents import Record, any_has, read_records
from instructsam.train.evaluation.readers.formats.files import CONVERTED, DatasetFiles
from instructsam.train.evaluation.readers.formats.images import image_size
from instructsam.train.evaluation.readers.formats.records import (
    GroundTruth,
    QueryOfImage,
    group_by_image,
    image_path,
    make_query,
    merge_masks,
    read_size_or_image,
    read_targets,
    require_pixels,
    text_of,
)

LAYOUTS = """
  original, as in VL-Grasp; --data may be any of these folders down to SPLIT
    RoboRefIt/
      data/
        final_dataset/
          SPLIT/
            roborefit_SPLIT.json  [{"text", "rgb_path", "mask_path", "scene", ...}, ...]
            image/  *.png
            mask/  a folder of *.png for each image
  converted; image paths start at --images or --data
    DATA/
      SPLIT.json  [{"image", "question" or "expression", "masks"}, ...]
"""
ORIGINAL = tuple('*/' * depth + 'roborefit_{split}.json' for depth in range(4))
CONVERTED_TO_RGB = ('P', 'PA', 'LA', 'RGBA')
"""Pillow's modes whose values are palette indices, or have an alpha channel that is not part of the mask."""


def read(files: DatasetFiles) -> list[ImageQueries]:
    """Read the images of the split with their queries."""
    path = files.annotation_file(*ORIGINAL, *CONVERTED)
    records = read_records(path)
    if any_has(records, 'text', 'rgb_path', 'mask_path'):
        return group_by_image(files, path, _original_queries(files, path, records))
    if any_has(records, 'image', 'masks'):
        return group_by_image(files, path, _converted_queries(files, path, records))
    raise files.unknown_records_error(path, records)


def _original_queries(files: DatasetFiles, path: Path, records: list[Record]) -> Iterator[QueryOfImage]:
    images = files.image_folder([text_of(record, 'rgb_path') for record in records], path.parent)
    masks = files.image_folder([text_of(record, 'mask_path') for record in records], path.parent)
    for number, record in enumerate(records):
        image = image_path(record, 'rgb_path', images)
        yield make_query(
            f'{path}, record {number}',
            str(number),
            image,
            record,
            'text',
            partial(_read_mask_file, image_path(record, 'mask_path', masks), image),
            groups={'scene': str(record['scene'])} if record.get('scene') else {},
        )


def _read_mask_file(path: Path | None, image: Path | None) -> GroundTruth:
    """Return the pixels of a mask file that are not black.

    Raises:
        RecordError: The file cannot be read, or does not have the size of the image.
    """
    if path is None:
        raise RecordError('a record needs the path of its mask under mask_path')
    try:
        stored = decode_image(path)
    except ImageError as error:
        raise RecordError(f'the mask cannot be read: {error}') from error
    pixels = np.asarray(stored.convert('RGB') if stored.mode in CONVERTED_TO_RGB else stored)
    size = image_size(image) if image is not None and os.path.isfile(image) else pixels.shape[:2]
    if size != pixels.shape[:2]:
        raise RecordError(
            f'the mask {path} of size {list(pixels.shape[:2])} on an image of {list(size)}: the sizes must be equal'
        )
    mask = np.asarray(pixels.any(axis=-1)) if pixels.ndim == 3 else pixels
    return GroundTruth((require_pixels(Rle.encode(mask)),))


def _converted_queries(files: DatasetFiles, path: Path, records: list[Record]) -> Iterator[QueryOfImage]:
    folder = files.image_folder([text_of(record, 'image') for record in records], path.parent)
    for number, record in enumerate(records):
        image = image_path(record, 'image', folder)
        yield make_query(
            f'{path}, record {number}',
            str(number),
            image,
            record,
            'expression' if 'expression' in record else 'question',
            partial(_read_converted, record, image),
        )


def _read_converted(record: Record, image: Path | None) -> GroundTruth:
    return GroundTruth(merge_masks(read_targets(record.get('masks'), read_size_or_image(record, image))))

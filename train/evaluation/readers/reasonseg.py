"""ReasonSeg: questions that need reasoning, one mask each, as outlines or, converted, as run lengths."""

import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from instructsam.core.files.regular_file import read_regular_file
from instructsam.train.data.record_fields import RecordError
from instructsam.train.evaluation.query import ImageQueries
from instructsam.train.evaluation.readers.formats.documents import MAX_BYTES, Record, any_has, read_records
from instructsam.train.evaluation.readers.formats.files import CONVERTED, DatasetFiles
from instructsam.train.evaluation.readers.formats.images import image_size
from instructsam.train.evaluation.readers.formats.outlines import read_outlines
from instructsam.train.evaluation.readers.formats.records import (
    GroundTruth,
    QueryOfImage,
    failed_query,
    group_by_image,
    image_path,
    make_query,
    merge_masks,
    read_masks,
    read_size_or_image,
    read_targets,
    text_of,
)

LAYOUTS = """
  original; --data may also be the folder that holds ReasonSeg, or SPLIT itself
    DATA/
      SPLIT/
        1.jpg
        1.json  {"text", "is_sentence", "shapes": [{"label", "points"}, ...]}
        2.jpg ...
  converted; image paths start at --images or --data
    DATA/
      SPLIT.json  [{"image", "question", "is_sentence", "mask", "ignore_mask"}, ...]
"""


def read(files: DatasetFiles) -> list[ImageQueries]:
    """Read the images of the split with their queries."""
    folder = _outline_folder(files)
    if folder is not None:
        return group_by_image(files, folder, _original_queries(files, folder))
    path = files.annotation_file(*CONVERTED)
    records = read_records(path)
    if not any_has(records, 'image', 'question', 'mask'):
        raise files.unknown_records_error(path, records)
    return group_by_image(files, path, _converted_queries(files, path, records))


def _outline_folder(files: DatasetFiles) -> Path | None:
    """Return the split's folder of outlines; None in the converted layout.

    Raises:
        DataError: There are outlines of other splits only.
    """
    data = files.data
    if data.is_dir() and data.name == files.split and not files.matches('{split}.json'):
        return data
    folders = {
        split: data / top / split
        for split in files.splits
        for top in ('ReasonSeg', '')
        if any((data / top / split).glob('*.json'))
    }
    if folders and files.split not in folders:
        raise files.missing_split_error(folders)
    return folders.get(files.split)


def _original_queries(files: DatasetFiles, folder: Path) -> Iterator[QueryOfImage]:
    stems = sorted({path.stem for path in folder.iterdir() if path.suffix in ('.jpg', '.json')})
    images = files.image_folder([f'{stem}.jpg' for stem in stems], folder)
    for stem in stems:
        path, image = folder / f'{stem}.json', images.path(f'{stem}.jpg')
        try:
            record = _read_outline_file(path)
        except RecordError as error:
            yield failed_query(str(path), stem, image, error)
            continue
        # As in the authors' code, only the first text of a file is used.
        text = record['text'][0] if isinstance(record['text'], list) else record['text']
        form = _form(record)
        yield make_query(
            str(path),
            stem,
            image,
            {'text': text},
            'text',
            partial(_read_original, record, image),
            form=form,
            groups={'form': form},
        )


def _read_outline_file(path: Path) -> Record:
    """Return the record in a file, which is UTF-8 or, in a few cases, Windows-1252.

    Raises:
        RecordError: The file cannot be read, or has no text.
    """
    try:
        content = read_regular_file(path, MAX_BYTES)
        try:
            text = content.decode('utf-8-sig')
        except UnicodeDecodeError:
            text = content.decode('cp1252')
        record = json.loads(text)
    except (OSError, ValueError, RecursionError) as error:
        raise RecordError(f'it is not valid JSON: {error}') from error
    if not isinstance(record, dict) or not record.get('text'):
        raise RecordError('a file must hold an object with text, is_sentence and shapes')
    return record


def _read_original(record: Record, image: Path) -> GroundTruth:
    _check_form(record)
    return read_outlines(record.get('shapes'), *image_size(image))


def _converted_queries(files: DatasetFiles, path: Path, records: list[Record]) -> Iterator[QueryOfImage]:
    folder = files.image_folder([text_of(record, 'image') for record in records], path.parent)
    for number, record in enumerate(records):
        image, form = image_path(record, 'image', folder), _form(record)
        yield make_query(
            f'{path}, record {number}',
            str(number),
            image,
            record,
            'question',
            partial(_read_converted, record, image),
            form=form,
            groups={'form': form},
        )


def _read_converted(record: Record, image: Path | None) -> GroundTruth:
    _check_form(record)
    size = read_size_or_image(record, image)
    ignore = merge_masks(read_masks(record.get('ignore_mask'), size))
    masks = merge_masks(read_targets(record.get('mask'), size))
    return GroundTruth(masks, ignore[0] if ignore and ignore[0].area else None)


def _form(record: Record) -> str:
    return 'long' if record.get('is_sentence') else 'short'


def _check_form(record: Record) -> None:
    if record.get('is_sentence') not in (True, False):
        raise RecordError(f'is_sentence must be true or false, got {record.get("is_sentence")!r}')

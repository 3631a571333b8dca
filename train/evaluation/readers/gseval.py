"""GSEval of GroundingSuite: captions of stuff, parts, several and single objects, one mask each."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path

from instructsam.train.data.record_fields import RecordError
from instructsam.train.evaluation.query import ImageQueries
from instructsam.train.evaluation.readers.formats.documents import Record, any_has, read_records
from instructsam.train.evaluation.readers.formats.files import CONVERTED, DatasetFiles
from instructsam.train.evaluation.readers.formats.records import (
    GroundTruth,
    QueryOfImage,
    group_by_image,
    image_path,
    make_query,
    merge_masks,
    read_size_or_image,
    read_targets,
    text_of,
)

LAYOUTS = """
  original; unlabeled2017 of COCO may also be in DATA/images or --images
    DATA/
      GroundingSuite-Eval.jsonl  {"idx", "image_path", "class_id", "caption", "segmentation", ...} per line
      unlabeled2017/  *.jpg
  converted
    DATA/
      SPLIT.json  [the same, ...]
"""
CLASSES = {1: 'stuff', 2: 'part', 3: 'multi', 4: 'single'}
"""class_id -> name."""


def read(files: DatasetFiles) -> list[ImageQueries]:
    """Read the images of the split with their queries."""
    path = files.annotation_file('GroundingSuite-Eval.jsonl', '*.jsonl', *CONVERTED)
    records = read_records(path)
    if not any_has(records, 'image_path', 'caption', 'segmentation'):
        raise files.unknown_records_error(path, records)
    return group_by_image(files, path, _queries(files, path, records))


def _queries(files: DatasetFiles, path: Path, records: list[Record]) -> Iterator[QueryOfImage]:
    folder = files.image_folder([text_of(record, 'image_path') for record in records], path.parent)
    for number, record in enumerate(records):
        image, class_name = image_path(record, 'image_path', folder), _class_name(record)
        yield make_query(
            f'{path}, record {number}',
            str(record.get('idx', f'record {number}')),
            image,
            record,
            'caption',
            partial(_read_ground_truth, record, image),
            groups={'class': class_name} if class_name else {},
        )


def _class_name(record: Record) -> str | None:
    class_id = record.get('class_id')
    return CLASSES.get(class_id) if isinstance(class_id, int) else None


def _read_ground_truth(record: Record, image: Path | None) -> GroundTruth:
    if _class_name(record) is None:
        raise RecordError(f'class_id must be 1, 2, 3 or 4, got {record.get("class_id")!r}')
    masks = merge_masks(read_targets(record.get('segmentation'), read_size_or_image(record, image)))
    if not masks:
        raise RecordError('a record needs a mask under segmentation')
    return GroundTruth(masks)

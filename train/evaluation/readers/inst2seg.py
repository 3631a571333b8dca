"""Inst2Seg: instructions with no, one or several targets."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path

from instructsam.train.data.record_fields import RecordError, read_list
from instructsam.train.evaluation.query import ImageQueries
from instructsam.train.evaluation.readers.formats.documents import Record, any_has, read_records
from instructsam.train.evaluation.readers.formats.files import CONVERTED, DatasetFiles
from instructsam.train.evaluation.readers.formats.records import (
    GroundTruth,
    QueryOfImage,
    failed_query,
    group_by_image,
    image_path,
    make_query,
    read_size,
    read_targets,
    text_of,
)

LAYOUTS = """
  as the authors distribute it; image paths start at --images or --data
    DATA/
      SPLIT.json  [{"image", "height", "width", "annotation": [{"text", "mask"?}, ...]}, ...]
"""


def read(files: DatasetFiles) -> list[ImageQueries]:
    """Read the images of the split with their queries."""
    path = files.annotation_file(*CONVERTED)
    records = read_records(path)
    if not any_has(records, 'image', 'annotation'):
        raise files.unknown_records_error(path, records)
    return group_by_image(files, path, _queries(files, path, records))


def _queries(files: DatasetFiles, path: Path, records: list[Record]) -> Iterator[QueryOfImage]:
    folder = files.image_folder([text_of(record, 'image') for record in records], path.parent)
    for number, record in enumerate(records):
        where, image = f'{path}, record {number}', image_path(record, 'image', folder)
        try:
            annotations = read_list({'annotation': None, **record}, 'annotation')
        except RecordError as error:
            yield failed_query(where, str(number), image, error)
            continue
        for index, entry in enumerate(annotations):
            annotation = entry if isinstance(entry, dict) else {}
            yield make_query(
                f'{where}, annotation {index}',
                f'{number}-{index}',
                image,
                annotation,
                'text',
                partial(_read_ground_truth, record, annotation),
            )


def _read_ground_truth(record: Record, annotation: Record) -> GroundTruth:
    return GroundTruth(read_targets(annotation.get('mask'), read_size(record)))

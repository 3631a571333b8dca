"""gRefCOCO: referring expressions for no, one or several objects."""

from instructsam.train.evaluation.query import ImageQueries
from instructsam.train.evaluation.readers.formats.documents import Record, any_has, read_records
from instructsam.train.evaluation.readers.formats.files import CONVERTED, DatasetFiles
from instructsam.train.evaluation.readers.formats.records import group_by_image
from instructsam.train.evaluation.readers.referring import read_converted, read_refs

LAYOUTS = """
  original; train2014 of COCO may also be in DATA/images, beside DATA, or be --images
    DATA/
      grefcoco/  or its contents directly in DATA
        grefs(unc).json  [{"ann_id", "image_id", "split", "sentences", ...}, ...]
        instances.json
      train2014/  *.jpg
  converted; image paths start at --images or --data
    DATA/
      SPLIT.json  [{"image", "height", "width", "cat": [text, ...], "masks": [...]}, ...]
"""
ORIGINAL = tuple('*/' * depth + 'grefs(unc).json' for depth in range(3))


def read(files: DatasetFiles) -> list[ImageQueries]:
    """Read the images of the split with their queries."""
    path = files.annotation_file(*ORIGINAL, *CONVERTED)
    records = read_records(path)
    if any_has(records, 'split', 'sentences'):
        return group_by_image(files, path, read_refs(files, path, records, _query_id))
    if any_has(records, 'cat', 'masks'):
        return group_by_image(files, path, read_converted(files, path, records))
    raise files.unknown_records_error(path, records)


def _query_id(ref: Record, sentence: Record) -> str:
    """Return the image's id with sent_id: sent_id alone need not be unique, as gRefCOCO's ref_ids are not."""
    return f'{ref.get("image_id")}-{sentence["sent_id"]}'

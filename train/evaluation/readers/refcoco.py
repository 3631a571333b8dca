"""RefCOCO, RefCOCO+ and RefCOCOg: referring expressions for one object, pickled as in REFER or converted."""

from pathlib import Path

from instructsam.core.errors import DataError
from instructsam.train.evaluation.query import ImageQueries
from instructsam.train.evaluation.readers.formats.documents import Record, any_has, read_records
from instructsam.train.evaluation.readers.formats.files import CONVERTED, DatasetFiles
from instructsam.train.evaluation.readers.formats.pickles import read_pickle
from instructsam.train.evaluation.readers.formats.records import group_by_image
from instructsam.train.evaluation.readers.referring import read_converted, read_refs

LAYOUTS = """
  original; train2014 of COCO may also be in DATA/images, beside DATA, or be --images
    DATA/
      refcoco/  or refcoco+ or refcocog, or its contents directly in DATA
        refs(unc).p  or refs(google).p or refs(umd).p
        instances.json
      train2014/  *.jpg
  converted; image paths start at --images or --data
    DATA/
      SPLIT.json  [{"image", "height", "width", "cat": [text, ...], "masks": [...]}, ...]
"""
FOLDERS = ('refcoco', 'refcoco+', 'refcocog')


def read(files: DatasetFiles) -> list[ImageQueries]:
    """Read the images of the split with their queries."""
    path = _refs_file(files)
    if path is not None:
        return group_by_image(files, path, read_refs(files, path, _load_refs(path), _query_id))
    path = files.annotation_file(*CONVERTED)
    records = read_records(path)
    if not any_has(records, 'cat', 'masks'):
        raise files.unknown_records_error(path, records)
    return group_by_image(files, path, read_converted(files, path, records))


def _refs_file(files: DatasetFiles) -> Path | None:
    """Return the file of refs; None if there is none.

    Raises:
        DataError: There are several to choose from.
    """
    if files.data.is_file():
        return files.data if files.data.suffix == '.p' else None
    found = files.matches('refs(*).p') or [path for name in FOLDERS for path in files.matches(f'{name}/refs(*).p')]
    if not found:
        return None
    folders = list(dict.fromkeys(path.parent for path in found))
    if len(folders) > 1:
        names = ', '.join(folder.name for folder in folders)
        raise DataError(f'{files.data} has {names}. Point --data at one of them')
    chosen = [path for path in found if files.split_by in (None, path.stem[len('refs(') : -len(')')])]
    if len(chosen) != 1:
        names, expected = ', '.join(path.name for path in found), files.split_by or 'one of them'
        raise DataError(f'{folders[0]} has {names}, expected {expected}. Choose whose splits to read with --split-by')
    return chosen[0]


def _load_refs(path: Path) -> list[Record]:
    refs = read_pickle(path)
    if not isinstance(refs, list) or not all(isinstance(ref, dict) for ref in refs):
        raise DataError(f'{path} holds a {type(refs).__name__}, expected a list of refs, which are dicts')
    return refs


def _query_id(ref: Record, sentence: Record) -> str:
    return str(sentence['sent_id'])

"""RefCOCO, RefCOCO+ and RefCOCOg: referring expressions for one object, pickled as REFER ships them or converted."""

from instructsam.core.errors import DataError
from instructsam.train.evaluation.readers.documents import have, read_records
from instructsam.train.evaluation.readers.files import CONVERTED
from instructsam.train.evaluation.readers.pickles import read_pickle
from instructsam.train.evaluation.readers.records import scenes
from instructsam.train.evaluation.readers.referring import of_categories, of_refs

LAYOUTS = """
  original; train2014 of COCO may also lie in DATA/images, beside DATA, or be --images
    DATA/
      refcoco/  or refcoco+ or refcocog, or what is in it right in DATA
        refs(unc).p  or refs(google).p or refs(umd).p
        instances.json
      train2014/  *.jpg
  converted; image paths start at --images or --data
    DATA/
      SPLIT.json  [{"image", "height", "width", "cat": [text, ...], "masks": [...]}, ...]
"""
FOLDERS = ('refcoco', 'refcoco+', 'refcocog')


def read(request):
    path = _refs(request)
    if path is not None:
        return scenes(request, path, of_refs(request, path, _read_refs(path), _identify))
    path = request.annotations(*CONVERTED)
    records = read_records(path)
    if not have(records, 'cat', 'masks'):
        raise request.unknown(path, records)
    return scenes(request, path, of_categories(request, path, records))


def _refs(request):
    """The file of refs, None if there is none. Raises DataError where there are several to choose from."""
    if request.data.is_file():
        return request.data if request.data.suffix == '.p' else None
    found = request.matches('refs(*).p') or [path for name in FOLDERS for path in request.matches(f'{name}/refs(*).p')]
    if not found:
        return None
    folders = list(dict.fromkeys(path.parent for path in found))
    if len(folders) > 1:
        names = ', '.join(folder.name for folder in folders)
        raise DataError(f'{request.data} has {names}. Point --data at one of them')
    chosen = [path for path in found if request.split_by in (None, path.stem[len('refs(') : -len(')')])]
    if len(chosen) != 1:
        names, asked = ', '.join(path.name for path in found), request.split_by or 'one of them'
        raise DataError(f'{folders[0]} has {names}, expected {asked}. Choose whose splits to read with --split-by')
    return chosen[0]


def _read_refs(path):
    refs = read_pickle(path)
    if not isinstance(refs, list) or not all(isinstance(ref, dict) for ref in refs):
        raise DataError(f'{path} holds a {type(refs).__name__}, expected a list of refs, which are dicts')
    return refs


def _identify(ref, sentence):
    return str(sentence['sent_id'])

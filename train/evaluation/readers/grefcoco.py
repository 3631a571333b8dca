"""gRefCOCO: referring expressions for no, one or several objects."""

from instructsam.train.evaluation.readers.documents import have, read_records
from instructsam.train.evaluation.readers.files import CONVERTED
from instructsam.train.evaluation.readers.records import scenes
from instructsam.train.evaluation.readers.referring import of_categories, of_refs

LAYOUTS = """
  original; train2014 of COCO may also lie in DATA/images, beside DATA, or be --images
    DATA/
      grefcoco/  or what is in it right in DATA
        grefs(unc).json  [{"ann_id", "image_id", "split", "sentences", ...}, ...]
        instances.json
      train2014/  *.jpg
  converted; image paths start at --images or --data
    DATA/
      SPLIT.json  [{"image", "height", "width", "cat": [text, ...], "masks": [...]}, ...]
"""
ORIGINAL = tuple('*/' * depth + 'grefs(unc).json' for depth in range(3))


def read(request):
    path = request.annotations(*ORIGINAL, *CONVERTED)
    records = read_records(path)
    if have(records, 'split', 'sentences'):
        return scenes(request, path, of_refs(request, path, records, _identify))
    if have(records, 'cat', 'masks'):
        return scenes(request, path, of_categories(request, path, records))
    raise request.unknown(path, records)


def _identify(ref, sentence):
    """With the image's id: nothing promises that sent_id alone is unique, and gRefCOCO's API expects ref_ids twice."""
    return f'{ref.get("image_id")}-{sentence["sent_id"]}'

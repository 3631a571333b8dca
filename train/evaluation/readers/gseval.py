"""GSEval of GroundingSuite: captions of stuff, parts, several and single objects, one mask each."""

from instructsam.train.data.record_fields import RecordError
from instructsam.train.evaluation.readers.documents import have, read_records
from instructsam.train.evaluation.readers.files import CONVERTED
from instructsam.train.evaluation.readers.records import (
    ask,
    image_of,
    read_size,
    read_targets,
    scenes,
    text_of,
    union,
)

LAYOUTS = """
  original; unlabeled2017 of COCO may also lie in DATA/images or --images
    DATA/
      GroundingSuite-Eval.jsonl  {"idx", "image_path", "class_id", "caption", "segmentation", ...} a line
      unlabeled2017/  *.jpg
  converted
    DATA/
      SPLIT.json  [the same, ...]
"""
CLASSES = ('stuff', 'part', 'multi', 'single')  # class_id 1 to 4


def read(request):
    path = request.annotations('GroundingSuite-Eval.jsonl', '*.jsonl', *CONVERTED)
    records = read_records(path)
    if not have(records, 'image_path', 'caption', 'segmentation'):
        raise request.unknown(path, records)
    return scenes(request, path, _asked(request, path, records))


def _asked(request, path, records):
    images = request.pictures([text_of(record, 'image_path') for record in records], path.parent)
    for number, record in enumerate(records):
        image, class_id = image_of(record, 'image_path', images), record.get('class_id')
        is_known = isinstance(class_id, int) and 1 <= class_id <= len(CLASSES)

        def masks():
            if not is_known:
                raise RecordError(f'class_id is 1, 2, 3 or 4, got {class_id!r}')
            truth = union(read_targets(record.get('segmentation'), read_size(record, image)))
            if not truth:
                raise RecordError('a record has a mask under segmentation')
            return {'truth': truth}

        id = str(record.get('idx', f'record {number}'))
        groups = {'class': CLASSES[class_id - 1]} if is_known else {}
        yield ask(f'{path}, record {number}', id, image, record, 'caption', masks, groups=groups)

"""Inst2Seg: instructions with no, one or several targets."""

from instructsam.train.data.record_fields import RecordError, read_list
from instructsam.train.evaluation.readers.documents import have, read_records
from instructsam.train.evaluation.readers.files import CONVERTED
from instructsam.train.evaluation.readers.records import (
    ask,
    failed,
    image_of,
    read_size,
    read_targets,
    scenes,
    text_of,
)

LAYOUTS = """
  as the authors ship it; image paths start at --images or --data
    DATA/
      SPLIT.json  [{"image", "height", "width", "annotation": [{"text", "mask"?}, ...]}, ...]
"""


def read(request):
    path = request.annotations(*CONVERTED)
    records = read_records(path)
    if not have(records, 'image', 'annotation'):
        raise request.unknown(path, records)
    return scenes(request, path, _asked(request, path, records))


def _asked(request, path, records):
    images = request.pictures([text_of(record, 'image') for record in records], path.parent)
    for number, record in enumerate(records):
        where, image = f'{path}, record {number}', image_of(record, 'image', images)
        try:
            annotations = read_list({'annotation': None, **record}, 'annotation')
        except RecordError as error:
            yield failed(where, str(number), image, error)
            continue
        for index, annotation in enumerate(annotations):
            annotation = annotation if isinstance(annotation, dict) else {}

            def masks():
                return {'truth': read_targets(annotation.get('mask'), read_size(record))}

            yield ask(f'{where}, annotation {index}', f'{number}-{index}', image, annotation, 'text', masks)

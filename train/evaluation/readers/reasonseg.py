"""ReasonSeg: questions that need reasoning, one mask each; a file of outlines an image or, converted, run lengths."""

import json

from instructsam.train.data.record_fields import RecordError
from instructsam.train.evaluation.readers.documents import have, read_records
from instructsam.train.evaluation.readers.files import CONVERTED
from instructsam.train.evaluation.readers.images import picture_size
from instructsam.train.evaluation.readers.outlines import read_outlines
from instructsam.train.evaluation.readers.records import (
    ask,
    failed,
    image_of,
    read_masks,
    read_size,
    read_targets,
    scenes,
    text_of,
    union,
)

LAYOUTS = """
  original; --data may also be the folder with ReasonSeg in it, or SPLIT itself
    DATA/
      SPLIT/
        1.jpg
        1.json  {"text", "is_sentence", "shapes": [{"label", "points"}, ...]}
        2.jpg ...
  converted; image paths start at --images or --data
    DATA/
      SPLIT.json  [{"image", "question", "is_sentence", "mask", "ignore_mask"}, ...]
"""


def read(request):
    folder = _folder(request)
    if folder is not None:
        return scenes(request, folder, _original(request, folder))
    path = request.annotations(*CONVERTED)
    records = read_records(path)
    if not have(records, 'image', 'question', 'mask'):
        raise request.unknown(path, records)
    return scenes(request, path, _converted(request, path, records))


def _folder(request):
    """The split's folder of outlines, None in the converted layout. Raises DataError."""
    data = request.data
    if data.is_dir() and data.name == request.split and not request.matches('{split}.json'):
        return data
    folders = {
        split: data / top / split
        for split in request.splits
        for top in ('ReasonSeg', '')
        if any((data / top / split).glob('*.json'))
    }
    if folders and request.split not in folders:
        raise request.no_split(list(folders))
    return folders.get(request.split)


def _original(request, folder):
    stems = sorted({path.stem for path in folder.iterdir() if path.suffix in ('.jpg', '.json')})
    pictures = request.pictures([f'{stem}.jpg' for stem in stems], folder)
    for stem in stems:
        path, image = folder / f'{stem}.json', pictures.path(f'{stem}.jpg')
        try:
            record = _read(path)
        except RecordError as error:
            yield failed(path, stem, image, error)
            continue

        def masks():
            _check_form(record)
            return read_outlines(record.get('shapes'), *picture_size(image))

        text = record['text'][0] if isinstance(record['text'], list) else record['text']  # as the authors: one a file
        yield ask(path, stem, image, {'text': text}, 'text', masks, **_known(record))


def _read(path):
    """The record in a file. A few are not UTF-8 but Windows'. Raises RecordError."""
    try:
        content = path.read_bytes()
        try:
            text = content.decode('utf-8-sig')
        except UnicodeDecodeError:
            text = content.decode('cp1252')
        record = json.loads(text)
    except (OSError, ValueError, RecursionError) as error:
        raise RecordError(f'it is no JSON: {error}') from error
    if not isinstance(record, dict) or not record.get('text'):
        raise RecordError('a file has an object with text, is_sentence and shapes')
    return record


def _converted(request, path, records):
    images = request.pictures([text_of(record, 'image') for record in records], path.parent)
    for number, record in enumerate(records):
        image = image_of(record, 'image', images)

        def masks():
            _check_form(record)
            size = read_size(record, image)
            ignore = union(read_masks(record.get('ignore_mask'), size))
            truth = union(read_targets(record.get('mask'), size))
            return {'truth': truth, 'ignore': ignore[0] if ignore and ignore[0].area else None}

        yield ask(f'{path}, record {number}', str(number), image, record, 'question', masks, **_known(record))


def _known(record):
    form = 'long' if record.get('is_sentence') else 'short'
    return {'form': form, 'groups': {'form': form}}


def _check_form(record):
    if record.get('is_sentence') not in (True, False):
        raise RecordError(f'is_sentence is true or false, got {record.get("is_sentence")!r}')

"""RoboRefIt: commands about one object each, with masks as PNG files or, converted, as run lengths."""

import os

import numpy as np
from PIL import Image

from instructsam.core.rle import Rle
from instructsam.train.data.record_fields import RecordError
from instructsam.train.evaluation.readers.documents import have, read_records
from instructsam.train.evaluation.readers.files import CONVERTED
from instructsam.train.evaluation.readers.images import picture_size
from instructsam.train.evaluation.readers.records import (
    ask,
    image_of,
    read_size,
    read_targets,
    scenes,
    text_of,
    union,
    visible,
)

LAYOUTS = """
  original, as VL-Grasp ships it; --data may be any of these folders down to SPLIT
    RoboRefIt/
      data/
        final_dataset/
          SPLIT/
            roborefit_SPLIT.json  [{"text", "rgb_path", "mask_path", "scene", ...}, ...]
            image/  *.png
            mask/  a folder of *.png for each image
  converted; image paths start at --images or --data
    DATA/
      SPLIT.json  [{"image", "question" or "expression", "masks"}, ...]
"""
ORIGINAL = tuple('*/' * depth + 'roborefit_{split}.json' for depth in range(4))
COLOURED = ('P', 'PA', 'LA', 'RGBA')  # Pillow's modes: numbers of colours, or with an opacity that is no mask


def read(request):
    path = request.annotations(*ORIGINAL, *CONVERTED)
    records = read_records(path)
    if have(records, 'text', 'rgb_path', 'mask_path'):
        return scenes(request, path, _original(request, path, records))
    if have(records, 'image', 'masks'):
        return scenes(request, path, _converted(request, path, records))
    raise request.unknown(path, records)


def _original(request, path, records):
    images = request.pictures([text_of(record, 'rgb_path') for record in records], path.parent)
    files = request.pictures([text_of(record, 'mask_path') for record in records], path.parent)
    for number, record in enumerate(records):
        image = image_of(record, 'rgb_path', images)

        def masks():
            return {'truth': (_read_png(image_of(record, 'mask_path', files), image),)}

        groups = {'scene': str(record['scene'])} if record.get('scene') else {}
        yield ask(f'{path}, record {number}', str(number), image, record, 'text', masks, groups=groups)


def _read_png(path, image):
    """The mask in a file, what is not black there, if it has the size of the image. Raises RecordError."""
    if path is None:
        raise RecordError('a record has the path of its mask under mask_path')
    try:
        with Image.open(path) as file:
            pixels = np.asarray(file.convert('RGB') if file.mode in COLOURED else file)
    except Exception as error:  # on broken files Pillow raises SyntaxError, ValueError, struct.error, ...
        raise RecordError(f'the mask cannot be read: {error}') from error
    size = picture_size(image) if os.path.isfile(image) else pixels.shape[:2]
    if size != pixels.shape[:2]:
        raise RecordError(f'the mask {path} of size {list(pixels.shape[:2])} on an image of {list(size)}')
    return visible(Rle.encode(pixels.any(axis=-1) if pixels.ndim == 3 else pixels))


def _converted(request, path, records):
    images = request.pictures([text_of(record, 'image') for record in records], path.parent)
    for number, record in enumerate(records):
        image = image_of(record, 'image', images)

        def masks():
            return {'truth': union(read_targets(record.get('masks'), read_size(record, image)))}

        key = 'expression' if 'expression' in record else 'question'
        yield ask(f'{path}, record {number}', str(number), image, record, key, masks)

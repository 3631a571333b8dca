"""Annotation files and images of small made-up data sets, for the tests of the readers."""

import json
import pickle

import numpy as np
from PIL import Image

from instructsam.core.rle import Rle

HEIGHT, WIDTH = SIZE = 20, 30


def block(rows, columns):
    """Return a mask, [H, W] bool, that is true in the rows and columns (start, stop)."""
    mask = np.zeros(SIZE, dtype=bool)
    mask[slice(*rows), slice(*columns)] = True
    return mask


CUP, LID, BOX = block((2, 8), (3, 9)), block((2, 4), (20, 28)), block((10, 18), (5, 25))


def rle(mask, *, compressed=True):
    """Return COCO's run lengths of a mask."""
    encoded = Rle.encode(mask)
    return encoded.to_coco() if compressed else {'size': list(mask.shape), 'counts': encoded.counts.tolist()}


def polygon(rows, columns):
    """Return COCO's polygons of the pixels of `block`."""
    (y0, y1), (x0, x1) = rows, columns
    return [[x0, y0, x1, y0, x1, y1, x0, y1]]


def write_image(path, size=SIZE, **options):
    """Write a grey image; options: of Pillow's save."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new('RGB', size[::-1], 'grey').save(path, **options)


def write_annotations(path, content):
    """Write a pickle, JSON Lines or JSON, by the suffix of the path, and return the path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == '.p':
        path.write_bytes(pickle.dumps(content, protocol=2))
    elif path.suffix == '.jsonl':
        path.write_text(''.join(json.dumps(row) + '\n' for row in content))
    else:
        path.write_text(json.dumps(content))
    return path


def queries_by_id(images):
    """Return all queries by id."""
    return {query.id: query for image in images for query in image.queries}


def decoded_masks(query):
    """Return the ground truth of a query without error as arrays."""
    assert not query.error
    return [mask.decode() for mask in query.ground_truth]


def assert_masks(query, *expected):
    """Assert that the ground truth of a query is the expected masks, in order."""
    found = decoded_masks(query)
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(one, other)


def instances():
    """Return the content of COCO's instances.json: images 7 and 8, annotations 1 to 6."""
    images = [{'id': i, 'file_name': f'COCO_train2014_{i}.jpg', 'height': HEIGHT, 'width': WIDTH} for i in (7, 8)]
    segmentations = {
        1: (7, polygon((2, 8), (3, 9))),
        2: (7, rle(LID, compressed=False)),
        3: (7, rle(BOX)),
        4: (8, polygon((2, 8), (3, 9)) + polygon((2, 4), (20, 28))),
        5: (8, [[1, 1, 1, 1, 1, 1]]),
        6: (8, rle(CUP[:9])),
    }
    annotations = [
        {'id': annotation_id, 'image_id': image_id, 'segmentation': segmentation, 'iscrowd': 0}
        for annotation_id, (image_id, segmentation) in segmentations.items()
    ]
    return {'images': images, 'annotations': annotations, 'categories': []}


def ref(annotation, *sentences, image=7, split='val', first=0):
    """Return a ref of RefCOCO or gRefCOCO; first: its id, and that of its first sentence."""
    return {
        'ref_id': first,
        'ann_id': annotation,
        'category_id': 1,
        'image_id': image,
        'split': split,
        'file_name': 'x',
        'sent_ids': [],
        'sentences': [
            {'sent_id': first + i, 'sent': sentence, 'raw': 'raw', 'tokens': []} for i, sentence in enumerate(sentences)
        ],
    }

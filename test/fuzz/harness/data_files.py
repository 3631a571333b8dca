"""Small valid data sets as files: training records, scenes, and every benchmark in every layout."""

from __future__ import annotations

import io
import json
import pickle
from typing import Any

import numpy as np
from harness import pictures
from PIL import Image

HEIGHT, WIDTH = pictures.HEIGHT, pictures.WIDTH
RED, GREEN = ((8, 24), (6, 26)), ((26, 42), (36, 58))  # rows and columns of the squares
Files = dict[str, bytes]


def block(place: tuple[tuple[int, int], tuple[int, int]]) -> np.ndarray:
    """Return the mask of a square, [48, 64] bool."""
    mask = np.zeros((HEIGHT, WIDTH), bool)
    mask[slice(*place[0]), slice(*place[1])] = True
    return mask


def rle(place: tuple[tuple[int, int], tuple[int, int]], *, compressed: bool = True) -> dict[str, Any]:
    """Return COCO's run lengths of a square."""
    from instructsam.core.rle import Rle

    mask = Rle.encode(block(place))
    return mask.to_coco() if compressed else {'size': [HEIGHT, WIDTH], 'counts': mask.counts.tolist()}


def polygon(place: tuple[tuple[int, int], tuple[int, int]]) -> list[list[int]]:
    """Return COCO's polygons of a square."""
    (y0, y1), (x0, x1) = place
    return [[x0, y0, x1, y0, x1, y1, x0, y1]]


def as_json(content: Any) -> bytes:
    """Return a JSON document."""
    return json.dumps(content).encode()


def as_lines(rows: list[Any]) -> bytes:
    """Return JSON lines."""
    return b''.join(json.dumps(row).encode() + b'\n' for row in rows)


def jpg() -> bytes:
    """Return the picture as a JPEG."""
    return pictures.color_files()['rgb.jpg']


def png() -> bytes:
    """Return the picture as a PNG."""
    return pictures.color_files()['rgb.png']


def mask_png(place: tuple[tuple[int, int], tuple[int, int]]) -> bytes:
    """Return a mask as a PNG."""
    file = io.BytesIO()
    Image.fromarray(block(place).astype(np.uint8) * 255).save(file, 'PNG')
    return file.getvalue()


def _record(**fields: Any) -> dict[str, Any]:
    return {'image': 'a.png', 'height': HEIGHT, 'width': WIDTH, **fields}


def training_records() -> list[dict[str, Any]]:
    """Return records of every form."""

    def seg(*annotations: Any, **fields: Any) -> dict[str, Any]:
        return _record(type='seg', annotation=json.dumps(annotations), **fields)

    return [
        _record(
            conversations=[
                {'from': 'human', 'value': '<image>\nWhat is this?'},
                {'from': 'gpt', 'value': 'Only noise.'},
            ]
        ),
        _record(
            mask=[rle(RED)],
            conversations=[
                {'from': 'human', 'value': '<image>\nFind the square.'},
                {'from': 'gpt', 'value': '<|object_ref_start|>red square<|object_ref_end|> [SEG].'},
            ],
        ),
        _record(text='the green square', mask=rle(GREEN, compressed=False)),
        _record(question='Where is the red square?', category='red square', mask=[polygon(RED)]),
        seg({'type': 'OCR', 'text': 'STOP', 'ann_type': 'mask', 'ann': [json.dumps(rle(RED))]}),
        seg({'type': 'phrase', 'text': 'box', 'ann_type': 'mask', 'ann': [json.dumps(polygon(GREEN))]}),
        seg({'type': 'phrase', 'text': 'lid', 'ann_type': 'bbox', 'ann': ['[3, 4, 20, 30]']}),
        seg({'type': 'phrase', 'text': 'cat', 'ann_type': 'mask', 'ann': None}),
        seg(
            {
                'type': 'sentence',
                'text': 'What is red?',
                'category': 'red square',
                'ann_type': 'mask',
                'ann': [rle(RED)],
            },
            {'type': 'phrase', 'text': 'green square', 'ann_type': 'mask', 'ann': [rle(GREEN)]},
            {'type': 'phrase', 'text': 'dog', 'ann_type': 'mask', 'ann': None},
        ),
        _record(
            type='instseg',
            annotation=[
                {'type': 'phrase', 'instruction': 'all squares', 'text': name, 'ann_type': 'mask', 'ann': [rle(mask)]}
                for name, mask in (('red square', RED), ('green square', GREEN))
            ],
        ),
    ]


def scenes() -> list[dict[str, Any]]:
    """Return lines of a scene file of the tabletop world."""
    objects = [
        {'category': 'mug', 'color': 'red', 'mask': rle(RED)},
        {'category': 'bowl', 'color': 'green', 'mask': rle(GREEN)},
    ]
    return [{'image': 'a.png', 'height': HEIGHT, 'width': WIDTH, 'objects': objects}]


def training_sets() -> dict[str, Files]:
    """Return the files of each kind of training data."""
    import yaml

    def mix(annotations: str) -> bytes:
        return yaml.safe_dump([{'annotations': annotations, 'images': '.', 'repeat': 1}]).encode()

    return {
        'train records': {
            'mix.yaml': mix('records.json'),
            'records.json': as_json(training_records()),
            'a.png': png(),
        },
        'train lines': {
            'mix.yaml': mix('records.jsonl'),
            'records.jsonl': as_lines(training_records()),
            'a.png': png(),
        },
        'train scenes': {'mix.yaml': mix('scenes.jsonl'), 'scenes.jsonl': as_lines(scenes()), 'a.png': png()},
    }


def _ref(annotation: Any, *sentences: str, first: int = 0) -> dict[str, Any]:
    return {
        'ref_id': first,
        'ann_id': annotation,
        'category_id': 1,
        'image_id': 7,
        'split': 'val',
        'file_name': 'x',
        'sent_ids': [],
        'sentences': [
            {'sent_id': first + number, 'sent': sentence, 'raw': sentence, 'tokens': []}
            for number, sentence in enumerate(sentences)
        ],
    }


def _instances() -> dict[str, Any]:
    return {
        'images': [{'id': 7, 'file_name': 'COCO_train2014_7.jpg', 'height': HEIGHT, 'width': WIDTH}],
        'annotations': [
            {'id': 1, 'image_id': 7, 'segmentation': polygon(RED), 'iscrowd': 0},
            {'id': 2, 'image_id': 7, 'segmentation': rle(GREEN, compressed=False), 'iscrowd': 0},
        ],
        'categories': [],
    }


def _outline(label: str, place: tuple[tuple[int, int], tuple[int, int]]) -> dict[str, Any]:
    (y0, y1), (x0, x1) = place
    return {'label': label, 'points': [[x0, y0], [x1 - 1, y0], [x1 - 1, y1 - 1], [x0, y1 - 1]]}


def benchmark_sets() -> dict[str, Files]:
    """Return the files of each benchmark and layout; the name begins with that of the benchmark."""
    texts = [{'text': 'the red square', 'mask': rle(RED)}, {'text': 'both', 'mask': [rle(RED), polygon(GREEN)]}]
    converted_refs = [_record(image='a.jpg', cat=['red', 'nothing'], masks=[rle(RED), None])]
    robo = 'data/final_dataset/testA'
    return {
        'inst2seg': {
            'test.json': as_json([_record(image='a.jpg', annotation=[*texts, {'text': 'no dog'}])]),
            'a.jpg': jpg(),
        },
        'gseval lines': {
            'GroundingSuite-Eval.jsonl': as_lines(
                [
                    {
                        'idx': n,
                        'image_path': 'unlabeled2017/0.jpg',
                        'class_id': n + 1,
                        'caption': f'text {n}',
                        'segmentation': s,
                    }
                    for n, s in enumerate([rle(RED), polygon(GREEN)])
                ]
            ),
            'unlabeled2017/0.jpg': jpg(),
        },
        'grefcoco original': {
            'grefs(unc).json': as_json([_ref([1, 2], 'both', first=1), _ref([-1], 'a dog', first=3)]),
            'instances.json': as_json(_instances()),
            'train2014/COCO_train2014_7.jpg': jpg(),
        },
        'grefcoco converted': {'val.json': as_json(converted_refs), 'a.jpg': jpg()},
        'refcoco original': {
            'refs(unc).p': pickle.dumps([_ref(1, 'red', 'scarlet', first=1), _ref(2, 'green', first=5)], protocol=2),
            'instances.json': as_json(_instances()),
            'train2014/COCO_train2014_7.jpg': jpg(),
        },
        'refcoco converted': {'val.json': as_json(converted_refs), 'a.jpg': jpg()},
        'reasonseg original': {
            'val/a.json': as_json(
                {
                    'text': ['What is red?'],
                    'is_sentence': True,
                    'shapes': [_outline('target', RED), _outline('ignore', GREEN)],
                }
            ),
            'val/a.jpg': jpg(),
            'val/b.json': as_json({'text': 'green', 'is_sentence': False, 'shapes': [_outline('target', GREEN)]}),
            'val/b.jpg': jpg(),
        },
        'reasonseg converted': {
            'val.json': as_json(
                [{'image': 'a.jpg', 'question': 'x?', 'is_sentence': True, 'mask': rle(RED), 'ignore_mask': rle(GREEN)}]
            ),
            'a.jpg': jpg(),
        },
        'roborefit original': {
            f'{robo}/roborefit_testA.json': as_json(
                [
                    {
                        'num': 0,
                        'text': 'give me the red one',
                        'bbox': [0, 0, 1, 1],
                        'scene': 'table',
                        'rgb_path': 'final_dataset/testA/image/1.png',
                        'depth_path': 'none',
                        'mask_path': 'final_dataset/testA/mask/1/0.png',
                    }
                ]
            ),
            f'{robo}/image/1.png': png(),
            f'{robo}/mask/1/0.png': mask_png(RED),
        },
        'roborefit converted': {
            'testA.json': as_json([{'image': 'a.jpg', 'question': 'the red one', 'masks': rle(RED)}]),
            'a.jpg': jpg(),
        },
    }


SPLITS = {'inst2seg': 'test', 'gseval': 'eval', 'roborefit': 'testA'}  # the others: val
TRAINING = ('train records', 'train lines', 'train scenes')
BENCHMARKS = (
    'inst2seg', 'gseval lines', 'grefcoco original', 'grefcoco converted', 'refcoco original', 'refcoco converted',
    'reasonseg original', 'reasonseg converted', 'roborefit original', 'roborefit converted',
)  # fmt: skip

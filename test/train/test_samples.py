"""Records of every kind become samples; a broken one is refused with its reason."""
import json
import os
from pathlib import Path

import numpy as np
import pytest
from pycocotools import mask as coco

from instructsam.train.samples import RecordError, parse, read_mask, tidy

FOLDER = Path(os.environ.get('INSTRUCTSAM_REFERENCE', Path(__file__).parents[1] / 'data' / 'reference'))
RECORDS = json.loads((FOLDER / 'training' / 'records.json').read_text())
SIZE = (20, 30)


def rng(seed=0):
    return np.random.default_rng(seed)


def rle(rows=slice(2, 8), columns=slice(3, 9), compressed=True):
    mask = np.zeros(SIZE, np.uint8)
    mask[rows, columns] = 1
    encoded = coco.encode(np.asfortranarray(mask))
    return {'size': list(SIZE), 'counts': encoded['counts'].decode()} if compressed else {
        'size': list(SIZE), 'counts': np.diff(np.flatnonzero(np.diff(mask.T.ravel(), prepend=2, append=2))).tolist()}


def record(*annotations, **extra):
    header = {'type': 'seg', 'image': 'a.jpg', 'height': SIZE[0], 'width': SIZE[1]}
    return {**header, 'annotation': list(annotations), **extra}


def phrase(text='the cup', masks=1, **extra):
    entries = [json.dumps(rle(columns=slice(3 * i, 3 * i + 2))) for i in range(masks)]
    return {'type': 'phrase', 'text': text, 'ann_type': 'mask', 'ann': entries, **extra}


@pytest.mark.parametrize('name', [name for name in RECORDS if name != 'too_many'])
def test_recorded_records_are_read(name):
    sample = parse(RECORDS[name], FOLDER, 10, rng())
    assert sample.image.is_file()
    assert sample.turns
    for turn in sample.turns:
        assert len(turn.phrases) == len(turn.targets)
        for target in turn.targets:
            assert all((mask.height, mask.width) == (sample.height, sample.width) for mask in target.masks)


def test_more_instances_than_slots_are_left_out():
    raw = record(phrase('many', masks=4), phrase('one'))
    assert [turn.phrases for turn in parse(raw, '.', 3, rng()).turns] == [('one',)]
    with pytest.raises(RecordError, match='more than 3'):
        parse(record(phrase('many', masks=4)), '.', 3, rng())


def test_kinds():
    sentence = {**phrase(), 'type': 'sentence', 'text': 'What can I drink from?', 'category': 'Mug.'}
    written = {**phrase('STOP'), 'type': 'OCR'}
    nothing = {**phrase('Red car.'), 'ann': None}
    boxed = {'type': 'phrase', 'text': 'table', 'ann_type': 'bbox', 'ann': ['[3, 2, 6, 10]']}
    turns = parse(record(sentence, written, nothing, boxed), '.', 10, rng()).turns
    assert [turn.phrases for turn in turns] == [('mug',), ('STOP',), ('red car',), ('table',)]
    assert turns[0].question == 'What can I drink from?'
    assert "'STOP'" in turns[1].question and "'red car'" in turns[2].question
    assert [len(turn.targets[0]) for turn in turns] == [1, 1, 0, 1]
    assert turns[3].targets[0].boxes == (pytest.approx((0.1, 0.1, 0.3, 0.6)),)


def test_annotation_may_be_a_json_string():
    raw = record(phrase())
    text = {**raw, 'annotation': json.dumps(raw['annotation'])}
    one, other = (parse(form, '.', 10, rng()).turns[0] for form in (raw, text))
    assert one.question == other.question and one.phrases == other.phrases
    assert one.targets[0].masks[0].to_coco() == other.targets[0].masks[0].to_coco()


def test_instseg_asks_together_half_of_the_time():
    raw = record(phrase('a cup'), phrase('a box'), phrase('a pan'), type='instseg')
    together = [len(parse(raw, '.', 10, rng(seed)).turns) == 1 for seed in range(400)]
    assert 0.4 < np.mean(together) < 0.6
    asked = next(s for s in (parse(raw, '.', 10, rng(seed)) for seed in range(20)) if len(s.turns) == 1)
    assert asked.turns[0].phrases == ('a cup', 'a box', 'a pan')
    assert "'a cup, a box and a pan'" in asked.turns[0].question


def test_a_second_phrase_joins_the_first_unless_they_overlap():
    def far(text):
        return {**phrase(text), 'ann': [json.dumps(rle(columns=slice(20, 25)))]}

    turns = parse(record(phrase('cup'), far('box'), far('pan')), '.', 10, rng()).turns
    assert len(turns) == 3 and len(turns[0].phrases) == 2 and turns[0].phrases[0] == 'cup'
    overlapping = parse(record(phrase('cup'), phrase('b'), phrase('c')), '.', 10, rng()).turns
    assert [len(turn.phrases) for turn in overlapping] == [1, 1, 1]
    assert len(parse(record(phrase('cup'), far('box')), '.', 10, rng()).turns[0].phrases) == 1


def test_masks_in_every_form_are_the_same():
    square = [3.0, 2.0, 9.0, 2.0, 9.0, 8.0, 3.0, 8.0]
    masks = [read_mask(form, *SIZE).decode() for form in (rle(), rle(compressed=False), [square], square)]
    assert all(np.array_equal(mask, masks[0]) for mask in masks)


@pytest.mark.parametrize(('text', 'expected'), [
    ('Red cup.', 'red cup'), ('the man', 'the man'), ('TV on the wall', 'TV on the wall'), (' Knife ', 'knife')])
def test_tidy(text, expected):
    assert tidy(text) == expected


@pytest.mark.parametrize(('raw', 'says'), [
    ([], 'JSON object'),
    ({'image': 'a.jpg'}, 'height'),
    ({**record(phrase()), 'height': 0}, 'cannot be'),
    ({**record(phrase()), 'annotation': '{'}, 'no JSON'),
    (record(), 'not empty'),
    (record({'text': ''}), 'has a text'),
    (record({**phrase(), 'type': 'poem'}), 'poem'),
    (record({**phrase(), 'type': 'sentence'}), 'no category'),
    (record({**phrase(), 'ann_type': 'points'}), 'points'),
    (record({**phrase(), 'ann': ['{"size": [4, 4], "counts": [16]}']}), r'\[4, 4\]'),
    (record({**phrase(), 'ann': ['not json']}), 'no JSON'),
    (record({**phrase(), 'ann': ['[[1, 2]]']}), 'three points'),
    (record({'text': 'x', 'ann_type': 'bbox', 'ann': ['[40, 40, 2, 2]']}), 'outside'),
    (record({'text': 'x', 'ann_type': 'bbox', 'ann': ['[1, 2]']}), r'\[x, y, w, h\]'),
])
def test_broken_records_are_refused(raw, says):
    with pytest.raises(RecordError, match=says):
        parse(raw, '.', 10, rng())

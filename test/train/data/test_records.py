"""Records of every type become samples; a broken one is refused with the reason."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco

from instructsam.train.data.record_fields import RecordError, Target, read_mask
from instructsam.train.data.records import parse, tidy
from instructsam.train.data.sample import Sample, Turn

FOLDER = Path(os.environ.get('INSTRUCTSAM_REFERENCE', Path(__file__).parents[2] / 'data' / 'reference'))
RECORDS = json.loads((FOLDER / 'training' / 'records.json').read_text())
SIZE = (20, 30)


def rng(seed=0):
    return np.random.default_rng(seed)


def rle(rows=slice(2, 8), columns=slice(3, 9), compressed=True):
    mask = np.zeros(SIZE, np.uint8)
    mask[rows, columns] = 1
    encoded = coco.encode(np.asfortranarray(mask))
    return (
        {'size': list(SIZE), 'counts': encoded['counts'].decode()}
        if compressed
        else {
            'size': list(SIZE),
            'counts': np.diff(np.flatnonzero(np.diff(mask.T.ravel(), prepend=2, append=2))).tolist(),
        }
    )


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


def test_of_many_annotations_other_ones_are_asked_each_time():
    raw, asked = record(*(phrase(f'thing {index}') for index in range(14))), set()
    for seed in range(20):
        turns = parse(raw, '.', 10, rng(seed)).turns
        assert len(turns) == 10
        asked.update(turn.phrases for turn in turns)
    assert len(asked) == 14


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
    assert "'STOP'" in turns[1].question
    assert "'red car'" in turns[2].question
    assert [len(turn.targets[0]) for turn in turns] == [1, 1, 0, 1]
    assert turns[3].targets[0].boxes == (pytest.approx((0.1, 0.1, 0.3, 0.6)),)


def test_annotation_may_be_a_json_string():
    raw = record(phrase())
    text = {**raw, 'annotation': json.dumps(raw['annotation'])}
    one, other = (parse(form, '.', 10, rng()).turns[0] for form in (raw, text))
    assert one.question == other.question
    assert one.phrases == other.phrases
    assert one.targets[0].masks[0].to_coco() == other.targets[0].masks[0].to_coco()


def test_instseg_asks_together_half_of_the_time():
    raw = record(phrase('a cup'), phrase('a box'), phrase('a pan'), type='instseg')
    together = [len(parse(raw, '.', 10, rng(seed)).turns) == 1 for seed in range(400)]
    assert 0.4 < np.mean(together) < 0.6
    asked = next(s for s in (parse(raw, '.', 10, rng(seed)) for seed in range(20)) if len(s.turns) == 1)
    assert asked.turns[0].phrases == ('a cup', 'a box', 'a pan')
    assert "'a cup, a box and a pan'" in asked.turns[0].question


def joint(instruction, *annotations):
    return [{**annotation, 'instruction': instruction} for annotation in annotations]


def test_annotations_of_an_instruction_are_asked_together_in_its_words():
    annotations = joint(' Take the cup, or a box! ', phrase('a cup'), {**phrase('a box'), 'ann': None})
    for kind in ('seg', 'instseg'):
        raw = record(phrase('a pan'), annotations[0], phrase('a lid'), annotations[1], type=kind)
        for seed in range(20):
            turns = parse(raw, '.', 10, rng(seed)).turns
            asked = next(turn for turn in turns if turn.question == 'Take the cup, or a box!')
            assert asked.phrases == ('a cup', 'a box')
            assert [len(target) for target in asked.targets] == [1, 0]
            others = [turn.phrases for turn in turns if turn is not asked]
            assert others in ([('a pan',), ('a lid',)], [('a pan', 'a lid'), ('a lid',)])
    raw = record(*({**annotation, 'instruction': ''} for annotation in annotations))
    assert len(parse(raw, '.', 10, rng()).turns) == 2


def test_an_instruction_is_taken_whole_or_not_at_all():
    both = joint('all of it', phrase('a cup'), phrase('a box', masks=4))
    assert len(parse(record(*both), '.', 4, rng()).turns[0].phrases) == 2
    assert [turn.phrases for turn in parse(record(*both, phrase('a pan')), '.', 3, rng()).turns] == [('a pan',)]
    with pytest.raises(RecordError, match='no annotation is left'):
        parse(record(*both), '.', 3, rng())
    with pytest.raises(RecordError, match='no annotation is left'):
        parse(record(*joint('eleven', *[phrase()] * 11)), '.', 10, rng())


def test_every_instruction_of_a_long_record_is_drawn_in_some_epoch():
    names = 'abcdefghi'
    raw = record(*(phrase(name) for name in names), *joint('both', phrase('first'), phrase('second')))
    seen = set()
    for seed in range(40):
        turns = parse(raw, '.', 10, rng(seed)).turns
        phrases = {name for turn in turns for name in turn.phrases}
        assert sum(len(turn.phrases) for turn in turns) <= 11, 'one phrase may be asked for again beside another'
        assert ('first' in phrases) == ('second' in phrases)
        seen |= phrases
    assert seen == {*names, 'first', 'second'}


def test_limits_of_a_sample():
    assert len(parse(record(*[phrase()] * 11), '.', 10, rng()).turns) == 10
    many = parse(record(*[phrase(masks=9)] * 20), '.', 10, rng()).turns
    assert sum(len(target) for turn in many for target in turn.targets) <= 100


def test_of_too_many_objects_other_ones_are_asked_each_time():
    many = [json.dumps(rle(columns=slice(i, i + 2))) for i in range(28)]
    raw = record(*({**phrase(name), 'ann': many} for name in 'abcdef'))
    drawn = [[turn.phrases[-1] for turn in parse(raw, '.', 50, rng(seed)).turns] for seed in range(20)]
    assert {len(names) for names in drawn} == {3}
    assert {name for names in drawn for name in names} == set('abcdef')


def test_a_second_phrase_joins_the_first_unless_they_overlap():
    def far(text):
        return {**phrase(text), 'ann': [json.dumps(rle(columns=slice(20, 25)))]}

    turns = parse(record(phrase('cup'), far('box'), far('pan')), '.', 10, rng()).turns
    assert len(turns) == 3
    assert len(turns[0].phrases) == 2
    assert turns[0].phrases[0] == 'cup'
    overlapping = parse(record(phrase('cup'), phrase('b'), phrase('c')), '.', 10, rng()).turns
    assert [len(turn.phrases) for turn in overlapping] == [1, 1, 1]
    assert len(parse(record(phrase('cup'), far('box')), '.', 10, rng()).turns[0].phrases) == 1


def own(**fields):
    """A record without annotations."""
    raw = record(**fields)
    del raw['annotation']
    return raw


SQUARE = [3.0, 2.0, 9.0, 2.0, 9.0, 8.0, 3.0, 8.0]


@pytest.mark.parametrize(
    ('texts', 'question', 'phrase'),
    [
        ({'text': 'The red cup.'}, "'the red cup'", 'the red cup'),
        ({'question': 'The red cup.'}, "'the red cup'", 'the red cup'),
        ({'text': 'Where do I drink from?', 'category': 'Cup'}, 'Where do I drink from?', 'cup'),
        ({'question': 'Where do I drink from?', 'text': 'a cup'}, 'Where do I drink from?', 'a cup'),
    ],
)
def test_a_record_with_a_mask_of_its_own(texts, question, phrase):
    (turn,) = parse(own(mask=rle(), **texts), '.', 10, rng()).turns
    assert question in turn.question
    assert turn.phrases == (phrase,)
    assert np.array_equal(turn.targets[0].masks[0].decode(), read_mask(rle(), *SIZE).decode())


@pytest.mark.parametrize(
    ('mask', 'count'),
    [
        (rle(), 1),
        (json.dumps(rle()), 1),
        (SQUARE, 1),
        ([SQUARE, SQUARE], 1),
        ([rle(), rle()], 2),
        ([json.dumps(rle()), rle()], 2),
        (json.dumps([rle()]), 1),
        ([[SQUARE], [SQUARE]], 2),
        (None, 0),
        ([], 0),
    ],
)
def test_forms_of_a_records_own_mask(mask, count):
    (turn,) = parse(own(mask=mask, text='x'), '.', 10, rng()).turns
    assert len(turn.targets[0].masks) == count


@pytest.mark.parametrize(
    ('masks', 'count'), [([SQUARE, SQUARE], 1), ([[SQUARE, SQUARE], [SQUARE]], 2), ([rle(), json.dumps(SQUARE)], 2)]
)
@pytest.mark.parametrize('key', ['ann', 'mask'])
def test_a_list_of_polygons_is_one_mask(key, masks, count):
    """As in COCO, where the parts of an object that something hides in the middle are polygons of one mask."""
    annotation = [{'type': 'phrase', 'text': 'x', 'ann_type': 'mask', key: masks}]
    raw = {'type': 'seg', 'image': 'a.png', 'height': SIZE[0], 'width': SIZE[1], 'annotation': annotation}
    (turn,) = parse(raw, '.', 10, rng()).turns
    assert len(turn.targets[0].masks) == count


def talk(*values, **extra):
    said = [{'from': role, 'value': value} for role, value in zip(['human', 'gpt'] * len(values), values, strict=False)]
    return own(conversations=said, **extra)


def tagged(text):
    return f'<|object_ref_start|>{text}<|object_ref_end|>'


FIRST, SECOND = rle(columns=slice(0, 4)), rle(columns=slice(10, 14))


@pytest.mark.parametrize(
    'answer',
    [
        f'{tagged("a cup")}, {tagged("the box")}',
        f'Here {tagged("a cup")}<|mask_start|>[SEG][SEG]<|mask_end|>, '
        f'{tagged("the box")}<|mask_start|>[SEG]<|mask_end|>',
        'A cup [SEG], the box [SEG].',
        'A cup<|mask_start|>[SEG][SEG]<|mask_end|> and the box <|mask_start|>[SEG]<|mask_end|>.',
    ],
)
def test_phrases_of_a_conversation(answer):
    (turn,) = parse(talk('<image>\nWhat is here?', answer, mask=[FIRST, SECOND]), '.', 10, rng()).turns
    assert turn.question == 'What is here?'
    assert turn.phrases == ('a cup', 'the box')
    assert not turn.text
    assert [target.masks[0].box[0] for target in turn.targets] == [0, 10]


def test_turns_of_a_conversation():
    raw = talk(
        '<image>\nHello',
        'Good day.',
        'The cup and a cat?',
        f'{tagged("cup")}, {tagged("cat")}',
        'Any [SEG]?',
        'Boxes [SEG].',
        mask=[FIRST, None, [FIRST, SECOND]],
    )
    hello, both, last = parse(raw, 'pictures', 10, rng()).turns
    assert hello == Turn('Hello', (), (), 'Good day.')
    assert [len(target) for turn in (both, last) for target in turn.targets] == [1, 0, 2]
    assert last.question == 'Any [SEG]?'
    assert last.phrases == ('boxes',)


@pytest.mark.parametrize(
    ('mask', 'count'), [(FIRST, 1), ([FIRST, SECOND], 2), ([[FIRST, SECOND]], 2), (None, 0), ([None], 0)]
)
def test_all_masks_are_those_of_an_only_phrase(mask, count):
    (turn,) = parse(talk('Where?', tagged('here'), mask=mask), '.', 10, rng()).turns
    assert len(turn.targets[0]) == count


def test_a_conversation_without_masks_is_text():
    assert parse(talk('Hello', 'Good day.'), '.', 10, rng()).turns == (Turn('Hello', (), (), 'Good day.'),)


def test_masks_in_every_form_are_the_same():
    masks = [read_mask(form, *SIZE).decode() for form in (rle(), rle(compressed=False), [SQUARE], SQUARE)]
    assert all(np.array_equal(mask, masks[0]) for mask in masks)


def test_masks_without_a_pixel_are_not_instances():
    empty = json.dumps({'size': list(SIZE), 'counts': [600]})
    (turn,) = parse(record({**phrase(), 'ann': [empty, json.dumps(rle())]}), '.', 10, rng()).turns
    assert len(turn.targets[0]) == 1


def test_compressed_run_lengths_are_those_of_pycocotools():
    for seed, share in enumerate((0.0, 0.01, 0.3, 0.97, 1.0)):
        mask = rng(seed).random((211, 157)) < share
        encoded = coco.encode(np.asfortranarray(mask.astype(np.uint8)))
        for counts in (encoded['counts'], encoded['counts'].decode()):
            assert np.array_equal(read_mask({'size': [211, 157], 'counts': counts}, 211, 157).decode(), mask)


@pytest.mark.parametrize('form', [SQUARE, [SQUARE], {'size': [48, 64_000_000_000], 'counts': [48 * 64_000_000_000]}])
def test_a_mask_of_an_impossible_size_is_refused(form):
    with pytest.raises(RecordError, match='48 x 64000000000 px: expected at most 178 megapixels'):
        read_mask(form, 48, 64_000_000_000)


def test_a_truncated_mask_is_refused():
    counts = rle(rows=slice(2, 18), columns=slice(3, 27))['counts']
    for length in range(len(counts)):
        with pytest.raises(RecordError):
            read_mask({'size': list(SIZE), 'counts': counts[:length]}, *SIZE)


@pytest.mark.parametrize(
    ('text', 'expected'),
    [('Red cup.', 'red cup'), ('the man', 'the man'), ('TV on the wall', 'TV on the wall'), (' Knife ', 'knife')],
)
def test_tidy(text, expected):
    assert tidy(text) == expected


def entry(*ann):
    return record({**phrase(), 'ann': list(ann)})


def box(value):
    return record({'text': 'x', 'ann_type': 'bbox', 'ann': [value]})


@pytest.mark.parametrize(
    ('raw', 'says'),
    [
        ([], 'JSON object'),
        ({'image': 'a.jpg'}, 'height'),
        ({'height': 20, 'width': 30}, 'image'),
        ({**record(phrase()), 'width': None}, 'width'),
        ({**record(phrase()), 'height': 0}, 'not possible'),
        ({**record(phrase()), 'image': 7}, 'not possible'),
        (own(), 'annotation, mask or conversations'),
        ({**record(phrase()), 'annotation': '{'}, 'not valid JSON'),
        ({**record(phrase()), 'annotation': None}, 'non-empty list'),
        (record(), 'non-empty list'),
        (record('the cup'), 'needs a text'),
        (record({'text': ''}), 'needs a text'),
        (record({**phrase(), 'text': '\ud800'}), 'Unicode'),
        (record({**phrase(), 'text': '.'}), 'not a phrase'),
        (record({'type': 'phrase', 'text': 'x'}), 'has no ann'),
        (record({**phrase(), 'type': 'poem'}), 'poem'),
        (record({**phrase(), 'type': 'sentence'}), 'category'),
        (record({**phrase(), 'ann_type': 'points'}), 'points'),
        (record({**phrase(), 'instruction': 7}), 'instruction'),
        (record(phrase(), phrase(), type='instseg', instruction='both'), 'belongs to each annotation'),
        (entry(*[json.dumps(rle())] * 11), 'more than 10'),
        (entry('{"size": [4, 4], "counts": [16]}'), r'\[4, 4\]'),
        (entry('{"counts": [600]}'), 'size None'),
        (entry('{"size": [20, 30]}'), 'counts'),
        (entry('{"size": [20, 30], "counts": [100]}'), 'add up'),
        (entry('{"size": [20, 30], "counts": [-1, 601]}'), 'cannot be read'),
        (entry('{"size": [20, 30], "counts": [[600]]}'), 'counts'),
        (entry('{"size": [20, 30], "counts": "!!!"}'), 'cannot be read'),
        (entry('{"size": [20, 30], "counts": [600]}'), 'no mask has a pixel'),
        (entry('not json'), 'not valid JSON'),
        (entry(7), 'RLE or polygons'),
        (entry('[[1, 2]]'), 'three points'),
        (entry('[[1, 2, 3, 4, 5, 6, 7]]'), 'three points'),
        (entry('[[1, 2, 3, 4, 5, "x"]]'), 'three points'),
        (entry('[[1, 2, 3, 4, 5, NaN]]'), 'three points'),
        (entry('[[1, 2, 3, 4, 5, 1e12]]'), 'near the image'),
        (entry('[[1, 2, 3, 4, 5, 6], 7]'), 'polygons'),
        (box('[40, 40, 2, 2]'), 'outside'),
        (box('[1, 2]'), r'\[x, y, w, h\]'),
        (box('[1, 2, NaN, 4]'), r'\[x, y, w, h\]'),
        (box('[1, 2, "3", 4]'), r'\[x, y, w, h\]'),
        (own(mask=rle()), 'a text or a question'),
        (own(mask=rle(), question='What is it?'), 'no category'),
        (own(mask=rle(), text=['a', 'b']), 'needs a text'),
        (own(mask=7, text='x'), 'polygons or a list'),
        (own(mask=[rle(), 7], text='x'), 'RLE or polygons'),
        (own(conversations=[]), 'non-empty list'),
        (talk('Hello'), 'alternate'),
        (own(conversations=['Hello', 'Good day']), 'alternate'),
        (own(conversations=[{'from': 'gpt', 'value': 'a'}, {'from': 'human', 'value': 'b'}]), 'alternate'),
        (talk('<image>', 'x'), 'question'),
        (talk('Hello', ''), 'value'),
        (talk('Where?', '[SEG]', mask=rle()), 'not a phrase'),
        (talk('Where?', tagged(' '), mask=rle()), 'not a phrase'),
        (talk('Where?', tagged('here')), '1 phrases.* 0 masks'),
        (talk('Where?', 'Nowhere.', mask=rle()), '0 phrases.* 1 masks'),
        (talk('Where?', f'{tagged("here")}, {tagged("there")}', mask=[rle()]), '2 phrases.* 1 masks'),
        (talk('Where?', tagged('here'), mask=[rle()] * 11), 'incomplete'),
    ],
)
def test_broken_records_are_refused(raw, says):
    with pytest.raises(RecordError, match=says):
        parse(raw, '.', 10, rng())


def test_pixels_are_read_upright(tmp_path):
    sideways = Image.new('RGB', SIZE)  # the file stores 20 x 30 px, viewers show 30 x 20 px
    exif = sideways.getexif()
    exif[0x112] = 6
    sideways.save(tmp_path / 'a.jpg', exif=exif)
    sample = parse(record(phrase()), tmp_path, 10, rng()).with_pixels()
    assert sample.pixels.shape == (3, *SIZE)
    assert sample.with_pixels() is sample


@pytest.mark.parametrize(
    ('size', 'says'), [(None, 'No such file'), ((31, 20), 'is 31 x 20 px'), ('text', 'not an image')]
)
def test_an_image_that_does_not_fit_is_refused(tmp_path, size, says):
    if size == 'text':
        (tmp_path / 'a.jpg').write_text('text')
    elif size:
        Image.new('RGB', size).save(tmp_path / 'a.jpg')
    sample = Sample(tmp_path / 'a.jpg', *SIZE, (Turn('x', ('y',), (Target(),)),))
    with pytest.raises(RecordError, match=says):
        sample.with_pixels()

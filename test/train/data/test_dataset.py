"""Mixing lists, random access to record files, and the dataset with its handling of broken records."""

import json
import logging
import pickle

import pytest
from PIL import Image
from torch.utils.data import DataLoader

from instructsam.core.errors import DataError
from instructsam.train.data.dataset import RecordDataset
from instructsam.train.data.mixing import Source, mixing_list
from instructsam.train.data.record_fields import RecordError
from instructsam.train.data.record_file import RecordFile

NASTY = [
    {'text': 'a ] b [ c } d { e " f \\ g , h', 'list': [[], [{}], [[1, 2], [3.5, -4e-3]]], 'nothing': None},
    {'"': '\\"', '\\': '\\\\', '[{': ']},{"image": 1}', 'nested': json.dumps({'a': ['"', '\\', '[']})},
    {'é': '杯子 😀 \u2028', 'control': '\n\t\x01', '': ''},
    'only "text" ]', '', 12, -0.5e3, True, None, [], [[']']], {},
]  # fmt: skip


@pytest.mark.parametrize(
    'options', [{}, {'indent': 2}, {'indent': '\t', 'ensure_ascii': False}, {'separators': (',', ':')}]
)
@pytest.mark.parametrize('encoding', ['utf-8', 'utf-8-sig'])
def test_elements_of_an_array(tmp_path, options, encoding):
    path = tmp_path / 'a.json'
    path.write_text(json.dumps(NASTY, **options) + '\n', encoding=encoding)
    file = RecordFile(path)
    assert len(file) == len(NASTY)
    for number in (*reversed(range(len(NASTY))), 3):
        assert file[number] == NASTY[number]
    with pytest.raises(IndexError):
        file[len(NASTY)]


@pytest.mark.parametrize('text', ['[]', ' [\n ]\n'])
def test_an_empty_array(tmp_path, text):
    (tmp_path / 'a.json').write_text(text)
    assert len(RecordFile(tmp_path / 'a.json')) == 0


@pytest.mark.parametrize(('name', 'count'), [('a.jsonl', 3), ('a.json', 3), ('a.jsonl', 1)])
def test_json_lines(tmp_path, name, count):
    (tmp_path / name).write_text('\n'.join(map(json.dumps, NASTY[:count])) + '\n\n')
    file = RecordFile(tmp_path / name)
    assert [file[number] for number in range(len(file))] == NASTY[:count]


@pytest.mark.parametrize(
    ('text', 'says'),
    [
        ('', 'empty'),
        ('  ', 'neither a JSON array'),
        ('hello', "neither a JSON array .*'hello'"),
        ('"text"', 'neither a JSON array'),
        ('{"images": [1, 2]}', 'one JSON object'),
        ('[1, 2', 'record 1'),
        ('[{"a": "b]', 'record 0'),
        ('[{}', 'record 0'),
        ('[1,]', 'record 1'),
        ('[,1]', 'record 0'),
        ('[1 2]', 'record 0'),
        ('[', 'record 0'),
        ('[{"a": 1}] [2]', 'continues'),
        ('[]]', 'record 0'),
        ('{"a": 1},\n{"b": 2}', 'record 1'),
        ('{"a": 1', 'record 0'),
    ],
)
def test_files_that_hold_no_array_are_named(tmp_path, text, says):
    path = tmp_path / 'a.json'
    path.write_text(text)
    with pytest.raises(DataError, match=f'a.json.*{says}'):
        RecordFile(path)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(DataError, match=r'a\.json.*No such file'):
        RecordFile(tmp_path / 'a.json')


def test_an_element_that_is_not_json_does_not_affect_others(tmp_path):
    (tmp_path / 'a.json').write_bytes(b'[{"a": 1}, {"a" 2}, {"a": "\xff"}, {"a": tru}, {"a": 5}]')
    file = RecordFile(tmp_path / 'a.json')
    for number in (1, 2, 3):
        with pytest.raises(RecordError, match='not valid JSON'):
            file[number]
    assert file[4] == {'a': 5}


def test_a_record_file_travels_between_processes(tmp_path):
    (tmp_path / 'a.json').write_text(json.dumps(NASTY))
    file = pickle.loads(pickle.dumps(RecordFile(tmp_path / 'a.json')))
    assert [file[number] for number in range(len(file))] == NASTY


def record(text, **changes):
    ann = [json.dumps({'size': [12, 16], 'counts': [24, 6, 162]})]
    annotation = {'type': 'phrase', 'text': text, 'ann_type': 'mask', 'ann': ann}
    return {'type': 'seg', 'image': 'a.png', 'height': 12, 'width': 16, 'annotation': [annotation], **changes}


@pytest.fixture
def write(tmp_path):
    """Return a function (name, records) that writes a Source; its images are a.png, 16 x 12 px, and b.png, 8 x 8."""
    Image.new('RGB', (16, 12), (200, 30, 40)).save(tmp_path / 'a.png')
    Image.new('RGB', (8, 8)).save(tmp_path / 'b.png')

    def write(name, records, repeat=1):
        (tmp_path / name).write_text(json.dumps(records))
        return Source(tmp_path / name, tmp_path, repeat)

    return write


def phrases(mix):
    return [mix[index].turns[0].phrases[0] for index in range(len(mix))]


def questions(mix):
    return [mix[index].turns[0].question for index in range(len(mix))]


def test_files_are_repeated(write):
    sources = [write('a.json', [record('a'), record('b')], 3), write('no.json', []), write('c.json', [record('c')], 2)]
    mix = RecordDataset(sources, 10)
    assert len(mix) == 8
    assert phrases(mix) == ['a', 'b'] * 3 + ['c'] * 2
    assert mix[0].pixels.shape == (3, 12, 16)
    assert mix[0].pixels[0, 0, 0] == 200
    for index in (8, -1):
        with pytest.raises(IndexError):
            mix[index]


def test_questions_depend_on_seed_epoch_and_index(write):
    source = write('a.json', [record('a')] * 8, 2)
    mix, same, other = (
        RecordDataset([source], 10, seed=1),
        RecordDataset([source], 10, seed=1),
        RecordDataset([source], 10, seed=2),
    )
    first = questions(mix)
    assert questions(mix) == first == list(reversed([same[i].turns[0].question for i in reversed(range(16))]))
    assert first != questions(other)
    assert first[:8] != first[8:]
    mix.set_epoch(1)
    assert questions(mix) != first
    mix.set_epoch(0)
    assert questions(mix) == first


BROKEN = [
    record('no mask', annotation=[]), record('no file', image='none.png'), record('other size', image='b.png'),
    record('text', image='good.json'), 'no record',
]  # fmt: skip


def test_the_next_record_replaces_a_broken_one(write, caplog):
    good = write('good.json', [record('a')])
    mix = RecordDataset([write('bad.json', [record('b'), *BROKEN], 2), good], 10)
    with caplog.at_level(logging.WARNING):
        assert phrases(mix) == ['b'] * 7 + ['a'] * 6
        assert questions(mix)[1] == questions(mix)[6]
    assert mix.broken == len(BROKEN) == len(caplog.records)
    assert [f'record {number} of ' in caplog.text for number in range(7)] == [False] + [True] * 5 + [False]
    assert 'bad.json' in caplog.text
    assert 'none.png: No such file' in caplog.text
    assert 'good.json: it is not an image' in caplog.text
    assert '8 x 8 px, the record says width 16 and height 12' in caplog.text


def test_the_last_gives_way_to_the_first(write):
    assert phrases(RecordDataset([write('a.json', [record('a'), BROKEN[0]])], 10)) == ['a', 'a']


def broken_at(mix):
    """Return the number of samples that a dataset gives before it stops, and its reason."""
    for index in range(len(mix)):
        try:
            mix[index]
        except DataError as error:
            return index, str(error)
    return len(mix), ''


def test_more_broken_records_than_allowed_stop(write):
    good, bad = [record('a')] * 50, [record('x', image=f'{number}.png') for number in range(11)]
    assert broken_at(RecordDataset([write('a.json', good + bad[:10] + good)], 10)) == (110, '')
    index, why = broken_at(RecordDataset([write('a.json', good + bad + good)], 10))
    assert index == 50
    assert why.startswith('11 of 61 records are broken')
    assert 'record 60 of' in why
    assert '10.png: No such file' in why
    assert '7.png' not in why
    assert broken_at(RecordDataset([write('a.json', good + bad + good)], 10, max_broken_share=0.2)) == (111, '')


def test_no_usable_record_at_all_stops(write):
    with pytest.raises(DataError, match=r'not one record can be used.*record 1 of .*JSON object'):
        RecordDataset([write('a.json', [*BROKEN[:1], 'no record'])], 10)[0]
    for sources in ([], [write('a.json', [])]):
        with pytest.raises(DataError, match='no records in'):
            RecordDataset(sources, 10)


def test_workers_share_epoch_and_counts(write):
    source = write('a.json', [record(f'n{number}') for number in range(12)] + BROKEN)
    mix, here = RecordDataset([source], 10), RecordDataset([source], 10)
    loader = DataLoader(mix, 3, num_workers=2, collate_fn=list, persistent_workers=True)
    for epoch in (0, 1):
        mix.set_epoch(epoch)
        here.set_epoch(epoch)
        turns = [sample.turns[0] for samples in loader for sample in samples]
        assert [turn.phrases[0] for turn in turns] == phrases(here)
        assert [turn.question for turn in turns] == questions(here)
        assert mix.broken == here.broken == len(BROKEN)


def test_a_mix_may_be_sent_to_a_process(write):
    mix = RecordDataset([write('a.json', [record('a'), record('b')]), write('c.json', [record('c')], 2)], 10)
    mix.set_epoch(3)
    assert questions(pickle.loads(pickle.dumps(mix))) == questions(mix)


def test_an_error_leaves_a_worker_as_it_is(write):
    mix = RecordDataset([write('a.json', [record('x', image=f'{number}.png') for number in range(20)])], 10)
    with pytest.raises(DataError, match=r'1\d of 1\d records are broken'):
        list(DataLoader(mix, 2, num_workers=2, collate_fn=list))


def test_a_mixing_list(write, tmp_path):
    a, b = write('a.json', [record('a')]), write('b.json', [record('b')], 4)
    absolute = {'annotations': str(b.annotations), 'images': str(b.images), 'repeat': 4}
    entries = [{'annotations': 'a.json', 'images': '.'}, absolute]
    assert mixing_list(entries, tmp_path) == [a, b]
    assert phrases(RecordDataset(mixing_list(tuple(entries), tmp_path), 10)) == ['a'] + ['b'] * 4


@pytest.mark.parametrize(
    ('entries', 'says'),
    [
        ([], 'has entries'),
        ({'annotations': 'a.json'}, 'has entries'),
        (None, 'has entries'),
        (['a.json'], "entry 0 .*'a.json'"),
        ([{'annotations': 'a.json', 'images': '.'}, {'images': '.'}], 'entry 1 .*annotations, got None'),
        ([{'annotations': 'a.json'}], 'images'),
        ([{'annotations': 7, 'images': '.'}], 'annotations, got 7'),
        ([{'annotations': 'a.json', 'images': '.', 'weight': 2, 3: 4}], 'unknown keys: weight, 3'),
        ([{'annotations': 'none.json', 'images': '.'}], 'no file .*none.json'),
        ([{'annotations': 'a.json', 'images': 'none'}], 'no folder .*none'),
        *[
            ([{'annotations': 'a.json', 'images': '.', 'repeat': repeat}], 'whole number')
            for repeat in (0, 1.5, '2', True)
        ],
    ],
)
def test_invalid_mixing_lists(write, tmp_path, entries, says):
    write('a.json', [record('a')])
    with pytest.raises(ValueError, match=says) as caught:
        mixing_list(entries, tmp_path)
    assert isinstance(caught.value, DataError)

"""ReasonSeg in both layouts; a broken file fails alone."""

import json
from pathlib import Path

import numpy as np
import pytest
from benchmark_files import (
    CUP,
    HEIGHT,
    LID,
    SIZE,
    WIDTH,
    assert_masks,
    block,
    decoded_masks,
    queries_by_id,
    rle,
    write_annotations,
    write_image,
)
from PIL import Image

from instructsam.train.evaluation.readers import read_benchmark


def outline(label, rows, columns):
    """Return LabelMe's outline of the pixels of `block`; the outline itself belongs to the mask."""
    (y0, y1), (x0, x1) = rows, columns
    return {'label': label, 'points': [[x0, y0], [x1 - 0.1, y0], [x1 - 1, y1 - 1], [x0, y1 - 1]]}


LARGE, SMALL, TINY = ((2, 16), (2, 20)), ((4, 12), (5, 15)), ((6, 9), (7, 11))


@pytest.mark.parametrize('folder', ['.', '..', 'val'])
def test_reasonseg(reasonseg, folder):
    data = reasonseg(
        b=(
            {
                'text': 'the cup',
                'is_sentence': False,
                'shapes': [
                    outline('target', (1, 4), (1, 5)),
                    outline('Target', (10, 14), (20, 28)),
                    outline('flag', (0, 20), (0, 30)),
                ],
            },
            SIZE,
        ),
        a=(
            {'text': ['What holds tea?', 'What breaks?'], 'is_sentence': True, 'shapes': [outline('target', *LARGE)]},
            SIZE,
        ),
    )
    images = read_benchmark('reasonseg', (data / folder).resolve(), 'val')
    assert [Path(image.image).name for image in images] == ['a.jpg', 'b.jpg']
    assert [(q.id, q.text, q.form, q.groups) for image in images for q in image.queries] == [
        ('a', 'What holds tea?', 'long', {'form': 'long'}),
        ('b', 'the cup', 'short', {'form': 'short'}),
    ]
    found = queries_by_id(images)
    assert_masks(found['a'], block(*LARGE))
    assert_masks(found['b'], block((1, 4), (1, 5)) | block((10, 14), (20, 28)))  # all outlines are merged into one mask
    assert found['b'].ignore is None


@pytest.mark.parametrize('order', [(0, 1, 2), (2, 1, 0), (1, 2, 0)])
@pytest.mark.parametrize(('outer', 'inner'), [('target', 'ignore'), ('ignore', 'target')])
def test_reasonseg_smaller_outlines_win(reasonseg, order, outer, inner):
    shapes = [outline(outer, *LARGE), outline(inner, *SMALL), outline(outer, *TINY)]
    record = {'text': ['x'], 'is_sentence': True, 'shapes': [shapes[i] for i in order]}
    [image] = read_benchmark('reasonseg', reasonseg(a=(record, SIZE)), 'val')
    found = {outer: (block(*LARGE) & ~block(*SMALL)) | block(*TINY), inner: block(*SMALL) & ~block(*TINY)}
    assert_masks(image.queries[0], found['target'])
    np.testing.assert_array_equal(image.queries[0].ignore.decode(), found['ignore'])


def test_reasonseg_images_upright(reasonseg):
    """A photograph with an EXIF rotation is evaluated upright, as viewers show it."""
    data = reasonseg(a=({'text': 'x', 'is_sentence': True, 'shapes': [outline('target', (22, 28), (3, 9))]}, None))
    exif = Image.Exif()
    exif[0x112] = 6
    write_image(data / 'val' / 'a.jpg', SIZE, exif=exif)
    [mask] = decoded_masks(queries_by_id(read_benchmark('reasonseg', data, 'val'))['a'])
    assert mask.shape == (WIDTH, HEIGHT)
    assert mask[22:28, 3:9].all()
    assert mask.sum() == 36


def test_reasonseg_windows_encodings(reasonseg):
    record = {'text': 'the café\u2019s sign', 'is_sentence': True, 'shapes': [outline('target', *LARGE)]}
    data = reasonseg(a=(record, SIZE))
    for encoding in ('utf-8', 'utf-8-sig', 'cp1252'):
        (data / 'val' / 'a.json').write_text(json.dumps(record, ensure_ascii=False), encoding=encoding)
        assert queries_by_id(read_benchmark('reasonseg', data, 'val'))['a'].text == 'the café\u2019s sign'


@pytest.mark.parametrize(
    ('changes', 'size', 'message'),
    [
        ({}, None, 'a.jpg'),
        ({'shapes': []}, SIZE, 'list of shapes'),
        ({'shapes': [7]}, SIZE, 'a label and points'),
        ({'shapes': [{'label': 'target'}]}, SIZE, 'points [x, y]'),
        ({'shapes': [{'label': 'target', 'points': [[1, 2], [3]]}]}, SIZE, 'points [x, y]'),
        ({'shapes': [{'label': 'target', 'points': [[1, 2], [3, 1e12]]}]}, SIZE, 'near the image'),
        ({'shapes': [{'label': 'target', 'points': [[1, 2], [3, float('nan')]]}]}, SIZE, 'near the image'),
        ({'shapes': [outline('ignore', *LARGE)]}, SIZE, 'no pixel'),
        ({'is_sentence': 'maybe'}, SIZE, 'is_sentence'),
        ({'text': [5]}, SIZE, 'text'),
        ({'text': []}, SIZE, 'text, is_sentence and shapes'),
    ],
)
def test_reasonseg_broken_files_fail_alone(reasonseg, changes, size, message):
    whole = {'text': 'x', 'is_sentence': True, 'shapes': [outline('target', *LARGE)]}
    found = queries_by_id(
        read_benchmark('reasonseg', reasonseg(a=({**whole, **changes}, size), b=(whole, SIZE)), 'val')
    )
    assert list(found) == ['a', 'b']
    assert 'a.json' in found['a'].error
    assert message in found['a'].error
    assert_masks(found['b'], block(*LARGE))


def test_reasonseg_files_that_cannot_be_read_fail_alone(reasonseg):
    whole = {'text': 'x', 'is_sentence': True, 'shapes': [outline('target', *LARGE)]}
    data = reasonseg(a=(whole, SIZE), b=(whole, SIZE), c=(whole, SIZE))
    (data / 'val' / 'a.json').write_text('{"text":')
    (data / 'val' / 'b.json').unlink()
    found = queries_by_id(read_benchmark('reasonseg', data, 'val'))
    assert 'a.json: it is not valid JSON' in found['a'].error
    assert 'b.json' in found['b'].error
    assert_masks(found['c'], block(*LARGE))


def test_reasonseg_converted(tmp_path):
    write_annotations(
        tmp_path / 'test.json',
        [
            {'image': 'a.jpg', 'question': 'why?', 'is_sentence': True, 'mask': rle(CUP), 'ignore_mask': rle(LID)},
            {'image': 'a.jpg', 'question': 'cup', 'is_sentence': False, 'mask': rle(CUP), 'ignore_mask': None},
            {'image': 'b.jpg', 'question': 'none', 'is_sentence': 0, 'mask': None, 'ignore_mask': rle(np.zeros(SIZE))},
            {'image': 'b.jpg', 'question': 'broken', 'is_sentence': None, 'mask': rle(CUP), 'ignore_mask': None},
        ],
    )
    write_image(tmp_path / 'a.jpg')
    found = queries_by_id(read_benchmark('reasonseg', tmp_path, 'test'))
    assert [query.form for query in found.values()] == ['long', 'short', 'short', 'short']
    assert found['0'].groups == {'form': 'long'}
    assert_masks(found['0'], CUP)
    np.testing.assert_array_equal(found['0'].ignore.decode(), LID)
    assert_masks(found['1'], CUP)
    assert_masks(found['2'])
    assert found['1'].ignore is found['2'].ignore is None
    assert 'is_sentence' in found['3'].error

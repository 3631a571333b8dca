"""Inst2Seg; broken records and masks fail alone."""

import json

import numpy as np
import pytest
from benchmark_files import (
    BOX,
    CUP,
    HEIGHT,
    LID,
    SIZE,
    WIDTH,
    assert_masks,
    polygon,
    queries_by_id,
    rle,
    write_annotations,
    write_image,
)

from instructsam.train.evaluation.readers import read_benchmark


def test_inst2seg(tmp_path):
    header = {'image': 'folder/a.jpg', 'height': HEIGHT, 'width': WIDTH}
    write_annotations(
        tmp_path / 'test.json',
        [
            {
                **header,
                'annotation': [
                    {'text': 'the cup', 'mask': rle(CUP)},
                    {'text': 'the lid', 'mask': polygon((2, 4), (20, 28))},
                    {'text': 'both', 'mask': [rle(CUP, compressed=False), polygon((2, 4), (20, 28))]},
                    {'text': 'no dog'},
                    {'text': 'no cat', 'mask': None},
                    {'text': 'no cow', 'mask': []},
                ],
            },
            {**header, 'image': 'folder/b.jpg', 'annotation': json.dumps([{'text': 'the box', 'mask': rle(BOX)}])},
        ],
    )
    write_image(tmp_path / 'photos' / 'b.jpg')  # one existing image is enough to find the folder
    images = read_benchmark('inst2seg', tmp_path, 'test', images=tmp_path / 'photos')
    assert [image.image for image in images] == [str(tmp_path / 'photos' / name) for name in ('a.jpg', 'b.jpg')]
    found = queries_by_id(images)
    assert list(found) == ['0-0', '0-1', '0-2', '0-3', '0-4', '0-5', '1-0']
    assert found['0-3'].text == 'no dog'
    for query, expected in zip(found.values(), [[CUP], [LID], [CUP, LID], [], [], [], [BOX]], strict=True):
        assert_masks(query, *expected)


@pytest.mark.parametrize(
    ('mask', 'message'),
    [
        (rle(CUP[:10]), 'of size [10, 30] on an image of [20, 30]'),
        ({'size': list(SIZE), 'counts': rle(CUP)['counts'][:-1] + 'o'}, 'truncated'),
        ({'size': list(SIZE), 'counts': [5, 5]}, 'add up to 10'),
        ({'size': list(SIZE)}, 'counts'),
        ('{"size":', 'not valid JSON'),
        (rle(np.zeros(SIZE)), 'no pixel'),
        ([3, 3, 3, 3, 3, 3], 'no pixel'),
        ([3, 3, 9, 9], 'three points or more'),
        ([[3, 3, 9, 9, 1e9, 3]], 'near the image'),
        ([rle(CUP), None], 'RLE or polygons'),
        (7, 'RLE, polygons or a list'),
    ],
)
def test_broken_masks(tmp_path, mask, message):
    annotations = [{'text': 'broken', 'mask': mask}, {'text': 'whole', 'mask': rle(CUP)}]
    write_annotations(
        tmp_path / 'test.json', [{'image': 'a.jpg', 'height': HEIGHT, 'width': WIDTH, 'annotation': annotations}]
    )
    found = queries_by_id(read_benchmark('inst2seg', tmp_path, 'test'))
    assert found['0-0'].error.startswith(f'{tmp_path / "test.json"}, record 0, annotation 0: ')
    assert message in found['0-0'].error
    assert found['0-0'].text == 'broken'
    assert_masks(found['0-1'], CUP)


@pytest.mark.parametrize(
    'record',
    [
        5,
        {},
        {'image': 'a.jpg', 'annotation': []},
        {'image': 'a.jpg', 'annotation': 'no JSON'},
        {'image': 'a.jpg', 'height': HEIGHT, 'annotation': [{'text': 'no width'}]},
        {'image': 'a.jpg', 'height': HEIGHT, 'width': '30', 'annotation': [{'text': 'a width that is a text'}]},
        {'image': None, 'height': HEIGHT, 'width': WIDTH, 'annotation': [{'text': 'no image'}]},
        {'image': 'a.jpg', 'height': HEIGHT, 'width': WIDTH, 'annotation': [7]},
    ],
)
def test_inst2seg_broken_records_fail_alone(tmp_path, record):
    whole = {'image': 'a.jpg', 'height': HEIGHT, 'width': WIDTH, 'annotation': [{'text': 'the cup', 'mask': rle(CUP)}]}
    write_annotations(tmp_path / 'test.json', [record, whole])
    found = list(queries_by_id(read_benchmark('inst2seg', tmp_path, 'test')).values())
    assert [bool(query.error) for query in sorted(found, key=lambda query: query.id)] == [True, False]
    assert 'record 0' in next(query.error for query in found if query.error)

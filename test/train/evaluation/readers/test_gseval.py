"""GSEval in both layouts."""

from pathlib import Path

import pytest
from benchmark_files import CUP, LID, assert_masks, polygon, queries_by_id, rle, write_annotations, write_image

from instructsam.train.evaluation.readers import read_benchmark


@pytest.mark.parametrize('name', ['GroundingSuite-Eval.jsonl', 'a.jsonl', 'eval.json', 'gseval_eval.json', 'a.json'])
@pytest.mark.parametrize('place', ['unlabeled2017', 'images/unlabeled2017', 'images', '.'])
def test_gseval(tmp_path, name, place):
    rows = [
        {
            'idx': 40 + i,
            'image_path': f'unlabeled2017/{i % 2}.jpg',
            'class_id': class_id,
            'label': 'x',
            'box': [],
            'caption': f'text {i}',
            'segmentation': rle(CUP),
        }
        for i, class_id in enumerate([1, 2, 3, 4, 9])
    ]
    rows[1]['segmentation'] = polygon((2, 8), (3, 9)) + polygon((2, 4), (20, 28))
    rows[2]['segmentation'] = None
    write_annotations(tmp_path / name, rows)
    for file in ('0.jpg', '1.jpg'):
        write_image(tmp_path / place / file)
    images = read_benchmark('gseval', tmp_path, 'eval')
    assert all(Path(image.image).is_file() for image in images)
    found = queries_by_id(images)
    assert sorted(found) == ['40', '41', '42', '43', '44']
    assert [found[query_id].groups.get('class') for query_id in sorted(found)] == [
        'stuff',
        'part',
        'multi',
        'single',
        None,
    ]
    assert found['43'].text == 'text 3'
    assert_masks(found['40'], CUP)
    assert_masks(found['41'], CUP | LID)
    assert 'under segmentation' in found['42'].error
    assert 'class_id must be 1, 2, 3 or 4, got 9' in found['44'].error


def test_gseval_run_lengths_need_no_image(tmp_path):
    row = {'idx': 0, 'image_path': 'unlabeled2017/0.jpg', 'class_id': 1, 'caption': 'x', 'segmentation': rle(CUP)}
    write_annotations(tmp_path / 'set.jsonl', [row, {**row, 'idx': 1, 'segmentation': polygon((2, 8), (3, 9))}])
    [image] = read_benchmark('gseval', tmp_path, 'eval')
    assert image.image == str(tmp_path / 'unlabeled2017' / '0.jpg')
    assert_masks(image.queries[0], CUP)
    assert 'the image is missing' in image.queries[1].error
    file = tmp_path / 'unlabeled2017' / '0.jpg'
    write_image(file, (40, 40))
    assert 'of size [20, 30] on an image of [40, 40]' in read_benchmark('gseval', tmp_path, 'eval')[0].queries[0].error
    file.write_bytes(b'not an image')
    assert 'the image cannot be read' in read_benchmark('gseval', tmp_path, 'eval')[0].queries[0].error

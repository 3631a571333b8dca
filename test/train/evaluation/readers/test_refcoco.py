"""RefCOCO in its original layout; a broken ref fails alone."""

from pathlib import Path

import pytest
from benchmark_files import CUP, LID, assert_masks, instances, queries_by_id, ref, write_annotations, write_image

from instructsam.core.errors import DataError
from instructsam.train.evaluation.readers import read_benchmark


@pytest.mark.parametrize('folder', ['.', 'refcoco', 'refcoco+', 'refcocog'])
@pytest.mark.parametrize('place', ['train2014', 'images/train2014', 'images', '.', '../images/mscoco/images/train2014'])
def test_refcoco(tmp_path, folder, place):
    data = tmp_path / 'data'
    write_annotations(
        data / folder / 'refs(unc).p', [ref(1, 'cup', 'mug', first=5), ref(2, 'lid', split='testA', first=7)]
    )
    write_annotations(data / folder / 'instances.json', instances())
    write_image(data / place / 'COCO_train2014_7.jpg')
    [image] = read_benchmark('refcoco', data, 'val')
    assert Path(image.image).is_file()
    assert [(query.id, query.text) for query in image.queries] == [('5', 'cup'), ('6', 'mug')]
    assert_masks(image.queries[1], CUP)
    [image] = read_benchmark('refcoco', data / folder / 'refs(unc).p', 'testA', images=(data / place).resolve())
    assert Path(image.image).is_file()
    assert_masks(image.queries[0], LID)


@pytest.mark.parametrize(
    ('broken', 'message'),
    [
        (ref(99, 'x'), 'no annotation 99 of the image 7'),
        (ref(4, 'x'), 'no annotation 4 of the image 7'),
        (ref(5, 'x', image=8), 'no pixel'),
        (ref(6, 'x', image=8), 'of size [9, 30] on an image of [20, 30]'),
        (ref([[1]], 'x'), 'ann_id must be'),
        (ref(None, 'x'), 'ann_id must be'),
        (ref(1, 'x', image=9), 'its image is not named, or unknown'),
        (ref(1, 'x', image=[7]), 'its image is not named, or unknown'),
        (ref(1, ''), "a text under 'sent'"),
        (ref(1), 'list of sentences'),
        (ref(1, 'x', split=None), 'a ref needs a split'),
        ({**ref(1), 'sentences': [3]}, "a text under 'raw'"),
    ],
)
def test_refcoco_broken_refs_fail_alone(tmp_path, broken, message):
    write_annotations(tmp_path / 'refs(unc).p', [broken, ref(1, 'cup', first=5)])
    write_annotations(tmp_path / 'instances.json', instances())
    found = queries_by_id(read_benchmark('refcoco', tmp_path, 'val'))
    assert_masks(found.pop('5'), CUP)
    [query] = found.values()
    assert 'refs(unc).p, record 0' in query.error
    assert message in query.error


def test_refcoco_text_falls_back_to_raw(tmp_path):
    write_annotations(tmp_path / 'refs(umd).p', [{**ref(1), 'sentences': [{'sent_id': 3, 'raw': 'The Cup'}]}])
    write_annotations(tmp_path / 'instances.json', instances())
    assert queries_by_id(read_benchmark('refcoco', tmp_path, 'val'))['3'].text == 'The Cup'


def test_refcoco_of_several_splits(tmp_path):
    write_annotations(tmp_path / 'refs(unc).p', [ref(1, 'cup')])
    write_annotations(tmp_path / 'refs(google).p', [ref(2, 'lid')])
    write_annotations(tmp_path / 'instances.json', instances())
    with pytest.raises(DataError, match=r'refs\(google\).p, refs\(unc\).p, expected one of them.*--split-by'):
        read_benchmark('refcoco', tmp_path, 'val')
    with pytest.raises(DataError, match=r'expected umd.*--split-by'):
        read_benchmark('refcoco', tmp_path, 'val', split_by='umd')
    assert_masks(queries_by_id(read_benchmark('refcoco', tmp_path, 'val', split_by='google'))['0'], LID)


def test_refcoco_of_several_sets(tmp_path):
    for name in ('refcoco', 'refcoco+'):
        write_annotations(tmp_path / name / 'refs(unc).p', [ref(1, 'cup')])
        write_annotations(tmp_path / name / 'instances.json', instances())
    with pytest.raises(DataError, match=r'has refcoco, refcoco\+. Point --data at one'):
        read_benchmark('refcoco', tmp_path, 'val')
    assert read_benchmark('refcoco', tmp_path / 'refcoco+', 'val')

"""Folders, splits, image paths and files of whole data sets; errors of a broken data set say what to do."""

import gc
import json
import os

import pytest
from benchmark_files import CUP, HEIGHT, SIZE, WIDTH, instances, ref, rle, write_annotations, write_image

from instructsam.core.errors import DataError
from instructsam.train.evaluation.readers import READERS, read_benchmark


def inst2seg(*texts, image='a.jpg'):
    """Return records of Inst2Seg with one text each."""
    return [{'image': image, 'height': HEIGHT, 'width': WIDTH, 'annotation': [{'text': text}]} for text in texts]


def test_absolute_paths(tmp_path):
    write_image(tmp_path / 'far' / 'a.jpg')
    write_annotations(tmp_path / 'data' / 'test.json', inst2seg('x', image=str(tmp_path / 'far' / 'a.jpg')))
    assert read_benchmark('inst2seg', tmp_path / 'data', 'test')[0].image == str(tmp_path / 'far' / 'a.jpg')
    write_annotations(tmp_path / 'data' / 'test.json', inst2seg('x', image='/other/machine/a.jpg'))
    assert read_benchmark('inst2seg', tmp_path / 'data', 'test', tmp_path / 'far')[0].image == str(
        tmp_path / 'far' / 'a.jpg'
    )


def test_missing_images_get_a_path(tmp_path):
    write_annotations(tmp_path / 'test.json', inst2seg('x', image='../sub/a.jpg'))
    (tmp_path / 'images').mkdir()
    for images in (None, tmp_path / 'images'):
        assert read_benchmark('inst2seg', tmp_path, 'test', images)[0].image == str(
            (images or tmp_path) / 'sub' / 'a.jpg'
        )


def test_few_images_are_probed(tmp_path, monkeypatch):
    probed, is_file = [], os.path.isfile
    monkeypatch.setattr('os.path.isfile', lambda path: probed.append(path) or is_file(path))
    write_image(tmp_path / '5000.jpg')
    write_annotations(
        tmp_path / 'test.json', [record for i in range(10000) for record in inst2seg('x', image=f'{i}.jpg')]
    )
    assert len(read_benchmark('inst2seg', tmp_path, 'test')) == 10000
    assert 0 < len(probed) < 500


@pytest.mark.parametrize('benchmark', READERS)
def test_missing_folders(tmp_path, benchmark):
    split = {'inst2seg': 'test', 'gseval': 'eval', 'roborefit': 'testA'}.get(benchmark, 'val')
    with pytest.raises(DataError, match=f'there is no .*nowhere. --data is the folder of {benchmark}'):
        read_benchmark(benchmark, tmp_path / 'nowhere', split)
    with pytest.raises(DataError, match=r'there is no folder .*nowhere. --images is'):
        read_benchmark(benchmark, tmp_path, split, images=tmp_path / 'nowhere')
    with pytest.raises(DataError, match=f"{benchmark} has no split 'tset'; its splits are .*{split}"):
        read_benchmark(benchmark, tmp_path, 'tset')


@pytest.mark.parametrize('benchmark', READERS)
def test_folders_in_no_layout(tmp_path, benchmark):
    split = {'inst2seg': 'test', 'gseval': 'eval', 'roborefit': 'testA'}.get(benchmark, 'val')
    with pytest.raises(DataError, match=f'nothing in it, which is not a layout of {benchmark}') as caught:
        read_benchmark(benchmark, tmp_path, split)
    assert f'\n    DATA/\n      {split}.json' in str(caught.value)
    assert 'SPLIT' not in str(caught.value)
    assert ('original' in str(caught.value)) == (benchmark != 'inst2seg')
    for name in ('readme.txt', 'x.json', 'y.json'):
        write_annotations(tmp_path / name, [])
    with pytest.raises(DataError, match=r'has readme.txt, x.json, y.json, which is not a layout'):
        read_benchmark(benchmark, tmp_path, split)
    (tmp_path / 'y.json').unlink()
    write_annotations(tmp_path / 'x.json', [{'foo': 1, 'bar': 2}])
    for data in (tmp_path, tmp_path / 'x.json'):
        with pytest.raises(DataError, match=r'x.json has records with the keys foo, bar, which is not a layout'):
            read_benchmark(benchmark, data, split)
    with pytest.raises(DataError, match=r'readme.txt'):
        read_benchmark(benchmark, tmp_path / 'readme.txt', split)


def test_missing_splits(tmp_path, roborefit, reasonseg):
    with pytest.raises(DataError, match="no split 'testB' of roborefit; it has testA"):
        read_benchmark('roborefit', roborefit(), 'testB')
    with pytest.raises(DataError, match="no split 'test' of reasonseg; it has val"):
        read_benchmark('reasonseg', reasonseg(a=({'text': 'x', 'is_sentence': True, 'shapes': []}, SIZE)), 'test')
    write_annotations(tmp_path / 'refs' / 'refs(unc).p', [ref(1, 'cup'), ref(1, 'cup', split='testA')])
    with pytest.raises(DataError, match="no split 'train' of refcoco; it has testA, val"):
        read_benchmark('refcoco', tmp_path / 'refs', 'train')
    for name in ('refcoco_val.json', 'refcoco_testB.json'):
        write_annotations(
            tmp_path / 'converted' / name, [{'image': 'a', 'height': 5, 'width': 5, 'cat': ['x'], 'masks': [None]}]
        )
    with pytest.raises(DataError, match="no split 'testA' of refcoco; it has val, testB"):
        read_benchmark('refcoco', tmp_path / 'converted', 'testA')
    with pytest.raises(DataError, match=r'refcoco_testB.json is named after the split testB, not testA'):
        read_benchmark('refcoco', tmp_path / 'converted' / 'refcoco_testB.json', 'testA')
    assert read_benchmark('refcoco', tmp_path / 'converted' / 'refcoco_testB.json', 'testB')


def test_several_annotation_files(tmp_path):
    for name in ('refcoco_val.json', 'refcoco+_val.json'):
        write_annotations(tmp_path / name, [{'image': 'a', 'height': 5, 'width': 5, 'cat': ['x'], 'masks': [None]}])
    with pytest.raises(DataError, match=r'has refcoco\+_val.json, refcoco_val.json, expected one of them'):
        read_benchmark('refcoco', tmp_path, 'val')


@pytest.mark.parametrize(
    ('content', 'message'),
    [
        ('[]', 'test.json is empty'),
        ('{}', 'test.json holds a dict, expected a list'),
        ('[{"image": "a.jpg"', 'test.json is not valid JSON: .*line 1.*truncated'),
        ('[' * 100000, 'test.json is not valid JSON'),
        (b'\xff\xfe\xfd', 'test.json is not valid JSON'),
    ],
)
def test_files_that_are_not_a_list(tmp_path, content, message):
    (tmp_path / 'test.json').write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(DataError, match=message):
        read_benchmark('inst2seg', tmp_path, 'test')


def test_truncated_lines(tmp_path):
    row = {'idx': 0, 'image_path': '0.jpg', 'class_id': 1, 'caption': 'a\u2028b', 'segmentation': rle(CUP)}
    file = write_annotations(tmp_path / 'set.jsonl', [row])
    file.write_text(json.dumps(row, ensure_ascii=False) + '\n\n' + json.dumps(row)[:-9])
    with pytest.raises(DataError, match=r'set.jsonl, line 3, is not valid JSON'):
        read_benchmark('gseval', tmp_path, 'eval')
    file.write_text('\n')
    with pytest.raises(DataError, match=r'set.jsonl is empty'):
        read_benchmark('gseval', tmp_path, 'eval')


def test_ids_are_unique(tmp_path):
    row = {'image_path': '0.jpg', 'class_id': 1, 'caption': 'x', 'segmentation': rle(CUP)}
    write_annotations(tmp_path / 'set.jsonl', [{'idx': query_id, **row} for query_id in (1, 2, 2, 3, 1)])
    with pytest.raises(DataError, match=r'set.jsonl has duplicate ids, .*: 1, 2. Renumber'):
        read_benchmark('gseval', tmp_path, 'eval')
    write_annotations(tmp_path / 'refs(unc).p', [ref(1, 'cup', first=5), ref(2, 'lid', first=5)])
    write_annotations(tmp_path / 'instances.json', instances())
    with pytest.raises(DataError, match=r'duplicate ids, .*: 5'):
        read_benchmark('refcoco', tmp_path, 'val')


def test_garbage_is_collected_again(tmp_path):
    write_annotations(tmp_path / 'test.json', inst2seg('x'))
    read_benchmark('inst2seg', tmp_path, 'test')
    assert gc.isenabled()
    write_annotations(tmp_path / 'test.json', [])
    with pytest.raises(DataError):
        read_benchmark('inst2seg', tmp_path, 'test')
    assert gc.isenabled()

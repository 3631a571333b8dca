"""The layouts that gRefCOCO and RefCOCO share: refs beside instances.json, and converted."""

from pathlib import Path

import pytest
from benchmark_files import (
    BOX,
    CUP,
    HEIGHT,
    LID,
    WIDTH,
    assert_masks,
    polygon,
    queries_by_id,
    ref,
    rle,
    write_annotations,
    write_image,
)

from instructsam.core.errors import DataError
from instructsam.train.evaluation.readers import read_benchmark


@pytest.mark.parametrize('benchmark', ['grefcoco', 'refcoco'])
def test_refs_need_their_instances(tmp_path, benchmark):
    write_annotations(tmp_path / {'grefcoco': 'grefs(unc).json', 'refcoco': 'refs(unc).p'}[benchmark], [ref(1, 'cup')])
    with pytest.raises(DataError, match=r'there is no .*instances.json'):
        read_benchmark(benchmark, tmp_path, 'val')
    write_annotations(tmp_path / 'instances.json', {'images': [{}]})
    with pytest.raises(DataError, match='no images and annotations with ids'):
        read_benchmark(benchmark, tmp_path, 'val')


@pytest.mark.parametrize('benchmark', ['grefcoco', 'refcoco'])
def test_refs_converted(tmp_path, benchmark):
    header = {'image': 'train2014/a.jpg', 'height': HEIGHT, 'width': WIDTH}
    write_annotations(
        tmp_path / f'{benchmark}_val.json',
        [
            {
                **header,
                'cat': ['cup and lid', 'box', 'nothing', 'not there'],
                'masks': [[rle(CUP), polygon((2, 4), (20, 28))], rle(BOX), None, []],
            },
            {**header, 'image': 'train2014/b.jpg', 'cat': ['cup', 5], 'masks': [rle(CUP), rle(LID)]},
            {**header, 'cat': ['one', 'two'], 'masks': [rle(CUP)]},
            {**header, 'cat': 'cup', 'masks': [rle(CUP)]},
        ],
    )
    write_image(tmp_path / 'train2014' / 'a.jpg')
    images = read_benchmark(benchmark, tmp_path, 'val')
    assert [Path(image.image).name for image in images] == ['a.jpg', 'b.jpg']
    found = queries_by_id(images)
    assert list(found) == ['0-0', '0-1', '0-2', '0-3', '2-0', '2-1', '3', '1-0', '1-1']
    for query_id, expected in {'0-0': [CUP, LID], '0-1': [BOX], '0-2': [], '0-3': [], '1-0': [CUP]}.items():
        assert_masks(found[query_id], *expected)
    assert "a text under 'cat'" in found['1-1'].error
    assert 'masks for each of its 2 texts' in found['2-0'].error
    assert (found['2-1'].text, bool(found['2-1'].error)) == ('two', True)
    assert 'list of texts under cat' in found['3'].error

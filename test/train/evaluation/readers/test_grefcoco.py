"""gRefCOCO in its original layout."""

from pathlib import Path

import pytest
from benchmark_files import BOX, CUP, LID, assert_masks, instances, queries_by_id, ref, write_annotations, write_image

from instructsam.train.evaluation.readers import read_benchmark


@pytest.mark.parametrize('folder', ['.', 'grefcoco'])
def test_grefcoco(tmp_path, folder):
    write_annotations(
        tmp_path / folder / 'grefs(unc).json',
        [
            ref([1, 2], 'cup and lid', 'what is on the box', first=10),
            ref([4], 'cup', image=8, first=12),
            ref([-1], 'a dog', first=13),
            ref(3, 'box', first=14),
            ref(-1, 'a cat', first=15),
            ref([1], 'of another split', split='train', first=16),
        ],
    )
    write_annotations(tmp_path / folder / 'instances.json', instances())
    write_image(tmp_path / 'images' / 'train2014' / 'COCO_train2014_7.jpg')
    images = read_benchmark('grefcoco', tmp_path, 'val')
    assert [Path(image.image).relative_to(tmp_path) for image in images] == [
        Path('images/train2014/COCO_train2014_7.jpg'),
        Path('images/train2014/COCO_train2014_8.jpg'),
    ]
    found = queries_by_id(images)
    assert list(found) == ['7-10', '7-11', '7-13', '7-14', '7-15', '8-12']
    assert [query.text for query in found.values()][:2] == ['cup and lid', 'what is on the box']
    for query, expected in zip(found.values(), [[CUP, LID], [CUP, LID], [], [BOX], [], [CUP | LID]], strict=True):
        assert_masks(query, *expected)

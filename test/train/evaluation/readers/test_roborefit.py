"""RoboRefIt in both layouts; a broken record fails alone."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from benchmark_files import (
    BOX,
    CUP,
    LID,
    SIZE,
    assert_masks,
    polygon,
    queries_by_id,
    rle,
    write_annotations,
    write_image,
)
from PIL import Image

from instructsam.train.evaluation.readers import read_benchmark

FRAME = Path(__file__).parents[4] / 'instructsam_ros' / 'data' / 'roborefit_frame' / 'rgb.png'


@pytest.mark.parametrize('folder', ['.', 'data', 'data/final_dataset', 'data/final_dataset/testA'])
def test_roborefit(roborefit, folder):
    images = read_benchmark('roborefit', roborefit() / folder, 'testA')
    assert [Path(image.image).name for image in images] == ['1.png', '0.png']
    assert all(Path(image.image).is_file() for image in images)
    assert [[query.id for query in image.queries] for image in images] == [['0', '1'], ['2']]
    for number, mask in enumerate([CUP, BOX, LID]):
        query = queries_by_id(images)[str(number)]
        assert (query.text, query.groups, query.form) == (f'give me thing {number}', {'scene': 'table'}, '')
        assert_masks(query, mask)


@pytest.mark.parametrize('above', ['', '../RoboRefIt/data/', 'D:/sets/', '/nowhere/'])
@pytest.mark.parametrize('separator', ['/', '\\'])
def test_roborefit_paths_of_other_machines(roborefit, above, separator):
    folder = roborefit()
    file = folder / 'data' / 'final_dataset' / 'testA' / 'roborefit_testA.json'
    records = json.loads(file.read_text())
    for record in records:
        for key in ('rgb_path', 'mask_path'):
            record[key] = (above + record[key]).replace('/', separator)
    write_annotations(file, records)
    images = read_benchmark('roborefit', folder, 'testA')
    assert all(Path(image.image).is_file() for image in images)
    assert_masks(queries_by_id(images)['2'], LID)


@pytest.mark.parametrize('mode', ['1', 'L', 'P', 'RGB', 'RGBA', 'LA', 'I;16'])
def test_roborefit_masks_in_any_mode(roborefit, mode):
    folder = roborefit()
    grey = Image.fromarray(CUP.astype(np.uint8) * 7)
    if mode == 'I;16':
        image = Image.fromarray(CUP.astype(np.uint16) * 7)
    elif mode == '1':
        image = Image.fromarray(CUP)
    elif mode == 'P':
        image = Image.fromarray(np.where(CUP, 0, 3).astype(np.uint8), mode='P')  # black is palette index 3
        image.putpalette([9, 9, 9, 1, 1, 1, 2, 2, 2, 0, 0, 0])
    else:
        image = grey.convert(mode)
    image.save(folder / 'data' / 'final_dataset' / 'testA' / 'mask' / '1' / '0.png')
    assert_masks(queries_by_id(read_benchmark('roborefit', folder, 'testA'))['0'], CUP)


def test_roborefit_of_a_real_frame(tmp_path):
    """The original layout around the frame of RoboRefIt that the demo ships."""
    size = (480, 640)
    top = tmp_path / 'final_dataset' / 'testA'
    (top / 'image').mkdir(parents=True)
    shutil.copy(FRAME, top / 'image' / '0000000.png')
    mask = np.zeros(size, dtype=bool)
    mask[100:180, 200:320] = True
    (top / 'mask' / '0000000').mkdir(parents=True)
    Image.fromarray(mask.astype(np.uint8) * 255).save(top / 'mask' / '0000000' / '0.png')
    write_annotations(
        top / 'roborefit_testA.json',
        [
            {
                'num': 0,
                'text': 'the black toy',
                'bbox': [200, 100, 320, 180],
                'scene': 'table',
                'depth_path': '',
                'rgb_path': 'final_dataset\\testA\\image\\0000000.png',
                'mask_path': 'final_dataset\\testA\\mask\\0000000\\0.png',
            }
        ],
    )
    [image] = read_benchmark('roborefit', tmp_path, 'testA')
    with Image.open(image.image) as file:
        assert file.size == size[::-1]
    assert_masks(image.queries[0], mask)


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        ({'text': ' '}, "a text under 'text'"),
        ({'text': 5}, "a text under 'text'"),
        ({'rgb_path': None}, 'its image is not named'),
        ({'mask_path': None}, 'mask_path'),
        ({'mask_path': 'x' * 5000}, 'cannot be read'),
        ({'mask_path': 'final_dataset/testA/mask/1/9.png'}, '9.png'),
        ({'mask_path': 'final_dataset/testA/roborefit_testA.json'}, 'cannot be read'),
    ],
)
def test_roborefit_broken_records_fail_alone(roborefit, changes, message):
    found = queries_by_id(read_benchmark('roborefit', roborefit(**changes), 'testA'))
    assert 'roborefit_testA.json, record 0: ' in found['0'].error
    assert message in found['0'].error
    assert not found['0'].ground_truth
    assert found['0'].text == ('' if 'text' in changes else 'give me thing 0')
    assert found['0'].groups == {'scene': 'table'}
    assert_masks(found['1'], BOX)


def test_roborefit_mask_files_have_the_size_of_the_image_and_a_pixel(roborefit):
    folder = roborefit()
    file = folder / 'data' / 'final_dataset' / 'testA' / 'mask' / '1' / '0.png'
    Image.fromarray(CUP[:10].astype(np.uint8)).save(file)
    assert '[10, 30] on an image of [20, 30]' in queries_by_id(read_benchmark('roborefit', folder, 'testA'))['0'].error
    Image.fromarray(np.zeros(SIZE, np.uint8)).save(file)
    assert 'no pixel' in queries_by_id(read_benchmark('roborefit', folder, 'testA'))['0'].error


def test_roborefit_converted(tmp_path):
    records = [
        {'image': 'a.png', 'question': 'the cup', 'masks': rle(CUP)},
        {'image': 'b.png', 'expression': 'cup and lid', 'masks': [rle(CUP), rle(LID, compressed=False)]},
        {'image': 'a.png', 'question': 'wrong size', 'masks': rle(CUP[:10])},
        {'image': 'a.png', 'question': 'an outline', 'masks': polygon((2, 8), (3, 9))},
        {'image': 'b.png', 'question': 'an outline', 'masks': polygon((2, 8), (3, 9))},
    ]
    write_image(tmp_path / 'images' / 'a.png')  # b.png is missing
    for name in ('testA.json', 'roborefit_testA.json', 'roborefit_extra_testA.json', 'anything.json'):
        file = write_annotations(tmp_path / name, records)
        images = read_benchmark('roborefit', tmp_path, 'testA')
        assert [image.image for image in images] == [str(tmp_path / 'images' / name) for name in ('a.png', 'b.png')]
        found = queries_by_id(images)
        assert_masks(found['0'], CUP)
        assert_masks(found['1'], CUP | LID)  # merged: a command refers to one object
        assert 'of size [10, 30] on an image of [20, 30]' in found['2'].error
        assert_masks(found['3'], CUP)
        assert 'the image is missing' in found['4'].error
        file.unlink()

"""Augmentation of training images: reproducible, within range, and for training alone."""

import json
from dataclasses import fields, replace

import cv2
import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from instructsam.core.rle import Rle
from instructsam.train.data.augmentation import Augmentation
from instructsam.train.data.dataset import RecordDataset
from instructsam.train.data.mixing import Source
from instructsam.train.data.scene_labels import SceneDataset
from instructsam.train.loop.recipe import RecipeError, read_recipe

NOTHING = Augmentation(**{each.name: 0 for each in fields(Augmentation)})
STRONGEST = {'exposure': 1, 'white_balance': 0.5, 'gamma': 0.5, 'saturation': 1, 'blur': 4, 'noise': 20, 'jpeg': 1}


def image(seed=0, height=40, width=56):
    smooth = np.random.default_rng(seed).random((5, 7, 3))
    return np.round(cv2.resize(smooth, (width, height)) * 255).astype(np.uint8)


def applied(augmentation, seed, original):
    return augmentation.apply(original, np.random.default_rng(seed))


@pytest.mark.parametrize('name', STRONGEST)
def test_each_change_alone_changes_the_image_a_little(name):
    original = image()
    augmentation = replace(NOTHING, share=1, **{name: STRONGEST[name]})
    changed = [applied(augmentation, seed, original) for seed in range(12)]
    for each in changed:
        assert each.shape == original.shape
        assert each.dtype == np.uint8
        assert np.corrcoef(each.ravel(), original.ravel())[0, 1] > 0.6
    assert len({each.tobytes() for each in changed}) > 4
    assert np.array_equal(original, image())


def test_no_change_is_exact():
    original = image()
    assert applied(replace(Augmentation(), share=0), 1, original) is original
    unchanged = applied(replace(NOTHING, share=1), 1, original)
    assert np.array_equal(unchanged[original < 200], original[original < 200])  # only highlights are compressed


def test_the_share_of_changed_images():
    original, augmentation = image(), Augmentation(share=0.3)
    is_changed = [applied(augmentation, seed, original) is not original for seed in range(300)]
    assert 0.2 < np.mean(is_changed) < 0.4


@pytest.fixture
def sources(tmp_path):
    """Record and scene files of six images."""
    mask = np.zeros((40, 56), bool)
    mask[5:20, 9:30] = True
    rle, header = Rle.encode(mask).to_coco(), {'height': 40, 'width': 56}
    records, scenes = [], []
    for number in range(6):
        cv2.imwrite(str(tmp_path / f'{number}.png'), image(number))
        annotation = {'type': 'phrase', 'text': 'mug', 'ann_type': 'mask', 'ann': [json.dumps(rle)]}
        records.append({'image': f'{number}.png', **header, 'annotation': [annotation]})
        scenes.append(
            {'image': f'{number}.png', **header, 'objects': [{'category': 'mug', 'color': 'red', 'mask': rle}]}
        )
    (tmp_path / 'records.json').write_text(json.dumps(records))
    (tmp_path / 'scenes.jsonl').write_text('\n'.join(map(json.dumps, scenes)))
    return [Source(tmp_path / name, tmp_path) for name in ('records.json', 'scenes.jsonl')]


def test_images_depend_on_seed_epoch_and_index_alone(sources):
    """A resumed run, or one with other workers, sees the same images; another epoch sees others."""
    records, _ = sources

    def read(workers, epoch, **options):
        dataset = RecordDataset([records], 5, seed=3, **options)
        dataset.set_epoch(epoch)
        return list(DataLoader(dataset, None, num_workers=workers, collate_fn=lambda sample: sample))

    augmentation = Augmentation(share=1)
    plain, first = read(0, 1), read(0, 1, augmentation=augmentation)
    again, later = read(2, 1, augmentation=augmentation), read(0, 2, augmentation=augmentation)
    for one, two, three, four in zip(plain, first, again, later, strict=True):
        assert one.turns[0].question == two.turns[0].question
        assert torch.equal(two.pixels, three.pixels)
        assert not torch.equal(one.pixels, two.pixels)
        assert not torch.equal(two.pixels, four.pixels)


def test_scenes_keep_their_labels(sources):
    _, scenes = sources
    plain = SceneDataset([scenes], 1, random_crop=0.5)
    changed = SceneDataset([scenes], 1, random_crop=0.5, augmentation=Augmentation(share=1))
    for index in range(6):
        assert np.array_equal(plain[index].scene.ids, changed[index].scene.ids)
        assert not np.array_equal(plain[index].image, changed[index].image)
        assert np.array_equal(changed[index].image, changed[index].image)


def test_the_setting_of_a_recipe(tmp_path):
    path = tmp_path / 'recipe.yaml'
    path.write_text('{stage: instruct, model: tabletop, output: out, data: [{annotations: a, images: b}]}')
    assert read_recipe(path).augmentation is None
    changed = read_recipe(path, ['augmentation.blur=2', 'augmentation.jpeg=0']).augmentation
    assert changed == Augmentation(blur=2, jpeg=0)
    for wrong in ('augmentation.share=1.5', 'augmentation.blur=-1', 'augmentation.noise=1e9', 'augmentation.sharpen=1'):
        with pytest.raises(RecipeError, match=wrong.partition('=')[0].rpartition('.')[2]):
            read_recipe(path, [wrong])

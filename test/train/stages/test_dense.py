"""Stages pixels and base on hand-written scenes: dense labels, batches, losses and auxiliary heads."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch.utils.data import DataLoader

from instructsam.core.builtin import FOLDER
from instructsam.core.errors import DataError
from instructsam.core.model.config import ModelConfig
from instructsam.core.model.instructsam import InstructSAMModel
from instructsam.core.model.preprocess import load_preprocessor
from instructsam.core.rle import Rle
from instructsam.train.data.collate import Collator
from instructsam.train.data.dataset import RecordDataset
from instructsam.train.data.mixing import Source
from instructsam.train.data.scene_file import read_facts
from instructsam.train.data.scene_labels import (
    CATEGORY,
    CELLS,
    COLOR,
    DenseCollator,
    LabelledCollator,
    Labels,
    SceneDataset,
    labels_at,
    scene_of,
)
from instructsam.train.loop.checkpoints import HEADS, load_auxiliary_heads
from instructsam.train.losses.dense import DenseHeads, dense_terms
from instructsam.train.stages.dense import DensePretraining
from instructsam.train.stages.detector import DetectorPretraining, noisy_boxes
from instructsam.train.stages.settings import STAGE_NAMES
from instructsam.train.stages.stage import STAGES
from instructsam.train.weights.initialise import initialise

SIDE = 224  # side of the images, px


def facts(name='a', boxes=((0, 0, 112, 112), (140, 56, 196, 168))):
    """Return a line of a scene file: a red mug and a blue book, as filled boxes."""
    objects = []
    for (category, color), (x0, y0, x1, y1) in zip((('mug', 'red'), ('book', 'blue')), boxes, strict=False):
        mask = np.zeros((SIDE, SIDE), bool)
        mask[y0:y1, x0:x1] = True
        objects.append({'category': category, 'color': color, 'mask': Rle.encode(mask).to_coco()})
    return {'image': f'images/{name}.png', 'height': SIDE, 'width': SIDE, 'objects': objects}


@pytest.fixture
def folder(tmp_path):
    """Return a folder as `instructsam tabletop generate` writes it: two scenes with one record each."""
    (tmp_path / 'images').mkdir()
    scenes = [facts('a'), facts('b')]
    for scene in scenes:
        noise = np.random.default_rng(0).integers(0, 255, (SIDE, SIDE, 3), np.uint8)
        cv2.imwrite(str(tmp_path / scene['image']), noise)
    (tmp_path / 'scenes.jsonl').write_text('\n'.join(json.dumps(scene) for scene in scenes))
    records = [
        {
            **{key: scene[key] for key in ('image', 'height', 'width')},
            'annotation': [
                {'type': 'phrase', 'text': 'red mug', 'ann': [json.dumps(scene['objects'][0]['mask'])]},
                {'type': 'phrase', 'text': 'green bowl', 'ann': None},
            ],
        }
        for scene in scenes
    ]
    (tmp_path / 'phrases.json').write_text(json.dumps(records))
    return tmp_path


@pytest.fixture(scope='module')
def small_model():
    found = InstructSAMModel(ModelConfig.from_folder(FOLDER / 'tabletop'))
    initialise(found, seed=1)
    return found.train()


@pytest.fixture
def model(small_model):
    return small_model.requires_grad_(True)


def scenes(folder):
    return SceneDataset([Source(folder / 'scenes.jsonl', folder)])


def test_labels():
    labels = labels_at([scene_of(read_facts(facts()))], [(8, 8)])
    mug, book = CATEGORY['mug'], CATEGORY['book']
    assert labels.category[0, :4, :4].unique().tolist() == [mug]
    assert labels.category[0, 2:6, 5:7].unique().tolist() == [book]
    assert (labels.category[0] == book).sum() == 8
    assert (labels.category[0] == 0).sum() == 40
    assert labels.color[0, 0, 0] == COLOR['red']
    assert labels.color[0, 3, 5] == COLOR['blue']
    # The cell in row 3, column 5 has its centre at (5.5 / 8, 3.5 / 8); the book spans 5/8 to 7/8 and 2/8 to 6/8.
    assert labels.box_distances[0, :, 3, 5].mul(16).tolist() == [1, 3, 3, 5]


def test_the_ground_truth_costs_nothing():
    labels = labels_at([scene_of(read_facts(facts()))], [(8, 8)])
    outputs = torch.cat(
        [
            50.0 * torch.nn.functional.one_hot(labels.category, len(CATEGORY) + 1),
            50.0 * torch.nn.functional.one_hot(labels.color, len(COLOR) + 1),
            labels.box_distances.permute(0, 2, 3, 1),
        ],
        dim=-1,
    )
    assert all(loss.item() == pytest.approx(0, abs=1e-6) for loss in dense_terms(outputs, labels).values())
    assert all(loss > 0.1 for loss in dense_terms(-outputs, labels).values())


def test_a_coarse_cell_is_a_mix():
    """A cell that is half a book and half empty costs least if both are equally likely."""
    boxes = ((0, 0, 112, 112), (112, 0, 140, 224))  # the book has one of 8 columns
    labels = labels_at([scene_of(read_facts(facts(boxes=boxes)))], [(8, 8)])

    def cost(share):
        logits = torch.full((1, 4, 4, len(CATEGORY) + 1 + len(COLOR) + 1 + 4), -20.0)
        logits[..., 2, CATEGORY['book']] = np.log(share)
        logits[..., 2, 0] = np.log(1 - share)
        return dense_terms(logits, labels)['category']

    assert cost(0.5) < cost(0.4)
    assert cost(0.5) < cost(0.6)


def test_images_are_mirrored_with_their_labels(folder):
    dataset = scenes(folder)
    seen = set()
    for epoch in range(8):
        dataset.set_epoch(epoch)
        image, (ids, objects) = dataset[0]
        again = dataset[0]
        assert np.array_equal(image, again.image)
        assert np.array_equal(ids, again.scene.ids)
        is_mirrored = bool(ids[0, 0] == 0)
        seen.add(is_mirrored)
        assert ids[0, -1 if is_mirrored else 0] == 1
        assert objects[1, 2:].tolist() == ([0.5, 0, 1, 0.5] if is_mirrored else [0, 0, 0.5, 0.5])
    assert seen == {True, False}


def test_workers_that_persist_see_the_epoch(folder):
    """Every epoch has crops and mirrorings of its own, as without workers."""
    dataset = SceneDataset([Source(folder / 'scenes.jsonl', folder, repeat=8)], random_crop=1.0)
    loader = DataLoader(dataset, batch_size=None, num_workers=1, persistent_workers=True)
    for epoch in range(2):
        dataset.set_epoch(epoch)
        own = [dataset[index].scene.ids for index in range(len(dataset))]
        assert all(np.array_equal(item.scene.ids, ids) for item, ids in zip(loader, own, strict=True))


def test_a_crop_keeps_its_labels(folder):
    """Boxes become those of the visible parts, and image and ids are cropped alike."""
    scene = facts()
    image = np.zeros((SIDE, SIDE, 3), np.uint8)
    image[scene_of(read_facts(scene)).ids > 0] = 200
    cv2.imwrite(str(folder / scene['image']), image)
    dataset = SceneDataset([Source(folder / 'scenes.jsonl', folder)], random_crop=1.0)
    shares = set()
    for epoch in range(20):
        dataset.set_epoch(epoch)
        image, (ids, objects) = dataset[0]
        assert image.shape == (SIDE, SIDE, 3)
        assert ids.shape == (SIDE, SIDE)
        assert (ids > 0).any()
        assert ((image[..., 0] > 100) == (ids > 0)).mean() > 0.97  # except for the borders, which are interpolated
        for row in np.unique(ids[ids > 0]):
            x, y = np.nonzero((ids == row).any(0))[0], np.nonzero((ids == row).any(1))[0]
            assert objects[row, 2:] * SIDE == pytest.approx([x[0], y[0], x[-1] + 1, y[-1] + 1])
        shares.add(round((ids > 0).mean(), 2))
    assert len(shares) > 5


def test_pixel_training_learns(folder, model):
    training = DensePretraining(model)
    preprocessor, rows = load_preprocessor(FOLDER / 'tabletop', model.config), model.grounding.rows
    batch = DenseCollator(preprocessor, model.config.image_size, rows)([scenes(folder)[0]])
    assert batch.counts() == {'images': 1}
    assert batch.labels.sam.category.shape[1] == CELLS * rows
    tokens = batch.grids[0][1] // model.config.vision.spatial_merge_size
    assert batch.labels.qwen.category.shape[1] == CELLS * tokens
    optimizer = torch.optim.AdamW(training.parameters(), 1e-3)
    totals = []
    for _ in range(4):
        losses = training(batch)
        total = sum(value for value, _ in losses.values())
        totals.append(total.item())
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
    assert len(losses) == 10
    assert totals[-1] < totals[0]
    model.grounding.requires_grad_(False)
    assert {name.partition('_')[0] for name in training(batch)} == {'tokens'}
    model.requires_grad_(True)
    model.model.visual.requires_grad_(False)
    assert {name.partition('_')[0] for name in training(batch)} == {'pixels', 'coarse'}
    model.grounding.mask_decoder.requires_grad_(False)
    losses = training(batch)
    assert {name.partition('_')[0] for name in losses} == {'coarse'}
    model.zero_grad()
    sum(value for value, _ in losses.values()).backward()
    without = {
        name.split('.')[1]
        for name, parameter in model.grounding.vision_encoder.neck.named_parameters()
        if parameter.grad is None
    }
    assert without == {'0', '1', '3'}  # levels of the pyramid that nothing reads are not computed


def test_tokens_learn_their_positions(model):
    heads = DenseHeads(model.config, ('tokens',))
    tokens = torch.randn(2 * 3 * 4, model.config.qwen.text_config.hidden_size)
    labels = Labels(torch.zeros(2, 12, 16).long(), torch.zeros(2, 12, 16).long(), torch.zeros(2, 4, 12, 16))
    places = torch.tensor([[x, y] for y in (1 / 6, 3 / 6, 5 / 6) for x in (1 / 8, 3 / 8, 5 / 8, 7 / 8)])

    class Given(torch.nn.Module):
        def forward(self, tokens):
            return places.view(3, 4, 2).expand(2, -1, -1, -1)

    assert heads.token_losses(tokens, labels)['tokens_place'][0] > 0.1
    heads['place'] = Given()
    assert heads.token_losses(tokens, labels)['tokens_place'][0].item() == pytest.approx(0, abs=1e-6)


def test_base_training_gives_every_part_gradients(folder, model):
    plain = Collator.from_folder(FOLDER / 'tabletop', model.config, branches=True)
    collator = LabelledCollator(plain, [Source(folder / 'scenes.jsonl', folder)], rows=model.grounding.rows)
    mix = RecordDataset([Source(folder / 'phrases.json', folder)], model.config.num_queries)
    batch = collator([mix[0], mix[1]])
    assert batch.counts() == {
        'tokens': batch.counts()['tokens'],
        'blocks': 4,
        'phrases': 4,
        'masks': 2,
        'all_masks': 2,
        'anchored': 0,
        'images': 2,
    }
    training = DetectorPretraining(model, phrases_per_call=3)
    losses = training(batch)
    sum(value for value, _ in losses.values()).backward()
    unused = (
        'geometry_encoder',
        'text_projection',
        'pixel_decoder.conv_layers.2',
        'pixel_decoder.norms.2',
        'fpn_layers.3',
        'phrase_score_fcs',  # stage instruct trains them
    )
    without = [name for name, parameter in training.named_parameters() if parameter.grad is None]
    assert all(any(part in name for part in unused) for name in without), without
    everything = set(losses)
    model.grounding.requires_grad_(False)
    of_sam = {
        'align_coarse',
        'align_fused',
        'coarse_category',
        'coarse_color',
        'coarse_box',
        'semantic',
        'presence',
        'mask_bce',
        'mask_dice',
        'box_l1',
        'box_giou',
    }
    assert set(training(batch)) == everything - of_sam
    model.requires_grad_(True)
    model.model.visual.requires_grad_(False)
    model.model.language_model.requires_grad_(False)
    assert set(training(batch)) == of_sam


def test_heads_come_from_the_previous_run(tmp_path):
    save_file({name: torch.full((3,), 1.0) for name in 'abc'}, tmp_path / HEADS)
    training = torch.nn.ParameterDict({'a': torch.zeros(3), 'b': torch.zeros(3), 'd': torch.zeros(3)})
    training['c'] = torch.zeros(4)
    load_auxiliary_heads(training, tmp_path)
    # Head c has another shape and is not loaded.
    assert {name: training[name].tolist() for name in 'abcd'} == {
        'a': [1.0] * 3,
        'b': [1.0] * 3,
        'c': [0.0] * 4,
        'd': [0.0] * 3,
    }


def test_an_image_of_no_scene_is_named(folder, model):
    plain = Collator.from_folder(FOLDER / 'tabletop', model.config)
    collator = LabelledCollator(plain, [Source(folder / 'scenes.jsonl', Path('elsewhere'))], rows=model.grounding.rows)
    mix = RecordDataset([Source(folder / 'phrases.json', folder)], model.config.num_queries)
    with pytest.raises(DataError, match=r'a\.png is in none of the files'):
        collator([mix[0]])


def test_noisy_boxes_stay_near_the_ground_truth():
    torch.manual_seed(0)
    true = torch.tensor([[0.2, 0.2, 0.6, 0.4]])
    boxes = torch.stack([noisy_boxes(true, 5) for _ in range(50)]).sigmoid()
    assert boxes.shape == (50, 5, 4)
    centre, side = boxes[:, 0, :2], boxes[:, 0, 2:]
    assert ((centre - torch.tensor([0.4, 0.3])).abs() <= torch.tensor([0.4, 0.2]) * 0.4 + 1e-5).all()
    assert (side / torch.tensor([0.4, 0.2]) - 1).abs().max() <= 0.4 + 1e-5
    assert centre.std() > 0.02
    assert noisy_boxes(true.to('meta'), 5).device.type == 'meta'  # as on a GPU
    assert boxes[:, 1:, :2].std() > 0.2


def test_every_stage_name_has_a_stage():
    assert tuple(STAGES) == STAGE_NAMES


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        ({'image': 7}, 'image 7 of'),
        ({'height': None}, 'needs image, height and width'),
        ({'height': 10**9, 'objects': []}, 'expected at most 64 megapixels'),
        ({'width': 65, 'objects': []}, r'the scene is 65 x \d+ px, its image'),
        ({'objects': {}}, 'needs a list of objects'),
        ({'objects': [3]}, 'needs the names of its category and color'),
        ({'objects': [{'category': [], 'color': 'red', 'mask': None}]}, 'needs the names of its category and color'),
        ({'objects': [{'category': 'mug', 'color': 'red', 'mask': None}]}, 'a mask must be RLE or polygons'),
        ({'objects': [{'category': 'mug', 'color': 'red', 'mask': {'size': [1, 1]}}]}, 'sizes must be equal'),
        ({'image': 'nowhere.png'}, 'nowhere.png: No such file'),
    ],
    ids=range(10),
)
def test_a_line_that_cannot_be_used_is_named(folder, change, message):
    file = folder / 'scenes.jsonl'
    file.write_text(file.read_text().rstrip() + '\n\n' + json.dumps({**facts('a'), **change}))
    dataset = scenes(folder)
    assert len(dataset) == 3
    with pytest.raises(DataError, match=rf'scenes.jsonl, line 4: .*{message}'):
        dataset[2]


def test_unknown_names_and_broken_files_of_scenes(folder):
    file = folder / 'scenes.jsonl'
    unknown = facts('a')
    unknown['objects'][0]['category'] = 'unicorn'
    for content, message in (
        (json.dumps(unknown), "line 1: there is no category 'unicorn'"),
        ('{"image":', 'line 1: Expecting value'),
        ('[' * 100_000, 'line 1: maximum recursion'),
    ):
        file.write_text(content)
        with pytest.raises(DataError, match=message):
            scenes(folder)[0]
    file.write_text(' \n')
    with pytest.raises(DataError, match='no scenes in'):
        scenes(folder)
    file.write_bytes(b'\xff')
    with pytest.raises(DataError, match='not a text file in UTF-8'):
        scenes(folder)

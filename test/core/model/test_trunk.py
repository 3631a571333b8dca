"""A trunk, which reads the image for both encoders, and slot references, which move the detector's first boxes."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file
from sample_models import write_trunk_model

from instructsam.core import InstructSAM, ModelError
from instructsam.core.model.instructsam import INITIAL_PHRASE_SCORE
from instructsam.core.model.preprocess import QwenPreprocessor, sam_pixels, to_chw
from instructsam.core.model.trunk import Trunk

SIDE = 64


@pytest.fixture(scope='module')
def folder(checkpoint, tmp_path_factory):
    return write_trunk_model(checkpoint, tmp_path_factory.mktemp('trunk') / 'model', SIDE)


@pytest.fixture(scope='module')
def trunk_engine(folder):
    return InstructSAM.from_pretrained(folder, device='cpu')


@pytest.fixture
def inputs(trunk_engine, image):
    return trunk_engine.encoder_inputs(to_chw(image))


def detect(engine, encoded):
    answer = engine.answer_for(['cup', 'bowl'])
    return engine.segment(encoded, 'cup', answer=answer, score_threshold=0).to_json()['instances']


def test_maps_of_each_stride():
    fine, middle, coarse = Trunk()(torch.rand(2, 3, SIDE, SIDE))
    assert (fine.shape, middle.shape, coarse.shape) == ((2, 24, 16, 16), (2, 40, 8, 8), (2, 112, 4, 4))


@torch.inference_mode()
def test_the_engine_from_image_to_masks(trunk_engine, image):
    encoded = trunk_engine.encode(image)
    found = detect(trunk_engine, encoded)
    assert len(found) > 5
    assert detect(trunk_engine, encoded) == found
    assert detect(trunk_engine, trunk_engine.encode(image[::-1])) != found
    assert encoded.features.side == 4
    assert [level.convolved.shape[-1] for level in encoded.features.levels] == [8, 16]


def test_a_saved_folder_loads_back_and_names_the_parts(trunk_engine, image, tmp_path):
    trunk_engine.save_pretrained(tmp_path)
    names = load_file(tmp_path / 'model.safetensors').keys()
    parts = ('trunk', 'grounding_model.model.laterals', 'reference_fcs', 'score_fc', 'phrase_score_fcs')
    for part in parts:
        assert any(name.startswith(f'model.{part}.') for name in names), part
    again = InstructSAM.from_pretrained(tmp_path, device='cpu')
    assert detect(again, again.encode(image)) == detect(trunk_engine, trunk_engine.encode(image))


def test_a_model_without_a_trunk_reads_the_image_itself(engine, image):
    assert engine.model.model.trunk is None
    chw = to_chw(image)
    inputs = engine.encoder_inputs(chw)
    assert torch.equal(inputs.pixels, sam_pixels(chw, engine.model.config.image_size, 'cpu', torch.float32))
    assert torch.equal(inputs.patches, engine.preprocessor(chw, 'cpu', torch.float32)[0])
    assert inputs.lateral_maps == ()


@torch.inference_mode()
def test_cells_are_in_the_order_of_qwens_patches(trunk_engine):
    """Cells that number an image in patches of one pixel come as Qwen's preprocessor cuts that image."""
    numbers = torch.arange(16, dtype=torch.uint8).view(1, 4, 4).expand(3, 4, 4)
    cells = numbers[None, :1].float().repeat(2, 1, 1, 1)
    qwen = QwenPreprocessor(16, 16, patch_size=1, merge_size=2, temporal_patch_size=1)
    expected, grid = qwen(numbers, 'cpu', torch.float32)
    assert grid == trunk_engine.preprocessor(numbers, 'cpu', torch.float32)[1]
    order = ((expected[:, :1] + 1) / 2 * 255).round()
    assert torch.equal(trunk_engine.model._merged_cells(cells), order.repeat(2, 1))


@torch.inference_mode()
def test_both_encoders_read_the_coarsest_map(trunk_engine, inputs):
    cells = inputs.pixels[0].flatten(1).T  # [16, 112], in rows
    assert torch.equal(inputs.patches[:4], cells[[0, 1, 4, 5]])
    assert inputs.grids == [(1, 4, 4)]
    assert len(trunk_engine.model.encode_image(inputs.patches, *inputs.grids).embeddings) == 4


@torch.inference_mode()
def test_finer_maps_reach_the_finer_levels(trunk_engine, inputs):
    grounding = trunk_engine.model.grounding
    before = grounding.encode(inputs.pixels, inputs.lateral_maps).pyramid
    fine, middle = inputs.lateral_maps
    after = grounding.encode(inputs.pixels, (2 * fine, middle)).pyramid
    assert not torch.equal(after[0], before[0])
    assert torch.equal(after[1], before[1])
    assert torch.equal(after[2], before[2])
    (coarse,) = grounding.encode(inputs.pixels, fine=False).pyramid
    assert torch.equal(coarse, before[2])


@torch.no_grad()
def test_references_start_as_sam3s_own_and_move_with_the_slots(trunk_engine):
    model, hidden = trunk_engine.model, torch.randn(2, 10, 64, generator=torch.Generator().manual_seed(1))
    own = model.grounding.detr_decoder.reference_points.weight
    assert torch.equal(model.slot_references(hidden), own.expand(2, -1, -1))
    assert torch.equal(model.slot_references(hidden[:, :3]), own[:3].expand(2, -1, -1))
    last = model.model.reference_fcs[-1]
    last.weight.normal_(generator=torch.Generator().manual_seed(2))
    try:
        moved = model.slot_references(hidden)
    finally:
        last.weight.zero_()
    assert (moved - own).abs().amax((0, 2)).min() > 0.1
    assert not torch.equal(moved[0], moved[1])


@torch.no_grad()
def test_slots_add_to_the_scores(trunk_engine, image):
    model, hidden = trunk_engine.model, torch.randn(2, 10, 64, generator=torch.Generator().manual_seed(1))
    assert torch.equal(model.slot_scores(hidden), torch.zeros(2, 10))
    encoded = trunk_engine.encode(image)
    answer = trunk_engine.answer_for(['mug'])

    def scores():
        result = trunk_engine.segment(encoded, 'mug', answer=answer, score_threshold=0, suppress_duplicates=False)
        products = torch.tensor([each.score for each in result.instances])  # with the probability of the phrase
        return (products / torch.tensor(INITIAL_PHRASE_SCORE).sigmoid()).logit()

    before = scores()
    model.model.score_fc.bias.fill_(1.0)
    try:
        assert torch.equal(model.slot_scores(hidden), torch.ones(2, 10))
        torch.testing.assert_close(scores(), before + 1, rtol=0, atol=1e-4)
    finally:
        model.model.score_fc.bias.zero_()


def test_the_detector_trains_the_references(trunk_engine, image):
    model = trunk_engine.model
    with torch.no_grad():
        features = trunk_engine.encode(image).features
        text, mask = model.phrase_conditioning([[5, 6]], 'consistent')
    hidden = torch.randn(1, 10, 64, generator=torch.Generator().manual_seed(1))
    last = model.model.reference_fcs[-1].requires_grad_(True)
    try:
        output = model.grounding(features, model.slot_queries(hidden), text, mask, model.slot_references(hidden))
        (output.boxes.sum() + output.mask_logits.sum()).backward()
        assert last.weight.grad.abs().sum() > 0
    finally:
        last.requires_grad_(False).zero_grad(set_to_none=True)


FAULTS = [
    (('trunk',), 'vit', 'trunk = vit, expected a kind of efficientnet_lite0'),
    (('trunk', 'kind'), 'vit', 'expected a kind of efficientnet_lite0'),
    (('trunk', 'image_size'), '64', "image_size = '64', expected an integer from 16 to 4096"),
    (('trunk', 'image_size'), 10**9, 'expected an integer from 16 to 4096'),
    (('trunk', 'image_size'), 80, 'image_size is 80, expected a multiple of 16 x spatial_merge_size 2'),
    (('trunk', 'image_size'), 96, 'backbone_config: image_size is 4, expected 6 behind a trunk of 96 px'),
    (('trunk',), None, 'unexpected:\n  model.grounding_model.model.laterals.0.bias'),
    (('slot_references',), 1, "slot_references = '1', expected true or false"),
    (('slot_references',), False, 'unexpected:\n  model.reference_fcs'),
    (('slot_scores',), 'yes', "slot_scores = 'yes', expected true or false"),
    (('slot_scores',), False, 'unexpected:\n  model.score_fc'),
    (('phrase_scores',), [], "phrase_scores = '[]', expected true or false"),
    (('phrase_scores',), False, 'unexpected:\n  model.phrase_score_fcs'),
]


@pytest.mark.parametrize(('path', 'value', 'message'), FAULTS, ids=[f'{f[0][-1]}-{f[1]}' for f in FAULTS])
def test_faults_of_the_configuration(folder, tmp_path, path, value, message):
    copy = shutil.copytree(folder, tmp_path / 'model')
    content = json.loads((copy / 'config.json').read_text())
    *parents, last = path
    place = content
    for key in parents:
        place = place[key]
    place[last] = value
    (copy / 'config.json').write_text(json.dumps(content))
    with pytest.raises(ModelError) as error:
        InstructSAM.from_pretrained(copy, device='cpu')
    assert message in str(error.value)

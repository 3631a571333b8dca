"""Stage masks with tiny models of random weights: shapes, order, scaling of boxes and one encoding per image.

Their masks are worthless, so nothing here measures quality.
"""

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import Sam2Config, Sam2Model, Sam3TrackerConfig, Sam3TrackerModel

from instructsam.core.errors import ModelError
from instructsam.core.rle import Rle
from instructsam.train.data_engine.masks.concept import ConceptMasks
from instructsam.train.data_engine.masks.prompted import KINDS, PromptedMasks
from instructsam.train.data_engine.masks.stage import SegmentObjects, empty_mask, object_mask
from instructsam.train.data_engine.rows import EngineImage, ObjectMask, Row, SegmentedObject

SAM2_SIDE, TRACKER_SIDE = 128, 112
DECODER = {
    'hidden_size': 32, 'mlp_dim': 32, 'num_hidden_layers': 2, 'num_attention_heads': 2, 'iou_head_hidden_dim': 32,
}  # fmt: skip


def sam2():
    backbone = {
        'model_type': 'sam2_hiera_det_model',
        'hidden_size': 12, 'embed_dim_per_stage': [12, 24, 48, 96], 'num_attention_heads_per_stage': [1, 2, 4, 8],
        'blocks_per_stage': [1, 2, 2, 1], 'image_size': [SAM2_SIDE, SAM2_SIDE],
        'global_attention_blocks': [4], 'window_positional_embedding_background_size': [4, 4],
    }  # fmt: skip
    vision = {
        'backbone_config': backbone, 'backbone_channel_list': [96, 48, 24, 12], 'fpn_hidden_size': 32,
        'backbone_feature_sizes': [[32, 32], [16, 16], [8, 8]],
    }  # fmt: skip
    prompt = {'hidden_size': 32, 'image_size': SAM2_SIDE, 'patch_size': 16, 'mask_input_channels': 4}
    return Sam2Model(Sam2Config(vision_config=vision, prompt_encoder_config=prompt, mask_decoder_config=DECODER))


def tracker():
    backbone = {
        'model_type': 'sam3_vit_model', 'hidden_size': 32, 'intermediate_size': 32, 'num_hidden_layers': 2,
        'num_attention_heads': 2, 'image_size': TRACKER_SIDE, 'pretrain_image_size': TRACKER_SIDE, 'patch_size': 14,
        'window_size': 4, 'global_attn_indexes': [1],
    }  # fmt: skip
    vision = {
        'backbone_config': backbone, 'fpn_hidden_size': 32, 'backbone_feature_sizes': [[32, 32], [16, 16], [8, 8]],
    }  # fmt: skip
    prompt = {'hidden_size': 32, 'image_size': TRACKER_SIDE, 'patch_size': 14, 'mask_input_channels': 4}
    config = Sam3TrackerConfig(vision_config=vision, prompt_encoder_config=prompt, mask_decoder_config=DECODER)
    return Sam3TrackerModel(config)


@pytest.fixture(scope='module')
def folders(tmp_path_factory):
    """Return the folder of a tiny model of each kind."""
    folders = {}
    for kind, make in (('sam2', sam2), ('sam3-tracker', tracker)):
        torch.manual_seed(0)
        folders[kind] = tmp_path_factory.mktemp(kind)
        make().save_pretrained(folders[kind])
    return folders


@pytest.fixture(scope='module')
def backends(folders):
    return {kind: PromptedMasks(kind, str(folder), 'cpu', 'float32') for kind, folder in folders.items()}


def objects(*boxes):
    return tuple(SegmentedObject(f'o{number}', 'thing', box) for number, box in enumerate(boxes))


BOXES = ((5.0, 10.0, 60.0, 90.0), (80.0, 20.0, 150.0, 110.0), (0.0, 0.0, 160.0, 120.0))


@pytest.mark.parametrize('kind', KINDS)
def test_masks_are_those_of_the_model_on_the_stretched_square(backends, kind, image):
    """The same by hand: boxes in px of the square, logits resized to the picture."""
    backend = backends[kind]
    model, side = backend._model, backend._side
    masks = backend(image, objects(*BOXES))
    prompts = torch.tensor(BOXES) * torch.tensor([side / 160, side / 120, side / 160, side / 120])
    with torch.inference_mode():
        output = model(pixel_values=backend._pixels(image), input_boxes=prompts[None], multimask_output=False)
    logits = torch.nn.functional.interpolate(output.pred_masks[0], (120, 160), mode='bilinear')[:, 0]
    for mask, values, score, presence in zip(
        masks, logits, output.iou_scores[0, :, 0], output.object_score_logits[0, :, 0], strict=True
    ):
        assert mask.size == (120, 160)
        decoded = mask.rle.decode() if mask.counts else np.zeros((120, 160), bool)
        assert (decoded == (values > 0).numpy()).all()
        assert mask.predicted_iou == pytest.approx(score.item(), abs=1e-4)
        assert mask.object_score == pytest.approx(presence.item(), abs=1e-4)
        assert mask.stability == pytest.approx(((values > 1).sum() / (values > -1).sum().clamp(min=1)).item(), abs=1e-4)


@pytest.mark.parametrize('kind', KINDS)
def test_all_boxes_at_once_are_each_alone(backends, kind, image):
    together = backends[kind](image, objects(*BOXES))
    alone = [backends[kind](image, objects(box))[0] for box in BOXES]
    for one, other in zip(together, alone, strict=True):
        assert one.predicted_iou == pytest.approx(other.predicted_iou, abs=2e-4)
        assert one.rle.iou([other.rle])[0] > 0.999


def test_boxes_outside_the_picture_have_no_mask_and_the_order_stays(backends, image):
    outside, reversed_box = (200.0, 0.0, 240.0, 40.0), (60.0, 10.0, 5.0, 90.0)
    masks = backends['sam2'](image, objects(BOXES[0], outside, BOXES[1], reversed_box))
    assert masks[1] == masks[3] == empty_mask(image)
    assert [masks[0], masks[2]] == backends['sam2'](image, objects(BOXES[0], BOXES[1]))
    assert backends['sam2'](image, objects(outside)) == [empty_mask(image)]


def test_an_image_is_encoded_once(backends, image, monkeypatch):
    calls = []
    model = backends['sam2']._model
    encode = model.get_image_embeddings
    monkeypatch.setattr(model, 'get_image_embeddings', lambda pixels: calls.append(pixels.shape) or encode(pixels))
    backends['sam2'](image, objects(*BOXES))
    assert calls == [(1, 3, SAM2_SIDE, SAM2_SIDE)]


def test_missing_tensors_are_refused(folders, tmp_path):
    for name in ('config.json', 'model.safetensors'):
        (tmp_path / name).write_bytes((folders['sam2'] / name).read_bytes())
    tensors = load_file(tmp_path / 'model.safetensors')
    del tensors['no_memory_embedding']
    save_file(tensors, tmp_path / 'model.safetensors', {'format': 'pt'})
    with pytest.raises(ModelError, match=r'not a model of Sam2Model: 1 tensors are missing .*no_memory_embedding'):
        PromptedMasks('sam2', str(tmp_path), 'cpu')


def test_another_kind_of_model_is_refused(folders, tmp_path):
    with pytest.raises(
        ModelError, match=r"is of the type 'sam2', expected sam3_tracker.* for the backend sam3-tracker"
    ):
        PromptedMasks('sam3-tracker', str(folders['sam2']), 'cpu')
    with pytest.raises(ModelError, match=r'holds no config\.json'):
        PromptedMasks('sam2', str(tmp_path), 'cpu')


def test_the_mask_in_the_box_is_chosen(checkpoint, image, monkeypatch):
    """Two objects of one phrase get different instances, whatever their order."""
    backend = ConceptMasks(str(checkpoint), 'cpu', 'float32')
    filled = []
    for x0, x1 in ((100, 140), (10, 50), (60, 90)):
        mask = np.zeros((120, 160), bool)
        mask[30:80, x0:x1] = True
        filled.append(Rle.encode(mask))

    class Instance:
        def __init__(self, mask):
            self.mask, self.box, self.score = mask, mask.box, 0.6

    asked = []
    monkeypatch.setattr(
        backend, '_instances', lambda encoded, phrase: asked.append(phrase) or list(map(Instance, filled))
    )
    masks = backend(image, objects((12.0, 30.0, 50.0, 80.0), (98.0, 30.0, 140.0, 80.0), (0.0, 100.0, 9.0, 110.0)))
    assert asked == ['thing']
    assert masks[0].rle.box == (10, 30, 50, 80)
    assert masks[1].rle.box == (100, 30, 140, 80)
    assert masks[2] == empty_mask(image)
    assert masks[0].object_score == pytest.approx(np.log(0.6 / 0.4), abs=1e-4)
    assert masks[0].predicted_iou is None
    assert masks[0].box_iou == pytest.approx(38 / 40)


def test_the_tiny_model_answers_phrases_and_none_that_it_cannot_read(checkpoint, image):
    backend = ConceptMasks(str(checkpoint), 'cpu', 'float32')
    masks = backend(image, (*objects(*BOXES[:2]), SegmentedObject('o2', '\x1b', BOXES[0])))
    assert [mask.size for mask in masks] == [(120, 160)] * 3


def test_the_stage_fills_in_masks_and_passes_other_rows_through(image):
    def backend(pixels, found):
        return [ObjectMask(pixels.shape[:2], each.id) for each in found]

    stage = SegmentObjects(backend, 'model', lambda image_of_row: image)
    found = EngineImage('a' * 64, 'x', False, 120, 160, 'a', '', 'x', 9.0, '0' * 16)
    row = stage(Row(0, found, objects=objects(*BOXES)))
    assert [each.mask.counts for each in row.objects] == ['o0', 'o1', 'o2']
    assert [(each.stage, each.model) for each in row.stages] == [('masks', 'model')]
    for other in (Row(0, None), Row(0, found)):
        assert stage(other) == other


def test_a_mask_has_the_iou_of_its_box_with_the_prompt():
    filled = np.zeros((20, 30), bool)
    filled[5:15, 10:20] = True
    assert object_mask(Rle.encode(filled), (10.0, 5.0, 30.0, 15.0)).box_iou == 0.5

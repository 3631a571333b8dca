"""The model compared with recordings of the authors' implementation, tensor by tensor, in both modes.

The recordings are in $INSTRUCTSAM_REFERENCE or in test/data/reference, whose README describes every tensor. Nothing
here depends on the sizes in that copy. Floats must agree within atol 2e-4 + rtol 1e-3; ids, masks and positions
exactly.
"""

import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from instructsam.core.model.config import ModelConfig
from instructsam.core.model.instructsam import MAX_PHRASE_TOKENS
from instructsam.core.model.preprocess import sam_pixels, to_chw
from instructsam.core.model.sequence import TokenSequence, encode_prefix
from instructsam.core.rle import Rle

OWN = Path(__file__).parents[2] / 'data' / 'reference'
FOLDER = Path(os.environ.get('INSTRUCTSAM_REFERENCE', OWN))
CASES = json.loads((FOLDER / 'inference' / 'index.json').read_text())
HALVED = '_s2'  # suffix of tensors that were recorded at every other row and column
each_case = pytest.mark.parametrize('case', CASES, ids=[case['case'] for case in CASES])


class Recording:
    """A recorded file; compares tensors with it and remembers which have been compared."""

    def __init__(self, case, suffix=''):
        self.tensors = load_file(FOLDER / 'inference' / f'{case["case"]}{suffix}.safetensors')
        self.unchecked = set(self.tensors)

    def __getitem__(self, name):
        return self.tensors[name]

    def __contains__(self, name):
        return name in self.tensors

    def check(self, name, value):
        """Compare `value` with the recorded `name`: integers exactly, floats within the tolerance.

        Skipped if the file was trimmed of `name`.
        """
        if name not in self.tensors and name + HALVED in self.tensors:
            name, value = name + HALVED, value[..., ::2, ::2]
        if name not in self.tensors:
            return
        self.unchecked.discard(name)
        recorded = self.tensors[name]
        assert tuple(value.shape) == tuple(recorded.shape), f'{name}: shape'
        if recorded.is_floating_point():
            torch.testing.assert_close(value, recorded, atol=2e-4, rtol=1e-3, msg=lambda text: f'{name}: {text}')
        else:
            assert torch.equal(value.to(recorded.dtype), recorded), name

    def check_pixels(self, name, value):
        """Compare pixels, which were recorded as floats or as the uint8 values that they come from."""
        if name + '_u8' in self.tensors:
            self.check(name + '_u8', ((value * 0.5 + 0.5) * 255).round())
        elif name in self.tensors:
            self.unchecked.discard(name)
            torch.testing.assert_close(value, self.tensors[name], atol=1e-6, rtol=0)

    def check_all_seen(self):
        assert not self.unchecked, f'recorded, but not compared: {sorted(self.unchecked)}'


def image_of(case):
    """Return the image of a case, [H, W, 3] uint8 RGB."""
    return np.asarray(Image.open(FOLDER / case['image']).convert('RGB'))


def inputs_of(engine, image):
    """Return (patches, grid, SAM pixels) of an image."""
    chw = to_chw(image)
    patches, grid = engine.preprocessor(chw, torch.device('cpu'), torch.float32)
    return patches, grid, sam_pixels(chw, engine.model.config.image_size, torch.device('cpu'), torch.float32)


def phrase_rows(groups):
    """Return padded ids [G, 32] and mask [G, 32] of the phrases that condition SAM3."""
    ids = torch.zeros(len(groups), MAX_PHRASE_TOKENS, dtype=torch.int64)
    mask = torch.zeros(len(groups), MAX_PHRASE_TOKENS, dtype=torch.uint8)
    for row, group in enumerate(groups):
        kept = group.phrase_ids[:MAX_PHRASE_TOKENS]
        ids[row, : len(kept)] = torch.tensor(kept)
        mask[row, : len(kept)] = 1
    return ids, mask


def detect(engine, features, groups):
    queries = engine.model.slot_queries(torch.stack([group.hidden for group in groups]))
    text, mask = engine.model.phrase_conditioning([group.phrase_ids for group in groups], engine.mode)
    grounding = engine.model.grounding
    return queries, text, grounding(grounding.prepare(features), queries, text, mask)


def test_state_dict_is_the_published_one(load_engine):
    recorded = json.loads((FOLDER / 'state_dict_names.json').read_text())
    built = {name: [list(t.shape), str(t.dtype)] for name, t in load_engine().model.state_dict().items()}
    assert built == recorded


def test_state_dict_at_published_sizes():
    """A model of 2.62 B parameters, on the meta device, has the names and shapes of the published file."""
    from instructsam.core.benchmark.random_weights import published_config
    from instructsam.core.model.instructsam import InstructSAMModel

    published = json.loads((OWN / 'published_state_dict.json').read_text())
    with torch.device('meta'):
        model = InstructSAMModel(published_config())
    assert {name: list(tensor.shape) for name, tensor in model.state_dict().items()} == published


@each_case
def test_preprocessing(load_engine, case):
    recording = Recording(case)
    patches, grid, pixels = inputs_of(load_engine(), image_of(case))
    assert list(grid) == recording['image_grid_thw'][0].tolist()
    recording.check_pixels('pixel_values', patches)
    recording.check_pixels('sam_pixel_values', pixels[0])


@each_case
@torch.inference_mode()
def test_reference_mode(load_engine, case):
    """Token by token, as the authors' inference code runs the model."""
    engine, recording = load_engine('reference'), Recording(case)
    model = engine.model
    patches, grid, pixels = inputs_of(engine, image_of(case))
    recording.check('image_grid_thw', torch.tensor([grid]))
    recording.check_pixels('pixel_values', patches)
    recording.check_pixels('sam_pixel_values', pixels[0])

    visual = model.encode_image(patches, grid)
    recording.check('qwen_visual.image_embeds', visual[0])
    for level, deepstack in enumerate(visual[1]):
        recording.check(f'qwen_visual.deepstack.{level}', deepstack)

    # Prefill: two passes here, one in the recording.
    prefix, image_step = encode_prefix(model, engine.prompter, 'reference', visual, grid, needs_hidden=True)
    sequence = TokenSequence(model, prefix)
    text_ids = engine.prompter.instruction_ids(case['question'])
    step = sequence.add_text(text_ids)
    ids = torch.tensor([prefix.layout.ids + text_ids])
    recording.check('input_ids', ids)
    recording.check('attention_mask', torch.ones_like(ids))
    embeds = model.embed(ids)
    embeds[ids == model.config.tokens.image] = visual[0]
    recording.check('prefill.inputs_embeds', embeds)
    length = ids.shape[1]
    recording.check('step0.position_ids', torch.cat([image_step.positions[:1], step.positions[:1]], dim=1))
    mask = torch.zeros(length, length, dtype=torch.bool)
    mask[: step.start, : step.start] = image_step.mask
    mask[step.start :] = step.mask
    recording.check('step0.attention_mask', mask[None, None])
    recording.check('step0.past_len', torch.tensor([0]))
    recording.check('step0.cache_position', torch.arange(length))
    recording.check('step0.last_hidden_state', torch.cat([image_step.hidden, step.hidden], dim=1))
    recording.check('step0.logits_last', model.token_logits(step.hidden[:, -1]))

    # The answer: its last token ends it and is not fed back.
    forced = engine.prompter.answer_ids(case['forced_text'])
    recording.check('forced_ids', torch.tensor(forced))
    recording.check('output_ids', torch.tensor([forced]))
    injections = []
    for number, token in enumerate(forced[:-1], start=1):
        groups = len(sequence.groups)
        step = sequence.add_answer([token])
        if len(sequence.groups) > groups:
            injections.append(number)
        recording.check(f'step{number}.position_ids', step.positions[:1])
        recording.check(f'step{number}.attention_mask', step.mask[None, None])
        recording.check(f'step{number}.past_len', torch.tensor([step.start]))
        # The recorded count of generated tokens omits the three tags of each block; nothing depends on it.
        recording.check(f'step{number}.cache_position', torch.tensor([step.start - 3 * groups]))
        recording.check(f'step{number}.last_hidden_state', step.hidden)
        recording.check(f'step{number}.logits_last', model.token_logits(step.hidden[:, -1]))
    assert len(forced) == case['n_llm_calls']  # the prefill, and one call for each token but the last
    assert injections == case['injection_steps']
    assert len(sequence.groups) == case['n_groups']
    recording.check('injection_steps', torch.tensor(injections))

    if sequence.groups:
        check_masks(engine, recording, pixels, sequence.groups)
    recording.check_all_seen()


def check_masks(engine, recording, pixels, groups):
    vision = engine.model.grounding.vision_encoder
    recording.check('sam_vision.last_hidden_state', vision.backbone(pixels).last_hidden_state)
    features = engine.model.grounding.encode(pixels)
    for level, feature in enumerate(features.pyramid):
        recording.check(f'sam_vision.fpn.{level}', feature)
    recording.check(f'sam_vision.fpn_pos.{len(features.pyramid) - 1}', features.position)

    queries, text, output = detect(engine, features, groups)
    ids, mask = phrase_rows(groups)
    recording.check('seg_output_embeddings', torch.stack([group.hidden for group in groups]))
    recording.check('mask_hidden_fcs', queries)
    recording.check('phrase_ids', ids)
    recording.check('phrase_mask', mask)
    recording.check('text_hidden_fcs', text)
    recording.check('detr_encoder.last_hidden_state', output.encoded)
    recording.check('detr_decoder.intermediate_hidden_states', output.hidden)
    recording.check('detr_decoder.reference_boxes', output.reference_boxes)
    recording.check('pred_masks', output.mask_logits)
    recording.check('pred_logits', output.logits)
    recording.check('pred_boxes', output.boxes)
    recording.check('out_scores_sigmoid', output.logits.sigmoid())


@each_case
@torch.inference_mode()
def test_consistent_mode(load_engine, case):
    """The text as the training code runs it: in three passes on a cache here, in one pass there."""
    engine, recording = load_engine('consistent'), Recording(case, '.trainpath')
    model = engine.model
    patches, grid, pixels = inputs_of(engine, image_of(case))
    visual = model.encode_image(patches, grid)
    prefix, image_step = encode_prefix(model, engine.prompter, 'consistent', visual, grid, needs_hidden=True)
    sequence = TokenSequence(model, prefix)
    text_step = sequence.add_text(engine.prompter.instruction_ids(case['question']))
    answer_step = sequence.add_answer(engine.prompter.answer_ids(case['forced_text']))
    steps = (image_step, text_step, answer_step)

    recording.check('input_ids', torch.tensor([sequence.layout.ids]))
    recording.check('position_ids', torch.cat([step.positions for step in steps], dim=1)[:, None])
    hidden = torch.cat([step.hidden for step in steps], dim=1)
    mask = torch.zeros(hidden.shape[1], hidden.shape[1], dtype=torch.bool)
    for step in steps:
        mask[step.start : step.start + len(step.mask), : step.mask.shape[1]] = step.mask
    recording.check('attention_mask_4d', mask[None, None])
    recording.check('last_hidden_state', hidden)
    recording.check('logits', model.token_logits(hidden))

    groups = sequence.groups
    width = model.config.qwen.text_config.hidden_size
    slots = [group.hidden for group in groups]
    recording.check('query_hidden', torch.stack(slots) if slots else torch.zeros(0, model.config.num_queries, width))
    if groups:
        # Recorded flat, each phrase with its start tag, which does not condition SAM3.
        start = model.config.tokens.phrase_start
        recording.check('phrase_ids_flat', torch.tensor([i for group in groups for i in (start, *group.phrase_ids)]))
        recording.check('phrase_mask', phrase_rows(groups)[1])
        queries, text, output = detect(engine, model.grounding.encode(pixels), groups)
        recording.check('mask_hidden_fcs', queries)
        recording.check('phrase_embedding', text)
        recording.check('pred_masks', output.mask_logits)
        recording.check('pred_logits', output.logits)
    recording.check_all_seen()


@each_case
def test_engine_in_reference_mode(load_engine, case):
    """Scores and full-size masks from the engine, with the answer written in one pass."""
    engine, recording = load_engine('reference'), Recording(case)
    result = engine.segment(
        engine.encode(image_of(case)),
        case['question'],
        answer=case['forced_text'],
        score_threshold=0,
        suppress_duplicates=False,
    )
    assert [result.height, result.width] == case['original_size']
    assert len(result.phrases) == case['n_groups']
    assert result.status == ('ok' if result.instances else 'no_target')
    scores = recording['out_scores_sigmoid'] if case['n_groups'] else None
    for instance in result.instances:
        assert instance.score == pytest.approx(float(scores[instance.group, instance.slot]), abs=2e-4, rel=1e-3)
    if 'pred_masks' in recording:
        logits = torch.nn.functional.interpolate(
            recording['pred_masks'], size=case['original_size'], mode='bilinear', align_corners=False
        )
        for instance in result.instances:
            expected = logits[instance.group, instance.slot]
            differs = instance.mask.decode() != (expected > 0).numpy()
            assert not (differs & (expected.abs() > 1e-3).numpy()).any()
            assert instance.mask.area == Rle.encode(instance.mask.decode()).area


def test_config_of_the_recordings(checkpoint):
    config = ModelConfig.from_folder(checkpoint)
    raw = json.loads((checkpoint / 'config.json').read_text())
    assert config.num_queries == raw['max_seg_nums'] == config.sam3.detr_decoder_config.num_queries

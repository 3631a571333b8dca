"""Phrase dropout: SAM3 gets shorter forms of some phrases, whose targets stay those of the whole phrase."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from instructsam.core.errors import DataError
from instructsam.core.model.preprocess import to_chw
from instructsam.core.rle import Rle
from instructsam.train.data.collate import Collator
from instructsam.train.data.dialogue import IGNORED
from instructsam.train.data.record_fields import Target
from instructsam.train.data.sample import Sample, Turn
from instructsam.train.loop.param_groups import parameter_groups
from instructsam.train.loop.recipe import LearningRates, Recipe, RecipeError, build
from instructsam.train.losses.objective import Objective
from instructsam.train.stages import detector, instruct
from instructsam.train.stages.detector import DetectorPretraining
from instructsam.train.stages.forward import PhraseCall, phrase_calls
from instructsam.train.stages.instruct import InstructStage, InstructTraining
from instructsam.train.stages.settings import BaseSettings, InstructSettings


@pytest.fixture
def batch(folder, model, image):
    """Return two samples of two phrases each; the second phrase has no shorter form and refers to nothing."""
    mask = np.zeros(image.shape[:2], bool)
    mask[30:70, 40:90] = True
    targets = (Target(masks=(Rle.encode(mask),)), Target())
    turn = Turn('it', ('red cup left', 'bowl'), targets, shorter=(('red cup', 'cup'), ()))
    sample = Sample(folder, *image.shape[:2], (turn,), pixels=to_chw(image))
    return Collator.from_folder(folder, model.config)([sample, sample])


def test_no_phrase_is_shortened_without_it(batch):
    torch.manual_seed(0)
    state = torch.get_rng_state()
    calls = phrase_calls(batch, 3)
    assert torch.equal(torch.get_rng_state(), state)  # runs without it draw the numbers that they always drew
    assert [(call.phrases, call.are_partial) for call in calls] == [([0, 1, 2], False), ([3], False)]
    assert [ids for call in calls for ids in call.phrase_ids] == batch.text.phrase_ids


def test_shortened_phrases_are_in_calls_of_their_own(batch):
    for _ in range(20):
        whole, short = sorted(phrase_calls(batch, 9, 1.0), key=lambda call: call.are_partial)
        assert (whole.phrases, short.phrases) == ([1, 3], [0, 2])
        assert whole.phrase_ids == [batch.text.phrase_ids[1], batch.text.phrase_ids[3]]
        assert short.phrase_ids == [batch.text.shorter_ids[index][0] for index in short.phrases]


def test_concise_answers_that_leave_something_out_are_in_calls_of_their_own(folder, model, image):
    targets = (Target(), Target())
    concise, shorter = ('red cup', 'bowl'), (('red cup', 'cup'), ('object',))
    turn = Turn('it', ('red cup left', 'bowl'), targets, concise=concise, shorter=shorter)
    sample = Sample(folder, *image.shape[:2], (turn,), pixels=to_chw(image))
    batch = Collator.from_folder(folder, model.config, concise=True)([sample])
    plain = Collator.from_folder(folder, model.config).dialogue.prompter.plain_ids
    assert batch.text.phrase_ids == [plain('red cup'), plain('bowl')]
    assert batch.text.shorter_ids == [[plain('cup')], [plain('object')]]
    assert [(call.phrases, call.are_partial) for call in phrase_calls(batch, 9)] == [([0], True), ([1], False)]
    whole = Collator.from_folder(folder, model.config)([sample])
    assert whole.text.phrase_ids == [plain('red cup left'), plain('bowl')]
    assert whole.text.partial == [False, False]


def test_each_shorter_form_has_the_same_probability(batch):
    torch.manual_seed(0)
    drawn = [call for _ in range(300) for call in phrase_calls(batch, 9, 0.25) if call.are_partial]
    used = [ids for call in drawn for ids in call.phrase_ids]
    assert [used.count(ids) for ids in batch.text.shorter_ids[0]] == [pytest.approx(150, abs=30)] * 2


def test_stages_shorten_in_training_only(monkeypatch, model, batch):
    shares = []

    def recorded(batch, phrases_per_call, short_phrases):
        shares.append(short_phrases)
        return phrase_calls(batch, phrases_per_call, short_phrases)

    monkeypatch.setattr(instruct, 'phrase_calls', recorded)
    training = InstructTraining(model, Objective(), 9, deep_supervision=True, short_phrases=1.0)
    torch.manual_seed(0)
    shortened, whole = training(batch), training.eval()(batch)
    assert shares == [1.0, 0.0]
    assert shortened.keys() == whole.keys()
    assert {name: loss.unit for name, loss in shortened.items()} == {name: loss.unit for name, loss in whole.items()}
    assert 0 < shortened['semantic'].value < whole['semantic'].value  # it cannot know what only the slots know
    assert shortened['mask_dice'].value != whole['mask_dice'].value


def test_dummy_phrases_say_nothing_and_are_not_supervised(folder, model, image):
    mask = Rle.encode(np.ones(image.shape[:2], bool))
    targets, shorter = (Target(masks=(mask,)), Target()), (('cup',), ())
    turn = Turn('it', ('red cup', 'object'), targets, concise=('cup', 'object'), shorter=shorter)
    sample = Sample(folder, *image.shape[:2], (turn, turn), pixels=to_chw(image))
    rng = np.random.default_rng(0)
    assert sample.with_dummy_phrases(0.0, rng) == sample
    text = Turn('why?', (), (), text='because')
    assert text.with_dummy_phrases() == text
    collate = Collator.from_folder(folder, model.config, concise=True)
    plain = collate.dialogue.prompter.plain_ids
    batch = collate([sample.with_dummy_phrases(1.0, rng)])
    assert batch.text.phrase_ids == [plain('object')] * 4
    assert batch.text.shorter_ids == [[]] * 4
    assert batch.text.partial == [True, False] * 2
    assert (batch.text.labels == IGNORED).all()
    assert [len(masks) for masks in batch.masks] == [1, 0, 1, 0]  # with the targets of the true phrases
    losses = InstructTraining(model, Objective(), 9, deep_supervision=True)(batch)
    assert all(loss.value.isfinite() for loss in losses.values())


def test_answers_are_given_in_training_only(folder, model, tmp_path, image):
    Image.fromarray(image).save(tmp_path / 'a.png')
    height, width = image.shape[:2]
    annotation = {'type': 'sentence', 'text': 'it', 'category': 'red cup', 'ann_type': 'mask', 'ann': None}
    record = {'type': 'seg', 'image': 'a.png', 'height': height, 'width': width, 'annotation': [annotation] * 10}
    (tmp_path / 'a.json').write_text(json.dumps([record]))
    entries = ({'annotations': str(tmp_path / 'a.json'), 'images': str(tmp_path)},)
    settings = InstructSettings(dummy_phrases=0.5)
    recipe = Recipe('instruct', model=str(folder), output=str(tmp_path), data=entries, instruct=settings)
    stage = InstructStage(recipe, model, folder)
    given = [
        [turn.is_supervised for turn in stage.dataset(entries, training=training)[0].turns].count(False)
        for training in (True, False)
    ]
    assert 0 < given[0] < 10
    assert given[1] == 0


def base_training(model, batch, monkeypatch, **settings):
    """Return the module of stage base and its detector losses; the labels of its dense losses are left out."""
    training = DetectorPretraining(model, 9, **settings)
    monkeypatch.setattr(training.heads, 'token_losses', lambda *args: {})
    monkeypatch.setattr(training.heads, 'losses', lambda *args: {})
    batch.labels = type('Labels', (), {'sam': None, 'qwen': None})
    return training, training(batch)


@pytest.mark.parametrize('masks', [True, False])
def test_the_base_stage_trains_the_bridge_by_detection(model, batch, monkeypatch, masks):
    _, losses = base_training(model, batch, monkeypatch, masks=masks)
    assert 'bridge' not in losses
    sum(losses[name].value for name in ('box_l1', 'box_giou', 'presence')).backward()
    assert model.model.mask_hidden_fcs[0][0].weight.grad.any()
    assert model.model.reference_fcs[-1].weight.grad.any()
    assert model.model.score_fc.weight.grad.any()
    assert model.model.language_model.layers[0].mlp.up_proj.weight.grad.any()


def test_slots_take_part_only_if_both_are_trained(model, batch, monkeypatch):
    groups = []

    def recorded(model, features, queries, *args, **kwargs):
        groups.append(queries.shape[1])
        return real(model, features, queries, *args, **kwargs)

    real = detector.detect_layers
    monkeypatch.setattr(detector, 'detect_layers', recorded)
    without = detector.GROUPS + detector.DENOISING_GROUPS
    _, everything = base_training(model, batch, monkeypatch, short_phrases=1.0)
    assert sorted(groups) == [1, without + 1]  # shortened phrases tell SAM3's own queries nothing
    groups.clear()
    model.model.language_model.requires_grad_(False)
    _, losses = base_training(model, batch, monkeypatch, short_phrases=1.0)
    assert groups == [without]
    assert losses.keys() == everything.keys()
    groups.clear()
    model.requires_grad_(True)
    model.grounding.requires_grad_(False)
    base_training(model, batch, monkeypatch, short_phrases=1.0)
    assert groups == []


def test_the_query_bank_and_boxes_can_learn_without_sam3(model):
    training = DetectorPretraining(model, 9, pointing=1.0)
    parameter_groups(training, LearningRates(language=1e-3, slots=1e-3), 0.0)
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    others = {name for name in trained if not name.startswith('model.language_model.')}
    assert others == {
        'model.mask_queries',
        *(f'model.reference_fcs.{n}.{p}' for n in (0, 2) for p in ('weight', 'bias')),
        *(f'model.score_fc.{p}' for p in ('weight', 'bias')),
    }
    model.requires_grad_(True)
    parameter_groups(training, LearningRates(decoder=1e-3), 0.0)
    assert model.model.mask_queries.requires_grad


def test_boxes_without_masks_are_refused(model, batch, monkeypatch):
    batch.boxes[0] = torch.tensor([[0.1, 0.1, 0.5, 0.5]])
    with pytest.raises(DataError, match='a sample has boxes only: stage base cannot use it'):
        base_training(model, batch, monkeypatch)


def test_short_phrases_weigh_as_much_as_whole_ones(model, batch, monkeypatch):
    """The same phrases, once for all groups of queries and once for the slots alone, train the slots alike."""
    model.eval()  # without dropout
    gradients = []
    for are_partial in (False, True):
        call = PhraseCall(
            batch.detected_phrases, [batch.text.phrase_ids[index] for index in batch.detected_phrases], are_partial
        )
        monkeypatch.setattr(detector, 'phrase_calls', lambda *_, call=call: [call])
        _, losses = base_training(model, batch, monkeypatch)
        model.zero_grad()
        sum(losses[name].value for name in ('box_l1', 'box_giou', 'mask_bce', 'presence')).backward()
        gradients.append(model.model.reference_fcs[-1].weight.grad.clone())
    whole, short = gradients
    assert whole.any()
    torch.testing.assert_close(short, whole, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize('section', [BaseSettings, InstructSettings])
def test_the_share_is_a_share(section):
    fine = {'short_phrases': 1, **({'deep_supervision': True} if section is InstructSettings else {})}
    assert build(section, fine, 'x').short_phrases == 1
    with pytest.raises(RecipeError, match=r'short_phrases must be from 0 to 1, got 1\.5'):
        build(section, fine | {'short_phrases': 1.5}, 'x')
    with pytest.raises(ValueError, match='short_phrases needs deep_supervision'):
        replace(InstructSettings(), short_phrases=0.5)

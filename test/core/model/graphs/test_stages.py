"""Stages of fixed shapes, with calls in place of CUDA graphs, give the results of the plain ones."""

import gc

import numpy as np
import pytest
import torch
from sample_models import write_trunk_model

from instructsam.core import InstructSAM, ModelError
from instructsam.core.device import resolve_compile
from instructsam.core.model.graphs import stages as stages_module
from instructsam.core.model.graphs import static_sequence, warm_up
from instructsam.core.model.graphs.capture import StaticCall, StaticCalls, record_calls, smallest_bucket
from instructsam.core.model.graphs.stages import Stages, StaticStages
from instructsam.core.model.graphs.static_sequence import StaticSequence
from instructsam.core.modes import MODES

ALL = {'score_threshold': 0, 'suppress_duplicates': False}


@pytest.fixture
def small_cache(monkeypatch):
    monkeypatch.setattr(stages_module, 'CAPACITY', 256)


@pytest.fixture
def pair(load_engine, small_cache):
    """Return a function that gives a plain and a static engine of one mode."""

    def engines(mode='consistent'):
        plain = load_engine(mode)
        static = InstructSAM(
            plain.model,
            plain.prompter,
            plain.preprocessor,
            plain.stop_ids,
            mode=mode,
            stages=StaticStages(plain.model, mode, record_calls),
        )
        return plain, static

    return engines


def assert_same(one, other):
    assert (one.answer, one.phrases, one.finish_reason) == (other.answer, other.phrases, other.finish_reason)
    by_slot = [{(each.group, each.slot): each for each in result.instances} for result in (one, other)]
    assert by_slot[0].keys() == by_slot[1].keys() != set()
    for slot, instance in by_slot[0].items():
        assert instance.score == pytest.approx(by_slot[1][slot].score, abs=1e-5)
        assert instance.mask.iou([by_slot[1][slot].mask])[0] > 0.99


@pytest.mark.parametrize('mode', MODES)
def test_results_are_those_of_the_plain_stages(pair, image, mode):
    """For several sizes of images, numbers of phrases, and instructions on one image."""
    plain, static = pair(mode)
    for picture in (image, np.ascontiguousarray(image.transpose(1, 0, 2)), image):
        encoded = [engine.encode(picture) for engine in (plain, static)]
        for names in (['red cup'], ['a', 'the box', 'cup']):
            answer = plain.answer_for(names)
            results = (
                engine.segment(each, 'what is there?', answer=answer, **ALL)
                for engine, each in zip((plain, static), encoded, strict=True)
            )
            assert_same(*results)


@pytest.mark.parametrize('runs_ahead', [False, True])
def test_decoding(pair, image, monkeypatch, runs_ahead):
    """The tokens are chosen by the model itself, which writes no end: the answers have as many as may be."""
    plain, static = pair()
    monkeypatch.setattr(static, 'runs_ahead', runs_ahead)
    answers = []
    for engine in (plain, static):
        sequence = engine._new_sequence(engine.encode(image).prefix)
        with torch.inference_mode():
            output, tokens = sequence.add_text([5, 6, 7]), engine.model.config.tokens
            for forced in (None, None, tokens.phrase_start, None, tokens.phrase_end, None, tokens.phrase_end, None):
                pick = sequence.pick(output)
                if engine.runs_ahead:
                    sequence.run_ahead(pick)
                output = sequence.accept(pick.read()[0]) if forced is None else sequence.add_answer([forced])
        answers.append((sequence.answer_ids, sequence.groups))
    assert answers[0][0] == answers[1][0]
    assert len(answers[0][1]) == 1
    torch.testing.assert_close(answers[0][1][0].hidden, answers[1][1][0].hidden, atol=1e-5, rtol=1e-5)


def test_a_sequence_that_outgrows_the_memory_goes_on(pair, image):
    plain, static = pair()
    sequences = [engine._new_sequence(engine.encode(image).prefix) for engine in (plain, static)]
    start = len(sequences[0].layout)
    with torch.inference_mode():
        outputs = [[sequence.add_text([5] * 20) for _ in range(9)] for sequence in sequences]
        ends = [sequence.add_answer([6]) for sequence in sequences]
    assert start + 9 * 20 > 256 - static_sequence.TEXT_BUCKETS[-1]
    assert sequences[1]._language is None
    assert outputs[1][0].hidden.shape[1] == 1
    torch.testing.assert_close(ends[0].hidden, ends[1].hidden, atol=1e-5, rtol=1e-5)
    assert ends[0].start == ends[1].start


def test_one_sequence_at_a_time_is_replayed(pair, image):
    _, static = pair()
    prefix = static.encode(image).prefix
    first, second = (static._new_sequence(prefix) for _ in range(2))
    assert isinstance(first, StaticSequence)
    assert not isinstance(second, StaticSequence)
    del first
    gc.collect()
    assert isinstance(static._new_sequence(prefix), StaticSequence)


def test_numbers_that_are_not_finite_do_not_stay_in_the_memory(pair, image):
    _, static = pair()
    encoded = static.encode(image)
    before = static.segment(encoded, 'cup', answer=static.answer_for(['cup']), **ALL)
    language = static.stages._language
    language.cache.keys[..., encoded.prefix.cache.length :, :] = float('nan')
    language.cache.values[..., encoded.prefix.cache.length :, :] = float('nan')
    assert_same(before, static.segment(encoded, 'cup', answer=static.answer_for(['cup']), **ALL))


def test_a_model_with_a_trunk(checkpoint, tmp_path, image, small_cache):
    plain = InstructSAM.from_pretrained(write_trunk_model(checkpoint, tmp_path / 'trunk'), device='cpu')
    before = plain.segment(plain.encode(image), 'cup', answer=plain.answer_for(['cup']), **ALL)
    plain.stages = StaticStages(plain.model, plain.mode, record_calls)
    assert_same(before, plain.segment(plain.encode(image), 'cup', answer=plain.answer_for(['cup']), **ALL))


def test_recording_at_load_compares_with_the_plain_stages(engine, monkeypatch, caplog):
    caplog.set_level('INFO')
    stages = StaticStages(engine.model, engine.mode, record_calls)
    inputs = engine.example_inputs()
    warm_up.record_all(stages, engine.prompter, inputs)
    assert 'compiled the detector on 4 phrases (12 of 12)' in caplog.text
    monkeypatch.setattr(
        StaticStages, 'detect', lambda self, *inputs: [each + 1 for each in Stages.detect(self, *inputs)]
    )
    with pytest.raises(ModelError, match='the results of the detector on 1 phrases differ by'):
        warm_up.record_all(stages, engine.prompter, inputs)
    monkeypatch.setattr(warm_up, 'new_stages', lambda *arguments: stages)
    arguments = (engine.model, engine.mode, 'graphs', engine.prompter, inputs)
    with pytest.raises(ModelError, match='compile graphs does not work for this model on this machine: the results'):
        warm_up.compiled_stages(*arguments, strict=True)
    assert type(warm_up.compiled_stages(*arguments, strict=False)) is Stages
    assert 'runs without compiled stages, because graphs does not work here: the results' in caplog.text


def test_ways_to_compile():
    cpu, cuda = torch.device('cpu'), torch.device('cuda')
    assert [resolve_compile(how, cpu) for how in ('auto', 'off', 'inductor')] == ['off', 'off', 'inductor']
    assert [resolve_compile(how, cuda) for how in ('auto', 'graphs')] == ['graphs', 'graphs']
    with pytest.raises(
        ModelError, match='compile graphs needs a CUDA device, and the model is on cpu: use auto or off'
    ):
        resolve_compile('graphs', cpu)
    with pytest.raises(ModelError, match="compile must be one of auto, off, graphs, inductor, got 'on'"):
        resolve_compile('on', cpu)


def test_a_static_call_copies_what_changes():
    call = StaticCall(lambda a, b: (a + b,), [torch.zeros(2), torch.zeros(2)], record_calls)
    one, two = torch.ones(2), torch.full((2,), 2.0)
    assert call(one, two, unchanged=1)[0].tolist() == [3, 3]
    one += 1  # which a caller that names it unchanged must not do
    two += 1
    assert call(one, two, unchanged=1)[0].tolist() == [4, 4]
    assert call(one.clone(), two, unchanged=1)[0].tolist() == [5, 5]


def test_buckets():
    assert [smallest_bucket((8, 16), size) for size in (1, 8, 9, 17)] == [8, 8, 16, None]
    calls = StaticCalls(record_calls, lambda function: function, 2)
    recorded = []
    for bucket in ('a', 'b', 'a', 'c', 'b'):  # 'b' is the oldest when 'c' comes
        calls.get(bucket, lambda value, bucket=bucket: (recorded.append(bucket), (value + 1,))[1], [torch.zeros(1)])
    assert recorded == ['a', 'b', 'c', 'b']
    assert 'c' in calls
    assert 'a' not in calls

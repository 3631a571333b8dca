"""The query modes that an ablation compares: hybrid attention, causal, and without a query bank."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch

from instructsam.core.errors import InstructionError
from instructsam.train.data.collate import Collator
from instructsam.train.data.dialogue import IGNORED
from instructsam.train.data.record_fields import Target
from instructsam.train.data.records import parse
from instructsam.train.data.sample import Sample, Turn
from instructsam.train.engines.autoregressive import AutoregressiveEngine, load_engine
from instructsam.train.loop.recipe import read_recipe
from instructsam.train.loop.run import run
from instructsam.train.losses.objective import Objective
from instructsam.train.modes import AUTOREGRESSIVE
from instructsam.train.stages.forward import detect, read
from instructsam.train.stages.instruct import InstructTraining

FOLDER = Path(os.environ.get('INSTRUCTSAM_REFERENCE', Path(__file__).parents[2] / 'data' / 'reference'))
RECORDS = json.loads((FOLDER / 'training' / 'records.json').read_text())
MODES = ('consistent', 'causal', AUTOREGRESSIVE)


@pytest.fixture(scope='module')
def engines():
    """One engine per mode, on the same weights."""
    return {mode: load_engine(FOLDER / 'checkpoint', mode, device='cpu', dtype='float32') for mode in MODES}


@pytest.fixture(scope='module')
def sample():
    """One turn with three phrases, which have two instances, none and one."""
    two, one = (parse(RECORDS[name], FOLDER, 10, np.random.default_rng(0)) for name in ('multi_two', 'phrase'))
    masks = [mask for turn in two.turns for target in turn.targets for mask in target.masks][:2]
    targets = (Target(tuple(masks)), Target(), Target(tuple(masks[:1])))
    assert len(masks) == 2
    assert one.turns
    return Sample(two.image, two.height, two.width, (Turn('what is there?', ('cups', 'cat', 'red box'), targets),))


def collator(engine, mode):
    return Collator.from_folder(FOLDER / 'checkpoint', engine.model.config, mode=mode)


def answer_of(batch):
    """Return the answer of a batch's only sample: the ids from the first supervised row to the last, the end token."""
    rows = (batch.text.labels[0] != IGNORED).nonzero().flatten()
    return batch.text.ids[0, rows[0] : rows[-1] + 1].tolist()


def queries_of(engine, sample, change=None):
    """Return the hidden states [phrases, K, h] at the queries, with one row of the bank changed (None: none)."""
    with torch.no_grad():
        bank = engine.model.model.mask_queries
        kept = bank.clone()
        if change is not None:
            bank[change] += 1.0
        encoded = engine.encode(sample.with_pixels().pixels.permute(1, 2, 0).numpy())
        sequence = engine._new_sequence(encoded.prefix)
        sequence.add_text(engine.prompter.instruction_ids(sample.turns[0].question))
        sequence.add_answer(engine.answer_for(sample.turns[0].phrases[:1]))
        bank.copy_(kept)
    return torch.stack([group.hidden for group in sequence.groups])


def test_a_causal_query_does_not_attend_to_later_ones(engines, sample):
    for mode, attends in (('consistent', True), ('causal', False)):
        before, after = queries_of(engines[mode], sample), queries_of(engines[mode], sample, change=-1)
        assert torch.allclose(before[0, :-1], after[0, :-1], atol=1e-6) is not attends
        assert not torch.allclose(before[0, -1], after[0, -1], atol=1e-3)


@pytest.mark.parametrize('mode', MODES)
def test_inference_matches_training(engines, sample, mode):
    """Tokens, attention, hidden states of the queries and scores are equal if the engine is forced to the answer."""
    engine = engines[mode]
    batch = collator(engine, mode)([sample])
    *answer, end = answer_of(batch)
    encoded = engine.encode(sample.with_pixels().pixels.permute(1, 2, 0).numpy())
    sequence = engine._new_sequence(encoded.prefix)
    with torch.no_grad():
        sequence.add_text(engine.prompter.instruction_ids(sample.turns[0].question))
        tokens = engine.model.config.tokens
        inserted = () if mode == 'autoregressive' else (tokens.mask_start, tokens.query, tokens.mask_end)
        for token in answer:
            if token not in inserted:
                sequence.add_answer([token])
        hidden = read(engine.model, batch, engine.model.encode_image(batch.patches, *batch.grids))
    length = len(sequence.layout)
    assert sequence.layout.ids == batch.text.ids[0, :length].tolist()
    assert end in engine.stop_ids
    assert torch.equal(sequence.layout.attention_mask(), batch.text.mask[0, 0, :length, :length])
    assert torch.equal(sequence.layout.position_ids(), batch.text.positions[:, 0, :length])
    sizes = [2, 0, 1] if mode == 'autoregressive' else [engine.model.config.num_queries] * 3
    assert [len(group.hidden) for group in sequence.groups] == sizes
    for group, (_, rows), ids in zip(sequence.groups, batch.text.blocks, batch.text.phrase_ids, strict=True):
        torch.testing.assert_close(group.hidden, hidden[0, rows], atol=1e-4, rtol=1e-3)
        assert list(group.phrase_ids) == ids

    found = engine._detect(encoded.features, sequence.groups, _NeverCancelled())
    assert batch.detected == [index for index, size in enumerate(sizes) if size]
    with torch.no_grad():
        grounding = engine.model.grounding
        features = grounding.prepare(grounding.encode(batch.pixels))
        for phrases in batch.detector_calls(5):
            trained = detect(engine.model, features, hidden, batch, phrases)
            for row, index in enumerate(phrases):
                torch.testing.assert_close(found[index][0], trained.mask_logits[row], atol=2e-3, rtol=1e-3)
                torch.testing.assert_close(found[index][1], trained.logits[row].sigmoid(), atol=1e-4, rtol=1e-3)


class _NeverCancelled:
    def check(self):
        pass


def dictate(engine, monkeypatch, ids):
    """Make the model predict the tokens `ids` one after another."""
    wanted = iter(ids)

    def token_logits(hidden):
        logits = torch.zeros(1, engine.model.config.qwen.text_config.vocab_size)
        logits[0, next(wanted)] = 1.0
        return logits

    monkeypatch.setattr(engine.model, 'token_logits', token_logits)


def test_a_generated_answer(engines, sample, monkeypatch):
    engine = engines['autoregressive']
    batch = collator(engine, 'autoregressive')([sample])
    dictate(engine, monkeypatch, answer_of(batch))
    options = {'score_threshold': 0.0, 'suppress_duplicates': False}
    image = sample.with_pixels().pixels.permute(1, 2, 0).numpy()
    result = engine.segment(engine.encode(image), sample.turns[0].question, **options)
    assert result.finish_reason == 'stop'
    assert result.phrases == sample.turns[0].phrases
    assert {(one.group, one.slot) for one in result.instances} <= {(0, 0), (0, 1), (2, 0)}
    assert result.instances
    forced = engine.segment(engine.encode(image), 'what is there?', answer=answer_of(batch)[:-1], **options)
    assert [one.score for one in forced.instances] == pytest.approx([one.score for one in result.instances], abs=1e-4)


def test_at_most_k_mask_tokens(engines, sample, monkeypatch):
    engine = engines['autoregressive']
    tokens, slots = engine.model.config.tokens, engine.model.config.num_queries
    sequence = engine._new_sequence(engine.encode(np.zeros((60, 80, 3), np.uint8)).prefix)
    with torch.no_grad():
        sequence.add_answer([tokens.query])  # a mask token without a phrase before it
        block = [tokens.phrase_start, 5, tokens.phrase_end, tokens.mask_start, *[tokens.query] * (slots + 3)]
        sequence.add_answer(block)
        sequence.add_answer([tokens.query])
    written = [tokens.mask_end, *block[: 4 + slots], *[tokens.mask_end] * 4]
    assert sequence.answer_ids == written == sequence.layout.ids[-len(written) :]
    assert [len(group.hidden) for group in sequence.groups] == [slots]


def test_given_phrases_are_rejected(engines):
    assert isinstance(engines['autoregressive'], AutoregressiveEngine)
    with pytest.raises(InstructionError, match='query bank'):
        engines['autoregressive'].answer_for(['cup'])


def test_every_answer_token_is_supervised(engines, sample):
    engine = engines['autoregressive']
    batch = collator(engine, 'autoregressive')([sample])
    rows = (batch.text.labels[0] != IGNORED).nonzero().flatten()
    assert rows.tolist() == list(range(rows[0], rows[-1] + 1))
    assert torch.equal(batch.text.labels[0, rows], batch.text.ids[0, rows])
    assert (batch.text.ids == engine.model.config.tokens.query).sum() == 3
    counts = {'tokens': len(rows), 'blocks': 3, 'phrases': 2, 'masks': 3, 'all_masks': 3, 'anchored': 0}
    assert batch.counts() == counts


@pytest.mark.parametrize('deep_supervision', [False, True])
@pytest.mark.parametrize('mode', MODES)
def test_training_lowers_the_loss(sample, mode, deep_supervision):
    torch.manual_seed(0)
    engine = load_engine(FOLDER / 'checkpoint', mode, device='cpu', dtype='float32')
    model = engine.model.requires_grad_(True).train()
    batch = collator(engine, mode)([sample])
    training = InstructTraining(model, Objective(), 5, deep_supervision=deep_supervision)
    optimizer = torch.optim.AdamW(model.parameters(), 1e-3)
    totals = []
    for _ in range(4):
        terms = {name: value / batch.counts()[count] for name, (value, count) in training(batch).items()}
        total = sum(terms.values())
        totals.append(total.item())
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
    assert totals[-1] < 0.9 * totals[0]
    assert (model.model.mask_queries.grad is None or not model.model.mask_queries.grad.any()) is (
        mode == 'autoregressive'
    )


@pytest.mark.parametrize('deep_supervision', [False, True])
def test_presence_has_the_weight_of_the_recipe(engines, sample, deep_supervision):
    engine = engines['consistent']
    batch = collator(engine, 'consistent')([sample])
    objectives = Objective(), Objective(presence_loss=2.0), Objective(presence_target='soft_dice')
    with torch.no_grad():
        found = [
            InstructTraining(engine.model, each, 5, deep_supervision=deep_supervision)(batch) for each in objectives
        ]
    one, twice, soft = ({name: value.item() for name, (value, _) in terms.items()} for terms in found)
    assert twice == pytest.approx({**one, 'presence': 2 * one['presence']})
    assert soft == pytest.approx({**one, 'presence': soft['presence']})
    assert soft['presence'] != one['presence']


def test_no_target(engines, sample):
    """Without a mask token the detector does not run, and only the answer has a loss."""
    engine = engines['autoregressive']
    absent = Sample(sample.image, sample.height, sample.width, (Turn('a cat?', ('cat',), (Target(),)),))
    batch = collator(engine, 'autoregressive')([absent])
    assert batch.detected == []
    assert batch.counts()['phrases'] == 0
    for deep_supervision in (False, True):
        terms = InstructTraining(engine.model, Objective(), 5, deep_supervision=deep_supervision)(batch)
        assert terms.pop('answer')[0].item() > 0
        assert len(terms) >= 3
        assert not any(value.item() for value, _ in terms.values())


def test_a_run_is_validated_in_its_mode(recipe, mix, tmp_path):
    keys = {'validation': mix[1:], 'validation_samples': 2, 'steps': 1}
    final = run(read_recipe(recipe('a', instruct={'mode': 'autoregressive'}, **keys)))
    assert list((tmp_path / 'a' / 'pictures').iterdir())
    assert load_engine(final, 'autoregressive', device='cpu').model.config.num_queries == 10

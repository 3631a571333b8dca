"""Samples of every type become batches; typed text stays text; answers without phrases are supervised."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader

from instructsam.core.model.config import ModelConfig
from instructsam.train.data.collate import Collator
from instructsam.train.data.dataset import RecordDataset
from instructsam.train.data.dialogue import IGNORED
from instructsam.train.data.mixing import Source
from instructsam.train.data.record_fields import RecordError
from instructsam.train.data.records import parse
from instructsam.train.data.sample import Sample, Turn

FOLDER = Path(os.environ.get('INSTRUCTSAM_REFERENCE', Path(__file__).parents[2] / 'data' / 'reference'))
RECORDS = json.loads((FOLDER / 'training' / 'records.json').read_text())
SPECIALS = [
    '[SEG]',
    '<|object_ref_start|>',
    '<|object_ref_end|>',
    '<|mask_start|>',
    '<|mask_end|>',
    '<|im_end|>',
    '<|im_start|>',
    '<|image_pad|>',
    '<|vision_start|>',
    '<image>',
    '<|endoftext|>',
]


@pytest.fixture(scope='module')
def config():
    return ModelConfig.from_folder(FOLDER / 'checkpoint')


@pytest.fixture(scope='module')
def collator(config):
    return Collator.from_folder(FOLDER / 'checkpoint', config)


def sample_of(name, seed=0):
    return parse(RECORDS[name], FOLDER, 10, np.random.default_rng(seed))


def test_shorter_forms_of_phrases_reach_the_batch(collator):
    """A phrase without any has an empty list, so that the lists stay aligned with the phrases of the batch."""
    masks, rng = json.loads(RECORDS['phrase']['annotation'])[0]['ann'], np.random.default_rng(0)
    known = {'type': 'sentence', 'text': 'The red cup there?', 'category': 'Red cup left of it', 'ann': masks}
    record = RECORDS['phrase'] | {'annotation': [known | {'shorter': ['Red cup', 'cup']}, known]}
    batch = collator([sample_of('phrase'), parse(record, FOLDER, 10, rng)])
    plain = collator.dialogue.prompter.plain_ids
    assert len(batch.text.shorter_ids) == len(batch.text.phrase_ids)
    assert batch.text.shorter_ids[-2:] == [[plain('red cup'), plain('cup')], []]
    assert not any(batch.text.shorter_ids[:-2])
    for wrong in ('cup', [''], [3], [None]):
        with pytest.raises(RecordError, match='shorter'):
            parse(record | {'annotation': [known | {'shorter': wrong}]}, FOLDER, 10, rng)


def test_anchors_reach_the_batch(collator):
    masks, rng = json.loads(RECORDS['phrase']['annotation'])[0]['ann'], np.random.default_rng(0)
    known = {'type': 'sentence', 'text': 'The red cup there?', 'category': 'Red cup left of it', 'ann': masks}
    record = RECORDS['phrase'] | {'annotation': [known | {'anchors': masks}, known, known | {'anchors': []}]}
    batch = collator([sample_of('phrase'), parse(record, FOLDER, 10, rng)])
    assert len(batch.anchors) == len(batch.masks)
    assert torch.equal(batch.anchors[-3], batch.masks[-3])
    assert [len(anchors) for anchors in batch.anchors[-2:]] == [0, 0]
    assert batch.counts()['anchored'] == 1
    with pytest.raises(RecordError, match='a mask must be RLE'):
        parse(record | {'annotation': [known | {'anchors': ['[3]']}]}, FOLDER, 10, rng)


def test_a_concise_phrase_is_read_with_its_record():
    masks, rng = json.loads(RECORDS['phrase']['annotation'])[0]['ann'], np.random.default_rng(0)
    known = {'type': 'sentence', 'text': 'The red cup there?', 'category': 'Red cup left of it', 'ann': masks}
    record = RECORDS['phrase'] | {'annotation': [known | {'concise': 'Red cup'}, known]}
    turns = parse(record, FOLDER, 10, rng).turns
    assert [turn.concise for turn in turns] == [('red cup',), ('red cup left of it',)]
    assert [turn.concisely().is_partial(0) for turn in turns] == [True, False]
    for wrong in (3, ['cup'], ' '):
        with pytest.raises(RecordError, match='concise'):
            parse(record | {'annotation': [known | {'concise': wrong}]}, FOLDER, 10, rng)


def supervised(collator, batch, row=0):
    """Return the supervised tokens of a sample as text, with special tokens by name."""
    labels = batch.text.labels[row]
    return collator.dialogue.prompter._tokenizer.decode(labels[labels != IGNORED].tolist(), skip_special_tokens=False)


@pytest.mark.parametrize('name', RECORDS)
def test_every_record_type_becomes_a_batch(collator, config, name):
    sample = sample_of(name)
    batch = collator([sample])
    targets = [target for turn in sample.turns for target in turn.targets]
    assert len(targets) == len(batch.text.blocks) == len(batch.text.phrase_ids) == len(batch.masks) == len(batch.boxes)
    for target, masks, boxes in zip(targets, batch.masks, batch.boxes, strict=False):
        assert masks.dtype == torch.bool
        assert masks.shape == (len(target.masks), sample.height, sample.width)
        assert [int(mask.sum()) for mask in masks] == [mask.area for mask in target.masks]
        assert boxes.dtype == torch.float32
        assert boxes.shape == (len(target.boxes), 4)
        assert np.allclose(boxes, np.reshape(target.boxes, (-1, 4)))
    (time, rows, columns), patches = batch.grids[0], batch.patches
    assert time == 1
    assert len(patches) == rows * columns == 4 * int(batch.text.is_image.sum())
    side = config.sam3.vision_config.backbone_config.image_size
    assert batch.pixels.shape == (1, 3, side, side)
    assert batch.pixels.abs().max() <= 1
    answer = ', '.join(sample.turns[0].phrases)
    tags = ('<|object_ref_start|>', '<|object_ref_end|>', '<|mask_start|>', '<|im_end|>')
    said = supervised(collator, batch).split('<|im_end|>')
    assert len(said) == len(sample.turns) + 1
    for tag in tags:
        said[0] = said[0].replace(tag, '')
    assert said[0] == answer


def test_samples_of_a_batch_follow_each_other(collator):
    names = ['phrase', 'null_only', 'bbox', 'multi_two']
    samples = [sample_of(name) for name in names]
    batch, alone = collator(samples), [collator([sample]) for sample in samples]
    for part in ('patches', 'pixels'):
        assert torch.equal(getattr(batch, part), torch.cat([getattr(one, part) for one in alone]))
    assert batch.grids == [grid for one in alone for grid in one.grids]
    assert [row for row, _ in batch.text.blocks] == [row for row, one in enumerate(alone) for _ in one.text.blocks]
    for row, one in enumerate(alone):
        size = one.text.ids.shape[1]
        assert torch.equal(batch.text.ids[row, :size], one.text.ids[0])
        assert (batch.text.ids[row, size:] == collator.pad_id).all()
    for part in ('masks', 'boxes'):
        together, each = getattr(batch, part), [value for one in alone for value in getattr(one, part)]
        assert all(torch.equal(a, b) for a, b in zip(together, each, strict=True))


@pytest.mark.parametrize('special', SPECIALS)
def test_typed_special_tokens_are_plain_text(collator, special):
    """A `[SEG]` in a user's prompt breaks the authors' forward pass, which mistakes it for the position of a query."""
    sample = sample_of('phrase')
    (first, *rest) = sample.turns
    typed = Turn(f'{special} the {special}{special} cup', (f'cup {special}',), first.targets)
    text_only = Turn(special, (), (), f'{special} it says')
    turns = (typed, text_only, *rest)
    batch, plain = (
        collator([Sample(sample.image, sample.height, sample.width, each)])
        for each in (turns, (Turn('cup', ('cup',), first.targets), Turn('x', (), (), 'it says'), *rest))
    )
    tokens = collator.dialogue.prompter.tokens
    for token in (*vars(tokens).values(), collator.pad_id):
        assert (batch.text.ids == token).sum() == (plain.text.ids == token).sum()
    assert (batch.text.ids == tokens.query).sum() == collator.num_queries * len(batch.text.blocks)
    for row, rows in batch.text.blocks:
        assert (batch.text.ids[row, rows] == tokens.query).all()
    assert f'{special} it says<|im_end|>' in supervised(collator, batch)


def test_an_answer_without_phrases_is_supervised_as_text(collator):
    sample = sample_of('phrase')
    text = Sample(sample.image, sample.height, sample.width, (Turn('Is there a cat?', (), (), 'No, there is none.'),))
    batch = collator([text])
    assert batch.text.blocks == batch.masks == batch.boxes == []
    assert supervised(collator, batch) == 'No, there is none.<|im_end|>'
    mixed = collator([text, sample])
    assert {row for row, _ in mixed.text.blocks} == {1}
    assert supervised(collator, mixed) == 'No, there is none.<|im_end|>'


def test_an_image_of_another_size_is_refused(collator, tmp_path):
    Image.new('RGB', (20, 10)).save(tmp_path / 'a.png')
    with pytest.raises(RecordError, match='20 x 10 px, the record says width 10 and height 20'):
        collator([Sample(tmp_path / 'a.png', 20, 10, (Turn('x', (), (), 'y'),))])


def test_branches_are_asked_for_only_if_wanted(collator, config):
    asked = []

    class Recorder:
        def write(self, *arguments, **options):
            asked.append(options)
            return collator.dialogue.write(*arguments)

    parts = (collator.preprocessor, config.num_queries, collator.image_size, collator.merge, collator.pad_id)
    for branches in (False, True):
        Collator(Recorder(), *parts, branches=branches)([sample_of('phrase')])
    assert asked == [{'branches': False}, {'branches': True}]


def test_workers_prepare_batches(collator, tmp_path):
    (tmp_path / 'a.json').write_text(json.dumps(list(RECORDS.values())))
    mix = RecordDataset([Source(tmp_path / 'a.json', FOLDER, 2)], 10)
    batches = list(DataLoader(mix, 2, num_workers=2, collate_fn=collator))
    assert len(batches) == len(RECORDS)
    here = collator([mix[0], mix[1]])
    assert torch.equal(batches[0].text.ids, here.text.ids)
    assert torch.equal(batches[0].patches, here.patches)
    assert all(torch.equal(a, b) for a, b in zip(batches[0].masks, here.masks, strict=True))

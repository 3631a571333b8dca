"""Concept prompting as a function, as an engine and in the tabletop benchmark."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch

from instructsam.core import InstructSAM
from instructsam.core.engine import SlotMasks
from instructsam.core.model.graphs.stages import new_stages
from instructsam.core.model.grounding import resize_masks
from instructsam.core.rle import Rle
from instructsam.train.engines.concept import ConceptEngine, concept_detections
from instructsam.train.evaluation.query import ImageQueries, Query
from instructsam.train.evaluation.running.prompting import PromptOptions, answer_images
from instructsam.train.stages.forward import detect_layers

FOLDER = Path(os.environ.get('INSTRUCTSAM_REFERENCE', Path(__file__).parents[2] / 'data' / 'reference'))
PHRASES = ('red mug', 'spoon')
IMAGE = np.random.default_rng(0).integers(0, 256, (90, 120, 3), dtype=np.uint8)


@pytest.fixture(scope='module')
def engine():
    return InstructSAM.from_pretrained(FOLDER / 'checkpoint', device='cpu')


def detections(engine, features):
    return concept_detections(engine.model, features, [engine.prompter.plain_ids(phrase) for phrase in PHRASES])


def test_detections_are_those_that_the_base_stage_trains(engine):
    features = engine.encode(IMAGE).features
    masks, scores = detections(engine, features)
    slots = engine.model.config.num_queries
    assert masks.shape[:2] == scores.shape == (2, slots)
    assert 0 <= scores.min() <= scores.max() <= 1
    decoder = engine.model.grounding.detr_decoder
    with torch.no_grad():
        trained = detect_layers(
            engine.model,
            features.of_groups([0, 0]),
            decoder.query_embed.weight.expand(2, 1, -1, -1),
            decoder.reference_points.weight.expand(2, 1, -1, -1),
            [engine.prompter.plain_ids(p) for p in PHRASES],
        )
    assert torch.allclose(trained.logits[-1, :, 0].sigmoid(), scores, atol=1e-5)
    assert len({tuple(row) for row in scores.tolist()}) == 2  # the result depends on the phrase


def test_an_engine_that_prompts_with_concepts(engine):
    concepts = ConceptEngine.from_engine(engine)
    encoded = concepts.encode(IMAGE)
    options = {'score_threshold': 0.0, 'suppress_duplicates': False}
    found = concepts.segment(encoded, 'give me both', answer=concepts.answer_for(PHRASES), **options)
    assert found.phrases == PHRASES
    masks, scores = detections(engine, encoded.features)
    assert found.instances
    for instance in found.instances:
        assert instance.score == pytest.approx(float(scores[instance.group, instance.slot]), abs=1e-5)
        mask = resize_masks(masks[instance.group, instance.slot][None], 90, 120)[0] > 0
        assert instance.mask.iou([Rle.encode(mask.numpy())])[0] > 0.99
    other = concepts.segment(encoded, 'something else', answer=concepts.answer_for(PHRASES), **options)
    assert [i.score for i in other.instances] == [i.score for i in found.instances]  # the instruction has no effect
    own = engine.segment(engine.encode(IMAGE), 'give me both', answer=engine.answer_for(PHRASES), **options)
    assert [i.score for i in own.instances] != [i.score for i in found.instances]
    written = [each.segment(each.encode(IMAGE), 'give me both', max_new_tokens=4).answer for each in (engine, concepts)]
    assert written[0] == written[1]


def test_compiled_stages_are_kept():
    """Only the detector is another one: the encoders and the language model are replayed, with the same results."""
    engine = InstructSAM.from_pretrained(FOLDER / 'checkpoint', device='cpu')
    plain = ConceptEngine.from_engine(engine)
    engine.stages = new_stages(engine.model, engine.mode, 'graphs')
    replayed = ConceptEngine.from_engine(engine)
    assert replayed.stages is engine.stages
    options = {'score_threshold': 0.0, 'suppress_duplicates': False, 'max_new_tokens': 4}
    for answer in (None, plain.answer_for(PHRASES)):
        found, same = (
            each.segment(each.encode(IMAGE), 'give me both', answer=answer, **options) for each in (replayed, plain)
        )
        assert found.answer == same.answer
        assert [one.score for one in found.instances] == pytest.approx([one.score for one in same.instances], abs=1e-5)


def test_the_benchmark_uses_it(engine, monkeypatch):
    mask = np.zeros(IMAGE.shape[:2], bool)
    mask[10:40, 10:50] = True
    query = Query('0-0', 'the red mug', (Rle.encode(mask),), phrases=('red mug',))
    prompted = []
    monkeypatch.setattr(
        ConceptEngine,
        '_detect_groups',
        lambda self, features, groups: (
            prompted.append([group.text_ids for group in groups])
            or [SlotMasks(torch.ones(1, 8, 8), torch.tensor([0.75]))]
        ),
    )
    images = [ImageQueries('by hand', (query,), IMAGE)]
    (outcome,) = answer_images(engine, images, PromptOptions(phrase='given', own_queries=True))
    assert prompted == [[tuple(engine.prompter.plain_ids('red mug'))]]
    assert outcome.scores == (0.75,)
    assert np.isnan(outcome.answer_accuracy)
    assert outcome.masks[0].iou(query.ground_truth)[0] == pytest.approx(mask.mean())

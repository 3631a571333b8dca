"""Phrase scores: one decision whether a phrase refers to anything multiplies the scores of its slots."""

import pytest
import torch
from sample_models import write_trunk_model

from instructsam.core import InstructSAM
from instructsam.core.model.config import ModelConfig
from instructsam.core.model.instructsam import INITIAL_PHRASE_SCORE, InstructSAMModel, _logit_of_product
from instructsam.train.weights.initialise import initialise

SIDE = 64


@pytest.fixture(scope='module')
def folder(checkpoint, tmp_path_factory):
    return write_trunk_model(checkpoint, tmp_path_factory.mktemp('phrase_scores') / 'model', SIDE)


@pytest.fixture
def scored(folder):
    return InstructSAM.from_pretrained(folder, device='cpu', dtype='float32')


def states(count=2):
    return torch.randn(count, 10, 64, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize('first', [-40.0, -3.0, 0.0, 2.0, 30.0])
@pytest.mark.parametrize('second', [-40.0, -1.0, 0.0, 5.0, 40.0])
def test_the_logit_of_a_product_is_exact(first, second):
    pair = torch.tensor([first, second])
    # log p - log (1 - p), where 1 - p = (1 - a) + a (1 - b); each in double precision.
    a, b = pair.double()
    log_p = -torch.logaddexp(torch.zeros(()).double(), -a) - torch.logaddexp(torch.zeros(()).double(), -b)
    log_rest = ((-a).sigmoid() + a.sigmoid() * (-b).sigmoid()).log()
    torch.testing.assert_close(_logit_of_product(*pair).double(), log_p - log_rest, rtol=1e-5, atol=1e-5)


def test_an_infinite_logit_leaves_the_other_as_it_is():
    logits = torch.tensor([-50.0, -1.0, 0.0, 3.0, 50.0])
    assert torch.equal(_logit_of_product(logits, torch.full((5,), torch.inf)), logits)


@torch.inference_mode()
def test_untrained_phrase_scores_hardly_change_anything(scored):
    assert torch.equal(scored.model.phrase_scores(states()), torch.full((2,), INITIAL_PHRASE_SCORE))
    assert torch.tensor(INITIAL_PHRASE_SCORE).sigmoid() > 0.99


@torch.inference_mode()
def test_a_model_without_them_is_certain(engine):
    assert engine.model.model.phrase_score_fcs is None
    width = engine.model.config.text.hidden_size
    assert torch.equal(engine.model.phrase_scores(torch.zeros(2, 10, width)), torch.full((2,), torch.inf))


@torch.no_grad()
def test_they_do_not_depend_on_the_order_of_the_slots(scored):
    last = scored.model.model.phrase_score_fcs[-1]
    last.weight.normal_(generator=torch.Generator().manual_seed(2))
    hidden = states()
    logits = scored.model.phrase_scores(hidden)
    assert logits[0] != logits[1]
    torch.testing.assert_close(scored.model.phrase_scores(hidden.flip(1)), logits)


@torch.no_grad()
@pytest.mark.parametrize('logit', [-1.0, 2.0])
def test_their_probability_multiplies_the_scores(scored, image, logit):
    encoded, answer = scored.encode(image), scored.answer_for(['mug', 'bowl'])
    last = scored.model.model.phrase_score_fcs[-1]

    def scores():
        result = scored.segment(encoded, 'mug', answer=answer, score_threshold=0, suppress_duplicates=False)
        return torch.tensor([each.score for each in result.instances])

    last.bias.fill_(torch.inf)
    own = scores()
    assert len(own) == 20
    last.bias.fill_(logit)
    torch.testing.assert_close(scores(), own * torch.tensor(logit).sigmoid(), rtol=1e-4, atol=1e-6)


def test_initialised_weights_start_there(folder):
    model = InstructSAMModel(ModelConfig.from_folder(folder))
    initialise(model, 3)
    first, last = model.model.phrase_score_fcs
    assert first[0].weight.any()
    assert not last.weight.any()
    assert last.bias.item() == INITIAL_PHRASE_SCORE

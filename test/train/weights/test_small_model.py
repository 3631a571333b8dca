"""The folder that training of the small model starts from."""

import pytest
import torch
from transformers import AutoTokenizer

from instructsam.core import InstructSAM
from instructsam.core.builtin import FOLDER
from instructsam.core.model import checkpoint
from instructsam.core.model.trunk import Trunk
from instructsam.train.loop.recipe import Recipe
from instructsam.train.loop.run import start_model
from instructsam.train.weights.small_model import write_folder, write_weights

LIMIT_BYTES = 30e6


@pytest.fixture(scope='module')
def trunk():
    with torch.random.fork_rng():
        torch.manual_seed(3)
        return Trunk().state_dict()


@pytest.fixture(scope='module')
def folder(tmp_path_factory, trunk):
    folder = tmp_path_factory.mktemp('small') / 'model'
    write_folder(folder)
    write_weights(folder, trunk)
    return folder


def same(one, other):
    return all(torch.equal(one[name], other[name]) for name in one)


def test_text_files_are_those_of_the_shipped_model(folder):
    """The shipped weights depend on the tokenizer and the template."""
    for name in ('tokenizer.json', 'tokenizer_config.json', 'chat_template.jinja', 'generation_config.json'):
        assert (folder / name).read_bytes() == (FOLDER / 'tabletop' / name).read_bytes(), name


def test_words_of_the_tabletop_world_are_single_tokens(folder):
    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    for text in ('red mug', 'two yellow bananas', 'leftmost knife', 'Please hand me the wooden spoon in the bowl.'):
        assert len(tokenizer.tokenize(text)) == len(text.split()) + text.count('.'), text


def test_weights_are_random_but_for_the_trunk(folder, trunk):
    model = checkpoint.load(folder, 'cpu', None)
    assert same(model.model.trunk.state_dict(), trunk)
    assert (folder / checkpoint.SINGLE).stat().st_size / 2 < LIMIT_BYTES  # it is exported in half precision


def test_the_engine_answers_with_masks_of_a_quarter_of_the_side(folder, image):
    engine = InstructSAM.from_pretrained(folder, device='cpu')
    encoded = engine.encode(image)
    assert [level.convolved.shape[-1] for level in encoded.features.levels] == [48, 96]
    assert encoded.features.side == 24
    result = engine.segment(encoded, 'mug', answer=engine.answer_for(['mug']), score_threshold=0)
    assert result.instances


def test_a_seed_draws_all_weights_but_the_trunks(folder, trunk):
    """A recipe that initialises draws them anew, whatever the folder has, and keeps the pretrained trunk."""
    models = [
        start_model(Recipe('pixels', str(folder), '', ({},), initialise=True, seed=seed), folder) for seed in (1, 1, 2)
    ]
    one, again, other = (model.state_dict() for model in models)
    assert same(one, again)
    assert not same(one, other)
    for model in models:
        assert same(model.model.trunk.state_dict(), trunk)
        assert not model.model.reference_fcs[-1].weight.any()
        assert not model.model.score_fc.weight.any()

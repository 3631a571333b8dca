"""Turns as branches: each is computed as if it were the only turn."""

from pathlib import Path

import pytest
import torch
from transformers import AutoTokenizer

from instructsam.core.builtin import FOLDER
from instructsam.core.model.config import ModelConfig
from instructsam.core.model.instructsam import InstructSAMModel
from instructsam.core.model.prompt import Prompter
from instructsam.core.model.token_layout import TokenLayout
from instructsam.train.data.batch import batch_scripts
from instructsam.train.data.dialogue import IGNORED, Dialogue
from instructsam.train.data.record_fields import Target
from instructsam.train.data.sample import Sample, Turn
from instructsam.train.weights.initialise import initialise

TURNS = (
    Turn('Where is the red mug?', ('red mug',), (Target(),)),
    Turn('Give me the bowl and the spoons, please.', ('bowl', 'spoons'), (Target(), Target())),
    Turn('What can I cut with?', ('knife',), (Target(),)),
)
ROWS, COLUMNS = 3, 4


@pytest.fixture(scope='module')
def model():
    found = InstructSAMModel(ModelConfig.from_folder(FOLDER / 'tabletop'))
    initialise(found, seed=3)
    return found


@pytest.fixture(scope='module')
def dialogue(model):
    tokenizer = AutoTokenizer.from_pretrained(FOLDER / 'tabletop', local_files_only=True)
    return Dialogue(tokenizer, Prompter(tokenizer, model.config.tokens))


def script(dialogue, model, turns, branches=False):
    return dialogue.write(
        Sample(Path(), 1, 1, tuple(turns)), model.config.num_queries, ROWS, COLUMNS, branches=branches
    )


@torch.no_grad()
def hidden(model, written):
    """Return hidden states [L, h], labels [L] and ids [L] of a script; image tokens are embedded like text."""
    batch = batch_scripts([written], 0)
    return model.decode(model.embed(batch.ids), batch.positions, batch.mask)[0], batch.labels[0], batch.ids[0]


def test_a_branch_is_as_if_alone(model, dialogue):
    together, labels, ids = hidden(model, script(dialogue, model, TURNS, branches=True))
    trunk = len(script(dialogue, model, ()).layout)
    start = trunk
    for turn in TURNS:
        alone, own_labels, own_ids = hidden(model, script(dialogue, model, [turn]))
        rows = slice(start, start + len(alone) - trunk)
        assert torch.equal(ids[rows], own_ids[trunk:])
        assert torch.equal(labels[rows], own_labels[trunk:])
        torch.testing.assert_close(together[rows], alone[trunk:], atol=1e-5, rtol=1e-4)
        start = rows.stop
    assert start == len(together)
    assert (labels != IGNORED).sum() > 0


def test_turns_of_a_dialogue_do_see_each_other(model, dialogue):
    together, *_ = hidden(model, script(dialogue, model, TURNS))
    alone, *_ = hidden(model, script(dialogue, model, TURNS[2:]))
    assert not torch.allclose(together[-5:], alone[-5:], atol=1e-3)


def test_a_copy_continues_like_its_original(model):
    layout = TokenLayout(model.config.tokens, 2, 'consistent')
    layout.add_text([1, 2])
    layout.start_branch()
    copy = layout.copy()
    for each in (layout, copy):
        each.add_text([3])
        each.start_branch()
        each.add_text([4, 5])
    assert layout == copy
    assert [position[0] for position in layout.positions] == [0, 1, 2, 2, 3]
    assert layout.attention_mask().int().tolist() == [
        [1, 0, 0, 0, 0],
        [1, 1, 0, 0, 0],
        [1, 1, 1, 0, 0],
        [1, 1, 0, 1, 0],
        [1, 1, 0, 1, 1],
    ]

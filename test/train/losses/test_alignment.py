"""Alignment of words with image features: correct words cost almost nothing, wrong ones get a gradient."""

from types import SimpleNamespace

import pytest
import torch

from instructsam.train.losses.alignment import Alignment

SIDE, CELLS, MERGE, WIDTH = 32, 4, 2, 6
CUP, BOWL, SPOON, NEW = 1, 2, 3, 4  # token ids of words
CONFIG = SimpleNamespace(bridge_dim=WIDTH, text=SimpleNamespace(hidden_size=WIDTH))


class Model:
    """Stands in for the model: the embedding and conditioning of a word is its one-hot index in the vocabulary."""

    def __init__(self):
        self.table = (40.0 * torch.eye(WIDTH)).requires_grad_()

    def embed(self, ids):
        return self.table[ids]

    def pad_phrases(self, phrases):
        ids = torch.zeros(len(phrases), 8, dtype=torch.int64)
        for row, phrase in enumerate(phrases):
            ids[row, : len(phrase)] = torch.tensor(phrase)
        return ids, ids > 0

    def phrase_conditioning(self, phrases, mode):
        ids, mask = self.pad_phrases(phrases)
        return self.embed(ids), mask


@pytest.fixture
def scene():
    """Return a batch and cells [2, 4, 4, WIDTH]: a cup and a bowl in the first image, a cup in the second."""
    shown = torch.zeros(2, CELLS, CELLS, dtype=torch.int64)
    shown[0, :2, :2], shown[0, 3, 2:], shown[1, 1:3, :] = CUP, BOWL, CUP
    masks = shown.repeat_interleave(SIDE // CELLS, 1).repeat_interleave(SIDE // CELLS, 2)
    asked = [(0, [CUP]), (0, [BOWL, NEW]), (1, [CUP]), (1, [SPOON])]
    batch = SimpleNamespace(
        text=SimpleNamespace(
            blocks=[(sample, None) for sample, _ in asked],
            phrase_ids=[ids for _, ids in asked],
            partial=[False] * len(asked),
        ),
        masks=[
            (masks[sample] == ids[0])[None] if ids != [SPOON] else torch.zeros(0, SIDE, SIDE).bool()
            for sample, ids in asked
        ],
        grids=[(1, CELLS * MERGE, CELLS * MERGE)] * 2,
    )
    return batch, torch.nn.functional.one_hot(shown, WIDTH).float()


def perfect():
    """Return an Alignment whose projections are the identity."""
    alignment = Alignment(CONFIG)
    for layer in (*(each[1] for each in alignment.places.values()), *alignment.words.values()):
        layer.weight.data = torch.eye(WIDTH)
        layer.bias.data.zero_()
    return alignment


def losses_of(alignment, model, scene):
    batch, shown = scene
    found = alignment(model, batch, shown.flatten(0, 2), shown.permute(0, 3, 1, 2))
    assert {count for _, count in found.values()} == {'blocks'}
    return {name: value for name, (value, _) in found.items()}


def test_correct_predictions_cost_little(scene):
    losses = losses_of(perfect(), Model(), scene)
    assert set(losses) == {'align_coarse', 'align_tokens'}
    assert all(value.item() < 0.3 for value in losses.values()), losses


def test_fused_features_distinguish_the_cells_of_their_phrase(scene):
    batch, _ = scene
    alignment = perfect()
    alignment.fused[1].weight.data, alignment.fused[1].bias.data = 40 * torch.eye(WIDTH)[:1], torch.zeros(1)
    unions = torch.stack([masks.any(0) for masks in batch.masks])[:, None].float()
    encoded = torch.zeros(4, CELLS, CELLS, WIDTH)
    encoded[..., 0] = 2 * torch.nn.functional.avg_pool2d(unions, SIDE // CELLS)[:, 0] - 1
    value, count = alignment.fused_loss(encoded, batch.masks)['align_fused']
    assert value.item() == pytest.approx(0, abs=1e-3)
    assert count == 'phrases'
    assert alignment.fused_loss(-encoded, batch.masks)['align_fused'][0] > 100


def test_phrases_that_may_describe_more_are_left_out(scene):
    batch, _ = scene
    loss = losses_of(perfect(), Model(), scene)['align_tokens']
    batch.text.partial[0], batch.masks[0] = True, torch.zeros(0, SIDE, SIDE).bool()  # "the cup", but not this one
    assert losses_of(perfect(), Model(), scene)['align_tokens'] < loss


def test_words_learn_from_their_positions(scene):
    model = Model()
    model.table.data[CUP] = model.table.data[SPOON].clone()  # the word for cup means an object that no image shows
    losses = losses_of(perfect(), model, scene)
    assert all(value.item() > 2 for value in losses.values()), losses
    sum(losses.values()).backward()
    # The gradient moves the word towards the cups and away from the table.
    assert model.table.grad[CUP, CUP] < 0 < model.table.grad[CUP, 0]
    assert model.table.grad[NEW].abs().sum() > 0  # every word of a phrase counts
    assert model.table.grad[0].abs().sum() == 0  # padding does not count


def test_images_of_two_sizes_share_a_batch(scene):
    """The cells of the grid are what counts, not the pixels of the masks."""
    batch, _ = scene
    before = losses_of(perfect(), Model(), scene)
    batch.masks[2:] = [masks.repeat_interleave(2, 1).repeat_interleave(2, 2) for masks in batch.masks[2:]]
    assert losses_of(perfect(), Model(), scene) == before

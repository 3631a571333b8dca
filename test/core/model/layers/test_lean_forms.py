"""The lean forms of the encoders and the language model give what transformers' modules give on the same weights."""

import pytest
import torch
from sample_models import random_model

from instructsam.core.model.config import ModelConfig
from instructsam.core.model.grounding import sam3
from instructsam.core.model.layers.kv_cache import ROOM
from instructsam.core.model.layers.rotary import RotaryTable, rotate_halves
from instructsam.core.model.sequence import TokenSequence, encode_prefix
from instructsam.core.modes import MODES


@pytest.fixture(scope='module')
def model(checkpoint):
    model = random_model(ModelConfig.from_folder(checkpoint))
    model.join_projections()
    return model


def random(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


@torch.no_grad()
@pytest.mark.parametrize('grid', [(1, 4, 6), (1, 2, 2), (1, 10, 4)])
def test_the_vision_tower(model, grid):
    patches = random(grid[1] * grid[2], model.model.visual.patch_embed.proj.weight[0].numel())
    lean = model.encode_image(patches, grid)
    expected = model.model.visual(patches, grid_thw=torch.tensor([grid]))
    torch.testing.assert_close(lean.embeddings, expected.pooler_output, atol=1e-4, rtol=1e-4)
    assert len(lean.deepstack) == len(expected.deepstack_features) > 0
    for one, other in zip(lean.deepstack, expected.deepstack_features, strict=True):
        torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_the_attention_of_sams_encoder(model):
    backbone = model.grounding.vision_encoder.backbone
    original = sam3.Sam3ViTModel(backbone.config).eval()
    original.load_state_dict(backbone.state_dict())
    side = backbone.config.image_size
    pixels = random(2, 3, side, side)
    expected = original(pixels).last_hidden_state
    torch.testing.assert_close(backbone(pixels).last_hidden_state, expected, atol=1e-5, rtol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize('mode', MODES)
def test_the_language_model_pass_by_pass(engine, model, mode):
    """Passes on a cache give the hidden states of one pass with the whole attention mask."""
    grid, tokens = (1, 4, 6), model.config.tokens
    visual = model.encode_image(random(24, model.model.visual.patch_embed.proj.weight[0].numel()), grid)
    prefix, first = encode_prefix(model, engine.prompter, mode, visual, grid, needs_hidden=True)
    sequence = TokenSequence(model, prefix)
    passes = [first, sequence.add_text([5, 6, 7])]
    for ids in ([tokens.phrase_start, 8, 9], [tokens.phrase_end], [10], [tokens.phrase_start, 8, tokens.phrase_end, 9]):
        passes.append(sequence.add_answer(ids))
    layout = sequence.layout
    ids = torch.tensor([layout.ids])
    embeds = model.embed(ids)
    embeds[ids == tokens.image] = visual.embeddings
    embeds[ids == tokens.query] = model.model.mask_queries.repeat(2, 1)
    mask, positions = layout.attention_mask()[None, None], layout.position_ids()[:, None]
    expected = model.decode(embeds, positions, mask, ids == tokens.image, visual.deepstack)
    torch.testing.assert_close(torch.cat([each.hidden for each in passes], dim=1), expected, atol=1e-4, rtol=1e-4)
    unneeded, _ = encode_prefix(model, engine.prompter, mode, visual, grid)
    assert all(torch.equal(*pair) for pair in zip(unneeded.cache.rows(), prefix.cache.rows(), strict=True))


def test_one_sequence_at_a_time_shares_the_memory_of_its_prefix(engine, image):
    prefix = engine.encode(image).prefix
    before = [rows.clone() for rows in prefix.cache.rows()]
    first, second = (TokenSequence(engine.model, prefix) for _ in range(2))
    assert first._cache.keys.data_ptr() == prefix.cache.keys.data_ptr()
    assert second._cache.keys.data_ptr() != prefix.cache.keys.data_ptr()
    with torch.inference_mode():
        results = [sequence.add_text([5, 6, 7]).hidden for sequence in (first, second)]
        assert torch.equal(*results)
        first.add_text([5] * (ROOM + 1))  # more than fits
    assert all(torch.equal(*pair) for pair in zip(before, prefix.cache.rows(), strict=True))
    address = first._cache.keys.data_ptr()
    assert address != prefix.cache.keys.data_ptr()
    del first
    assert TokenSequence(engine.model, prefix)._cache.keys.data_ptr() == prefix.cache.keys.data_ptr()


def test_rotations_of_halves():
    angles = random(3, 4).repeat(1, 2)
    values = random(2, 3, 5, 8)
    first, second = values.chunk(2, dim=-1)
    swapped = torch.cat([-second, first], dim=-1)
    expected = values * angles.cos()[:, None] + swapped * angles.sin()[:, None]
    assert torch.equal(rotate_halves(values, RotaryTable.of(angles.cos(), angles.sin())), expected)

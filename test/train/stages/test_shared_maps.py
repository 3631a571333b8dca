"""Features shared by the phrases of an image: the results and gradients are those of SAM3's own pixel decoder."""

import pytest
import torch
from sample_models import random_model

from instructsam.core.model.config import ModelConfig
from instructsam.core.model.grounding import ImageFeatures
from instructsam.train.stages.forward import detect_layers
from instructsam.train.stages.shared_maps import SharedFeatures, pixel_maps

SAMPLES = [0, 1, 0]  # image of each phrase
WORDS = [3, 1, 2]
TOKENS = 4


@pytest.fixture(scope='module')
def model(checkpoint):
    return random_model(ModelConfig.from_folder(checkpoint)).requires_grad_(True)


@pytest.fixture(scope='module')
def features(model):
    """Features of two images, random because those of random weights hardly vary."""
    sam = model.grounding
    width, rows = sam.mask_decoder.pixel_decoder.out_channels, sam.rows
    generator = torch.Generator().manual_seed(0)
    pyramid = [torch.randn(2, width, n * rows, n * rows, generator=generator, requires_grad=True) for n in (4, 2, 1)]
    return ImageFeatures(tuple(pyramid), torch.randn(1, width, rows, rows, generator=generator))


@pytest.fixture(scope='module')
def phrases(model):
    """Return fused features, phrase conditioning and its mask."""
    sam = model.grounding
    width = sam.mask_decoder.pixel_decoder.out_channels
    generator = torch.Generator().manual_seed(1)
    encoded = torch.randn(3, sam.rows**2, width, generator=generator, requires_grad=True)
    text = torch.randn(3, TOKENS, width, generator=generator)
    return encoded, text, torch.arange(TOKENS)[None] < torch.tensor(WORDS)[:, None]


def gradients(value, model, features, encoded):
    """Return the gradients of all that the pixel decoder reads."""
    decoder = model.grounding.mask_decoder.pixel_decoder
    weights = (*decoder.conv_layers[:2].parameters(), *decoder.norms[:2].parameters())
    return torch.autograd.grad(value.square().sum(), (*features.pyramid[:2], encoded, *weights))


def test_maps_and_gradients_are_those_of_the_pixel_decoder(model, features, phrases):
    sam = model.grounding
    ours = pixel_maps(sam, SharedFeatures.of(sam, features).of_phrases(SAMPLES), *phrases)
    theirs = sam.pixel_embeddings(tuple(level[SAMPLES] for level in features.pyramid), *phrases)
    assert torch.allclose(ours, theirs, atol=1e-4)
    pairs = zip(*(gradients(each, model, features, phrases[0]) for each in (ours, theirs)), strict=True)
    for gradient, expected in pairs:
        assert torch.allclose(gradient, expected, rtol=1e-3, atol=1e-4 * expected.abs().max())


def test_vectors_and_offsets_give_the_masks(model, features, phrases):
    sam = model.grounding
    pixels = sam.pixel_embeddings(tuple(level[SAMPLES] for level in features.pyramid), *phrases)
    slots = torch.randn(3, 5, pixels.shape[1], generator=torch.Generator().manual_seed(2))
    vectors, offsets = sam.mask_vectors(slots)
    masks = torch.einsum('pkc,pchw->pkhw', vectors, pixels) + offsets[..., None, None]
    assert torch.allclose(masks, sam.masks(slots, sam.mask_decoder.instance_projection(pixels)), atol=1e-4)


def test_the_semantic_map_is_sam3s(model, features):
    decoder = model.grounding.detr_decoder
    queries = decoder.query_embed.weight.expand(3, 1, -1, -1)
    references = decoder.reference_points.weight.expand(3, 1, -1, -1)
    shared = SharedFeatures.of(model.grounding, features).of_phrases(SAMPLES)
    outputs = detect_layers(model, shared, queries, references, [[5], [6, 7], [8]])
    expected = model.grounding.mask_decoder.semantic_projection(outputs.pixels)[:, 0]
    assert torch.allclose(outputs.semantic, expected, atol=1e-4)


def test_features_of_boxes_only_have_no_maps(model, features):
    coarse = ImageFeatures(features.pyramid[-1:], features.position)
    assert SharedFeatures.of(model.grounding, coarse).of_phrases(SAMPLES).convolved == ()

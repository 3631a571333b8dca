"""SAM3 with the work of an image done once: results and gradients are those of transformers' own modules."""

import pytest
import torch
from sample_models import random_model

from instructsam.core.model.config import ModelConfig
from instructsam.core.model.grounding import ImageFeatures, sam3

IMAGES = [0, 1, 0]  # of each phrase
WORDS = [3, 1, 2]
TOKENS = 4


@pytest.fixture(scope='module')
def sam(checkpoint):
    return random_model(ModelConfig.from_folder(checkpoint)).requires_grad_(True).grounding


@pytest.fixture(scope='module')
def features(sam):
    """Features of two images, random because those of random weights hardly vary."""
    width, rows = sam.mask_decoder.pixel_decoder.out_channels, sam.rows
    generator = torch.Generator().manual_seed(0)
    pyramid = [torch.randn(2, width, n * rows, n * rows, generator=generator, requires_grad=True) for n in (4, 2, 1)]
    return ImageFeatures(tuple(pyramid), torch.randn(1, width, rows, rows, generator=generator))


@pytest.fixture(scope='module')
def phrases(sam):
    """Return phrase conditioning and its mask."""
    width = sam.mask_decoder.pixel_decoder.out_channels
    text = torch.randn(3, TOKENS, width, generator=torch.Generator().manual_seed(1))
    return text, torch.arange(TOKENS)[None] < torch.tensor(WORDS)[:, None]


def original(module, kind):
    """Return transformers' module of a class with the same weights."""
    copy = kind(module.config)
    copy.load_state_dict(module.state_dict(), strict=False)
    return copy.eval()


def of_phrases(features):
    return [level[IMAGES] for level in features.pyramid], features.position.expand(3, -1, -1, -1)


def test_the_fusion_encoder_is_sam3s(sam, features, phrases):
    text, mask = phrases
    (*_, coarse), position = of_phrases(features)
    expected = original(sam.detr_encoder, sam3.Sam3DetrEncoder)([coarse], text, [position], mask).last_hidden_state
    got = sam.fuse(sam.prepare(features).of_groups(IMAGES), text, mask)
    torch.testing.assert_close(got, expected, atol=1e-5, rtol=1e-5)


def sam3_pixels(sam, features, encoded, text, mask):
    """Return the output of transformers' pixel decoder."""
    decoder = sam.mask_decoder
    attended, _ = decoder.prompt_cross_attn(
        decoder.prompt_cross_attn_norm(encoded), text, text, attention_mask=mask[:, None, None]
    )
    pyramid, _ = of_phrases(features)
    coarse = (encoded + attended).transpose(1, 2).reshape(pyramid[-1].shape)
    return decoder.pixel_decoder([*pyramid[:-1], coarse])


def gradients(value, sam, features, encoded):
    """Return the gradients of all that the pixel decoder reads."""
    decoder = sam.mask_decoder.pixel_decoder
    weights = (*decoder.conv_layers[:2].parameters(), *decoder.norms[:2].parameters())
    return torch.autograd.grad(value.square().sum(), (*features.pyramid[:2], encoded, *weights))


def test_maps_and_gradients_are_those_of_the_pixel_decoder(sam, features, phrases):
    shape = 3, sam.rows**2, phrases[0].shape[-1]
    encoded = torch.randn(shape, generator=torch.Generator().manual_seed(2)).requires_grad_()
    ours = sam.pixel_maps(sam.prepare(features).of_groups(IMAGES), encoded, *phrases)
    theirs = sam3_pixels(sam, features, encoded, *phrases)
    assert torch.allclose(ours, theirs, atol=1e-4)
    pairs = zip(*(gradients(each, sam, features, encoded) for each in (ours, theirs)), strict=True)
    for gradient, expected in pairs:
        assert torch.allclose(gradient, expected, rtol=1e-3, atol=1e-4 * expected.abs().max())


@pytest.mark.parametrize('number', [1, 3])  # of phrases
def test_channels_are_last_where_no_gradients_are_computed(sam, features, phrases, number):
    """As the other layout makes the transposed convolutions, or this one the gradients, several times as slow."""
    text, mask = (each[:number] for each in phrases)
    encoded = torch.ones(number, sam.rows**2, text.shape[-1])
    for computes_gradients in (True, False):
        with torch.set_grad_enabled(computes_gradients):
            maps = sam.pixel_maps(sam.prepare(features).of_groups(IMAGES[:number]), encoded, text, mask)
        assert (maps.stride(1) == 1) != computes_gradients


def test_masks_are_products_with_the_projected_pixels(sam):
    generator = torch.Generator().manual_seed(2)
    width = sam.mask_decoder.pixel_decoder.out_channels
    slots, pixels = (torch.randn(3, *shape, generator=generator) for shape in ((5, width), (width, 8, 8)))
    projected = sam.mask_decoder.instance_projection(pixels)
    expected = torch.einsum('gkc,gchw->gkhw', sam.mask_decoder.mask_embedder(slots), projected)
    torch.testing.assert_close(sam.masks(slots, pixels), expected, atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_boxes_are_encoded_and_draw_attention_as_in_sam3(sam):
    decoder = sam.detr_decoder
    boxes = torch.rand(2, 5, 4, generator=torch.Generator().manual_seed(3))
    torch.testing.assert_close(decoder.encode_boxes(boxes), decoder.position_encoding.encode_boxes(boxes))
    expected = decoder._get_rpb_matrix(boxes, (6, 6))
    torch.testing.assert_close(decoder.box_bias(boxes, 6), expected)


def test_features_for_boxes_only_have_no_maps(sam, features):
    coarse = ImageFeatures(features.pyramid[-1:], features.position)
    assert sam.prepare(coarse).levels == ()

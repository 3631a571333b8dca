"""The detector's layers on the images of several phrases."""

import torch
from sample_models import random_model

from instructsam.core.model.config import ModelConfig
from instructsam.core.model.grounding import ImageFeatures
from instructsam.train.stages.forward import detect_layers

IMAGES = [0, 1, 0]  # of each phrase


def test_the_semantic_map_is_sam3s(checkpoint):
    model = random_model(ModelConfig.from_folder(checkpoint))
    sam, decoder = model.grounding, model.grounding.detr_decoder
    width, rows = sam.mask_decoder.pixel_decoder.out_channels, sam.rows
    generator = torch.Generator().manual_seed(0)
    pyramid = tuple(torch.randn(2, width, n * rows, n * rows, generator=generator) for n in (4, 2, 1))
    features = sam.prepare(ImageFeatures(pyramid, torch.randn(1, width, rows, rows, generator=generator)))
    queries = decoder.query_embed.weight.expand(3, 1, -1, -1)
    references = decoder.reference_points.weight.expand(3, 1, -1, -1)
    outputs = detect_layers(model, features.of_groups(IMAGES), queries, references, [[5], [6, 7], [8]])
    expected = sam.mask_decoder.semantic_projection(outputs.pixels)[:, 0]
    assert torch.allclose(outputs.semantic, expected, atol=1e-4)

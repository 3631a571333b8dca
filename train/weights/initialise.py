"""Starting weights of a small model that is trained from scratch.

transformers' own initialisation (std 0.02) suits wide layers; with layers of 96 or 192 channels, the mask head gives
nothing but background for thousands of steps.
"""

import math
from typing import Any

import torch
from torch import nn

from instructsam.core.model.instructsam import INITIAL_PHRASE_SCORE, EncoderInputs, InstructSAMModel

WORD_STD = 0.07  # standard deviation of the tied head's rows; gives logits of about 1
PHRASE_GAIN = 8.0  # scales the small word embeddings up to the magnitude of SAM3's features
MASK_GAIN = 0.1  # makes mask logits start near 0
BOX_BIAS = 15.0  # slope of the attention bias outside a box: it falls by about 3 per token (1/16 of the image)
BOX_SIDE = 0.25  # side of the first reference boxes, relative to the image


@torch.no_grad()
def initialise(model: InstructSAMModel, seed: int = 0) -> None:
    """Draw all weights of a model from scratch, in place: Xavier for layers, and the constants above for the rest."""
    generator = torch.Generator().manual_seed(seed)
    for module in model.modules():
        if isinstance(module, (nn.Linear, nn.Conv2d, nn.Conv3d, nn.ConvTranspose2d)):
            nn.init.xavier_uniform_(module.weight, generator=generator)
            if module.bias is not None:
                module.bias.zero_()
        elif isinstance(module, nn.Embedding):
            nn.init.normal_(module.weight, std=0.1, generator=generator)
    body: Any = model.model
    sam: Any = model.grounding
    nn.init.normal_(body.language_model.embed_tokens.weight, std=WORD_STD, generator=generator)
    nn.init.normal_(body.mask_queries, std=WORD_STD, generator=generator)
    body.text_hidden_fcs[0][0].weight.mul_(PHRASE_GAIN)
    nn.init.normal_(sam.vision_encoder.backbone.embeddings.position_embeddings, std=0.1, generator=generator)
    sam.mask_decoder.mask_embedder.layers[-1].weight.mul_(MASK_GAIN)
    nn.init.normal_(sam.detr_decoder.query_embed.weight, std=1.0, generator=generator)
    phrase_layers = list(body.phrase_score_fcs or [])[-1:]
    box_layer = list(sam.detr_decoder.box_head.modules())[-1]
    zeroed = [box_layer, *(body.reference_fcs or [])[-1:], body.score_fc, *phrase_layers]
    for layer in filter(None, zeroed):
        layer.weight.zero_()
        layer.bias.zero_()
    for layer in phrase_layers:
        layer.bias.fill_(INITIAL_PHRASE_SCORE)
    sam.detr_decoder.reference_points.weight.copy_(spread_boxes(model.config.num_queries))


@torch.no_grad()
def prepare_detector(model: InstructSAMModel, inputs: EncoderInputs) -> None:
    """Rescale pretrained features and initialise box attention for an untrained detector, in place.

    Dense labels leave the features at any scale, and large ones outweigh the slots: the two coarser levels, which pass
    through one normalisation of the pixel decoder together, are scaled to a mean square of 1, and the pixel decoder's
    output stays the same. Slots initially attend to the inside of their boxes or to one of their borders, depending on
    the attention head (SAM3's relative position bias); otherwise they take long to learn that positions matter.

    Args:
        model: The model to change.
        inputs: Encoder inputs of some typical images.
    """
    sam: Any = model.grounding
    coarse = sam.encode(inputs.pixels, fine=False).pyramid[-1]
    scale = coarse.square().mean().rsqrt()
    levels = [level.proj2 for level in sam.vision_encoder.neck.fpn_layers[1:3]]
    for layer in (*levels, *sam.laterals[1:]):
        layer.weight.mul_(scale)
        layer.bias.mul_(scale)
    sam.mask_decoder.pixel_decoder.conv_layers[0].bias.mul_(scale)
    token_width = math.log2(8 / sam.rows + 1) / 3
    for axis, embed in enumerate((sam.detr_decoder.box_rpb_embed_x, sam.detr_decoder.box_rpb_embed_y)):
        _initialise_box_bias(embed, axis, token_width)


def _initialise_box_bias(embed: Any, axis: int, token_width: float) -> None:
    """Make the bias MLP of one axis favour tokens inside the box, or at one of its borders, depending on the head.

    Args:
        embed: transformers' Sam3DecoderMLP, from (position - low border, position - high border) to one bias per head.
            A token's position is its low border.
        axis: 0 for x, 1 for y.
        token_width: Width of a token in the MLP's (SAM3's logarithmic) coordinates.
    """
    outside, off_border = [0, 1], [[0, 2], [1, 3]]  # hidden units: outside the box; away from its low, high border
    embed.layer1.weight[:4] = torch.tensor([[-1.0, 0.0], [0.0, 1.0], [1.0, 0.0], [0.0, -1.0]])
    embed.layer1.bias[:4] = torch.tensor([0.0, token_width, 0.0, -token_width])
    embed.layer2.weight.mul_(0.1)
    embed.layer2.bias.zero_()
    embed.layer2.weight[:, :4] = 0
    for head in range(len(embed.layer2.weight)):
        border = head % 5 - 1  # -1: the whole box; 0 to 3: its left, right, top, bottom border
        units = off_border[border % 2] if border >= 0 and border // 2 == axis else outside
        embed.layer2.weight[head, units] = -BOX_BIAS


def spread_boxes(count: int) -> torch.Tensor:
    """Return reference boxes [count, 4] (cxcywh before the sigmoid) that are evenly spread over the image."""
    columns = math.ceil(math.sqrt(count))
    rows = math.ceil(count / columns)
    index = torch.arange(count)
    row = index // columns
    in_row = torch.where(row == rows - 1, count - columns * (rows - 1), columns)
    x, y = (index % columns + 0.5) / in_row, (row + 0.5) / rows
    side = torch.full((count,), BOX_SIDE)
    return torch.logit(torch.stack([x, y, side, side], dim=1))

"""Starting weights of a small model that is trained from nothing.

transformers' own initialisation (std 0.02) suits wide layers; in layers of 96 or 192 it leaves the mask head silent for
thousands of steps.
"""

import math

import torch
from torch import nn

WORD_STD = 0.07  # of the tied head's rows: logits of about 1
PHRASE_GAIN = 8.0  # brings the small word embeddings up to the size of SAM3's features
MASK_GAIN = 0.1  # mask logits start near 0
LOOK = 15.0  # bias falls by 3 a token (1/16 of the picture) away from where a head looks
BOX_SIDE = 0.25  # of the picture, of the first reference boxes


@torch.no_grad()
def initialise(model, seed=0):
    """Draws all weights of an InstructSAMModel anew, in place: Xavier for layers, what follows for the rest."""
    generator = torch.Generator().manual_seed(seed)
    for module in model.modules():
        if isinstance(module, (nn.Linear, nn.Conv2d, nn.Conv3d, nn.ConvTranspose2d)):
            nn.init.xavier_uniform_(module.weight, generator=generator)
            if module.bias is not None:
                module.bias.zero_()
        elif isinstance(module, nn.Embedding):
            nn.init.normal_(module.weight, std=0.1, generator=generator)
    body, sam = model.model, model.grounding
    nn.init.normal_(body.language_model.embed_tokens.weight, std=WORD_STD, generator=generator)
    nn.init.normal_(body.mask_queries, std=WORD_STD, generator=generator)
    body.text_hidden_fcs[0][0].weight.mul_(PHRASE_GAIN)
    nn.init.normal_(sam.vision_encoder.backbone.embeddings.position_embeddings, std=0.1, generator=generator)
    sam.mask_decoder.mask_embedder.layers[-1].weight.mul_(MASK_GAIN)
    nn.init.normal_(sam.detr_decoder.query_embed.weight, std=1.0, generator=generator)
    box = sam.detr_decoder.box_head
    last = list(box.modules())[-1]
    last.weight.zero_()
    last.bias.zero_()
    sam.detr_decoder.reference_points.weight.copy_(spread_boxes(model.config.num_queries))


@torch.no_grad()
def prepare_detector(model, pixels):
    """Makes SAM3's detector, which has learned nothing yet, ready to learn from features that have; in place.

    Dense labels leave the features at any scale, and large ones drown the slots: the two coarser levels, which go
    through a normalisation of the pixel decoder together, are brought to a mean square of 1; what the pixel decoder
    makes of them stays as it is. And slots look at first into their boxes and at their borders, a head each
    (SAM3's relative position bias): without that it takes them long to find out that places matter.

    pixels: SAM3's input [B, 3, S, S], some typical pictures.
    """
    sam = model.grounding
    coarse = sam.encode(pixels).pyramid[-1]
    scale = coarse.square().mean().rsqrt()
    for level in sam.vision_encoder.neck.fpn_layers[1:3]:
        level.proj2.weight.mul_(scale)
        level.proj2.bias.mul_(scale)
    sam.mask_decoder.pixel_decoder.conv_layers[0].bias.mul_(scale)
    for axis, embed in enumerate((sam.detr_decoder.box_rpb_embed_x, sam.detr_decoder.box_rpb_embed_y)):
        _look_at_the_box(embed, axis, math.log2(8 / (sam.image_size / sam.patch_size) + 1) / 3)


def _look_at_the_box(embed, axis, token):
    """embed: the bias MLP of an axis, from (place - low border, place - high border) to a bias for each head; token:
    a token's width in these (SAM3's logarithmic) terms: the place of a token is its low border.
    """
    below, above = [0, 1], [[0, 2], [1, 3]]  # hidden units: outside the box; off its low, its high border
    embed.layer1.weight[:4] = torch.tensor([[-1.0, 0.0], [0.0, 1.0], [1.0, 0.0], [0.0, -1.0]])
    embed.layer1.bias[:4] = torch.tensor([0.0, token, 0.0, -token])
    embed.layer2.weight.mul_(0.1)
    embed.layer2.bias.zero_()
    embed.layer2.weight[:, :4] = 0
    for head in range(len(embed.layer2.weight)):
        border = head % 5 - 1  # -1: the whole box, then left, right, top, bottom
        units = above[border % 2] if border >= 0 and border // 2 == axis else below
        embed.layer2.weight[head, units] = -LOOK


def spread_boxes(count):
    """Reference boxes [count, 4] (cxcywh before the sigmoid) that cover the picture evenly."""
    columns = math.ceil(math.sqrt(count))
    rows = math.ceil(count / columns)
    index = torch.arange(count)
    row = index // columns
    in_row = torch.where(row == rows - 1, count - columns * (rows - 1), columns)
    x, y = (index % columns + 0.5) / in_row, (row + 0.5) / rows
    side = torch.full((count,), BOX_SIDE)
    return torch.logit(torch.stack([x, y, side, side], dim=1))

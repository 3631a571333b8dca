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
    nn.init.normal_(
        sam.vision_encoder.backbone.embeddings.position_embeddings, std=0.1, generator=generator)
    sam.mask_decoder.mask_embedder.layers[-1].weight.mul_(MASK_GAIN)
    nn.init.normal_(sam.detr_decoder.query_embed.weight, std=1.0, generator=generator)
    box = sam.detr_decoder.box_head
    last = list(box.modules())[-1]
    last.weight.zero_()
    last.bias.zero_()
    sam.detr_decoder.reference_points.weight.copy_(spread_boxes(model.config.num_queries))


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

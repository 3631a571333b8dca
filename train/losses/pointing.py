"""What Qwen3-VL brings and a model trained from nothing must learn: to say where in the picture a phrase's things are.

A slot's hidden state is to point at the image tokens of its own object, and to hold the object's box, whatever SAM3
makes of it later. That costs little beside the detector, so that every phrase of a sample learns it. The heads are left
behind afterwards.
"""

import torch.nn.functional as F
from torch import nn
from transformers.image_transforms import center_to_corners_format

from instructsam.train.losses.deep_supervision import box_distances, tight_boxes
from instructsam.train.losses.mask_losses import Objective, phrase_terms
from instructsam.train.stages.forward import token_grid

LIKE_LAYERS = Objective(bce_loss=5.0, dice_loss=2.0, presence_loss=2.0, bce_cost=5.0, dice_cost=2.0, presence_cost=2.0)
BOX_L1, BOX_GIOU = 2.0, 1.0


class Pointing(nn.Module):
    """Heads on the language model's hidden states [.., width] at slots and image tokens."""

    def __init__(self, width, weight):
        """weight: of all its losses."""
        super().__init__()
        self.weight = weight
        self.slots, self.tokens = nn.Linear(width, width), nn.Linear(width, width)
        self.presence = nn.Linear(width, 1)
        self.box = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 4))

    def forward(self, hidden, batch):
        """Loss sums of hidden states [B, L, width] of a forward.Batch with masks: {term: (sum, count)}."""
        width, weights = hidden.shape[-1], LIKE_LAYERS
        tokens = [values[rows] for values, rows in zip(self.tokens(hidden), batch.text.is_image.to(hidden.device))]
        bce = dice = presence = l1 = giou = hidden.sum() * 0.0
        for (sample, rows), masks in zip(batch.text.blocks, batch.masks):
            slots = hidden[sample, rows]
            if not len(slots):  # mode autoregressive, where nothing is there
                continue
            pointed = self.slots(slots) @ tokens[sample].T / width**0.5
            pointed = pointed.view(len(slots), *token_grid(batch.grids[sample], len(tokens[sample])))
            truth = F.interpolate(masks[:, None].float(), size=pointed.shape[1:], mode='area')[:, 0].to(hidden.device)
            terms, assigned = phrase_terms(pointed, self.presence(slots)[:, 0], truth, weights)
            bce, dice, presence = bce + terms.bce, dice + terms.dice, presence + terms.presence
            found = assigned >= 0
            if found.any():
                boxes = center_to_corners_format(self.box(slots[found.to(hidden.device)]).sigmoid())
                true = tight_boxes(masks)[assigned[found]].to(boxes)
                found_l1, found_giou = box_distances(boxes, true)
                l1, giou = l1 + found_l1, giou + found_giou
        return {
            'point_mask': (self.weight * (weights.bce_loss * bce + weights.dice_loss * dice), 'all_masks'),
            'point_box': (self.weight * (BOX_L1 * l1 + BOX_GIOU * giou), 'all_masks'),
            'point_presence': (self.weight * weights.presence_loss * presence, 'blocks'),
        }

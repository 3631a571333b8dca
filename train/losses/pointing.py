"""Auxiliary grounding loss: each slot's hidden state predicts its object's mask and box from the image tokens.

Qwen3-VL is pretrained on grounding; a language model that is trained from scratch has to learn it. The loss is cheap
beside the detector, so that every phrase of a sample has it, not only those that reach the detector. The heads are
dropped after training. With slot references, the boxes are those that the detector starts from, so that it starts where
the language model points; with slot scores, its presence is the model's own.

An instruction may name other objects ("the mug left of the bowl"). In the middle of the language model, the token
before the slots predicts their masks likewise, so that the layers above know what to compare with.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import nn
from transformers.image_transforms import center_to_corners_format

from instructsam.train.data.batch import Batch, token_grid
from instructsam.train.losses.boxes import box_distances, tight_boxes
from instructsam.train.losses.dice import dice_loss
from instructsam.train.losses.loss_sum import LossSum
from instructsam.train.losses.mask_losses import MaskTerms, phrase_terms
from instructsam.train.losses.objective import Objective

if TYPE_CHECKING:
    from instructsam.core.model.config import ModelConfig
    from instructsam.core.model.instructsam import InstructSAMModel

OBJECTIVE = Objective(bce_loss=5.0, dice_loss=2.0, presence_loss=2.0, bce_cost=5.0, dice_cost=2.0, presence_cost=2.0)
"""The weights of LayerWeights."""

BOX_L1, BOX_GIOU = 2.0, 1.0


class Pointing(nn.Module):
    """Heads on the language model's hidden states [..., width] at slots and image tokens."""

    def __init__(self, config: ModelConfig, weight: float):
        """Make the heads.

        Args:
            config: The model's configuration.
            weight: Weight of all losses.
        """
        super().__init__()
        width: int = config.text.hidden_size
        self.weight = weight
        self.slots, self.tokens = nn.Linear(width, width), nn.Linear(width, width)
        self.presence = None if config.slot_scores else nn.Linear(width, 1)
        self.anchors, self.anchor_tokens = nn.Linear(width, width), nn.Linear(width, width)
        box = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 4))
        self.box = None if config.slot_references else box

    def forward(
        self, model: InstructSAMModel, hidden: torch.Tensor, middle: torch.Tensor, batch: Batch
    ) -> dict[str, LossSum]:
        """Return the loss sums of a batch with masks.

        Args:
            model: The model.
            hidden: The hidden states [B, L, width] of the language model.
            middle: Those after half of its layers.
            batch: The batch.
        """
        predict: Any = self.box or model.slot_references
        width = hidden.shape[-1]
        is_image = batch.text.is_image.to(hidden.device)
        tokens = [values[rows] for values, rows in zip(self.tokens(hidden), is_image, strict=True)]
        zero = hidden.sum() * 0.0
        total, l1, giou = MaskTerms(zero, zero, zero), zero, zero
        for (sample, rows), masks in zip(batch.text.blocks, batch.masks, strict=True):
            slots = hidden[sample, rows]
            if not len(slots):  # in mode autoregressive, a phrase that refers to nothing has no slots
                continue
            mask_logits = self.slots(slots) @ tokens[sample].T / width**0.5
            mask_logits = mask_logits.view(len(slots), *token_grid(batch.grids[sample], len(tokens[sample])))
            shares = F.interpolate(masks[:, None].float(), size=mask_logits.shape[1:], mode='area')[:, 0]
            presence = model.slot_scores(slots) if self.presence is None else self.presence(slots)[:, 0]
            terms, assigned = phrase_terms(mask_logits, presence, shares.to(hidden.device), OBJECTIVE)
            total = total + terms
            is_matched = assigned >= 0
            if is_matched.any():
                boxes: Any = center_to_corners_format(predict(slots)[is_matched.to(hidden.device)].sigmoid())
                distances = box_distances(boxes, tight_boxes(masks)[assigned[is_matched]].to(boxes))
                l1, giou = l1 + distances.l1, giou + distances.giou
        bce, dice = OBJECTIVE.bce_loss * total.bce, OBJECTIVE.dice_loss * total.dice
        return {
            'point_mask': LossSum(self.weight * (bce + dice), 'all_masks'),
            'point_box': LossSum(self.weight * (BOX_L1 * l1 + BOX_GIOU * giou), 'all_masks'),
            'point_presence': LossSum(self.weight * OBJECTIVE.presence_loss * total.presence, 'blocks'),
            'point_anchors': LossSum(self.weight * self._anchor_loss(middle, batch), 'anchored'),
        }

    def _anchor_loss(self, middle: torch.Tensor, batch: Batch) -> torch.Tensor:
        """Return the summed loss of the masks of the other objects that the questions name."""
        loss = middle.sum() * 0.0
        is_image = batch.text.is_image.to(middle.device)
        tokens = [values[rows] for values, rows in zip(self.anchor_tokens(middle), is_image, strict=True)]
        for (sample, rows), masks in zip(batch.text.blocks, batch.anchors, strict=True):
            if not len(masks):
                continue
            logits = tokens[sample] @ self.anchors(middle[sample, rows.start - 1]) / middle.shape[-1] ** 0.5
            size = token_grid(batch.grids[sample], len(logits))
            share = F.interpolate(masks.any(0)[None, None].float(), size=size, mode='area').flatten().to(logits)
            bce = F.binary_cross_entropy_with_logits(logits, share)
            dice = dice_loss(logits.sigmoid()[None], share[None]).sum()
            loss = loss + OBJECTIVE.bce_loss * bce + OBJECTIVE.dice_loss * dice
        return loss

"""The base stage of a small model, in the place of what Qwen3-VL and SAM3 bring: the language model learns to answer
with phrases, SAM3 to find what a phrase says with learned queries of its own.

The bridge is brought to meet them: what comes out of it at the query positions is drawn to SAM3's own queries, so that
stage 1 starts from where this one ends.
"""
import torch
import torch.nn.functional as F
from torch import nn

from instructsam.train.forward import answer_terms, features_of, read, slot_queries
from instructsam.train.initialise import spread_boxes
from instructsam.train.layers import add, detect_layers, layer_losses

GROUPS = 3  # of queries: SAM3's own, and others that only training uses
BRIDGE_WEIGHT = 0.2


class BaseTraining(nn.Module):
    """The model and the extra query groups."""

    def __init__(self, model, phrases_per_call):
        super().__init__()
        self.model = model
        self.phrases_per_call = phrases_per_call
        config = model.config
        self.queries = nn.Parameter(torch.randn(GROUPS - 1, config.num_queries, config.bridge_dim))
        boxes = spread_boxes(config.num_queries)
        self.references = nn.Parameter(boxes + 0.3 * torch.randn(GROUPS - 1, *boxes.shape))

    def forward(self, batch):
        """Loss sums: {term: (sum, count)}."""
        model = self.model
        decoder = model.grounding.detr_decoder
        hidden = read(model, batch)
        losses = answer_terms(model, batch, hidden)
        if batch.text.blocks:
            slots = slot_queries(model, hidden, batch, range(len(batch.text.blocks)))
            goal = decoder.query_embed.weight.detach().expand_as(slots)
            losses['bridge'] = (BRIDGE_WEIGHT * F.mse_loss(slots, goal, reduction='none').mean((1, 2)).sum(), 'blocks')

        queries = torch.cat([decoder.query_embed.weight[None], self.queries])
        references = torch.cat([decoder.reference_points.weight[None], self.references])
        features = model.grounding.encode(batch.pixels)
        for chosen in batch.calls(self.phrases_per_call):
            own = features_of(features, batch, chosen)
            phrase_ids = [batch.text.phrase_ids[index] for index in chosen]
            outputs = detect_layers(model, own, queries.expand(len(chosen), -1, -1, -1), references, phrase_ids)
            add(losses, layer_losses(model, outputs, [batch.masks[index] for index in chosen]))
        return losses

"""The base stage of a small model, in the place of what Qwen3-VL and SAM3 bring: the language model learns to answer
with phrases, SAM3 to find what a phrase says with learned queries of its own.

The bridge, where it trains, is brought to meet them: what comes out of it at the query positions is drawn to SAM3's own
queries, so that stage 1 starts from where this one ends. What the pixels show is learnt on beside it.
"""

import json
from dataclasses import dataclass, fields

import torch
import torch.nn.functional as F
from torch import nn

from instructsam.core.errors import DataError
from instructsam.core.model.grounding import sam3
from instructsam.train.loop.param_groups import learns
from instructsam.train.losses.alignment import Alignment
from instructsam.train.losses.deep_supervision import add, detect_layers, layer_losses, tight_boxes
from instructsam.train.losses.pointing import Pointing
from instructsam.train.stages.dense import DenseHeads, Labels, encoder_labels, read_objects
from instructsam.train.stages.forward import Batch, answer_terms, features_of, read, slot_queries
from instructsam.train.weights.initialise import spread_boxes

GROUPS = 3  # of learned queries: SAM3's own, and others that only training uses
DENOISING = 2  # groups of true boxes that are off
BRIDGE_WEIGHT = 0.2
DENSE_WEIGHT = 0.25
SHIFT, STRETCH = 0.4, 0.4  # of the boxes that are to be put right, as shares of their sides


@dataclass
class BaseBatch(Batch):
    """A batch with labels of all pixels on the grids of both encoders."""

    sam: Labels | None = None
    qwen: Labels | None = None

    def counts(self):
        return {**super().counts(), 'images': len(self.pixels)}


class BaseCollator:
    """Adds the labels to what a Collator makes; every image must be of one of the scenes."""

    def __init__(self, collator, sources, rows):
        """sources: of *_scenes.jsonl files; rows: of SAM3's grid."""
        self.collator, self.rows = collator, rows
        self.lines = {}
        for source in sources:
            for line in source.annotations.read_text(encoding='utf-8').splitlines():
                self.lines[source.images / json.loads(line)['image']] = line

    def __call__(self, samples):
        missing = [str(sample.image) for sample in samples if sample.image not in self.lines]
        if missing:
            raise DataError(f'{missing[0]} is in none of the files that `scenes` names')
        batch = self.collator(samples)
        scenes = [read_objects(json.loads(self.lines[sample.image])) for sample in samples]
        return BaseBatch(
            **{each.name: getattr(batch, each.name) for each in fields(batch)},
            **encoder_labels(scenes, self.rows, batch.grids, self.collator.merge),
        )


class BaseTraining(nn.Module):
    """The model, more query groups, and heads for what pixels show.

    SAM3 is left out where it has no rates, and Qwen's part of the model, the language model behind its vision tower.
    """

    def __init__(self, model, phrases_per_call, pointing=0.0, masks=True):
        """pointing: weight of pointing.Pointing's losses; masks: False teaches the detector boxes alone."""
        super().__init__()
        self.model = model
        self.phrases_per_call = phrases_per_call
        self.masks = masks
        self.pointing = Pointing(model.config.qwen.text_config.hidden_size, pointing) if pointing else None
        config = model.config
        self.queries = nn.Parameter(torch.randn(GROUPS - 1, config.num_queries, config.bridge_dim))
        boxes = spread_boxes(config.num_queries)
        self.references = nn.Parameter(boxes + 0.3 * torch.randn(GROUPS - 1, *boxes.shape))
        self.repairer = nn.Parameter(torch.randn(config.bridge_dim))  # the query of every box that is to be put right
        self.heads = DenseHeads(config, ('coarse', 'tokens'))
        self.alignment = Alignment(config)

    def forward(self, batch):
        """Loss sums: {term: (sum, count)}."""
        model = self.model
        losses, dense, tokens, coarse = {}, {}, None, None
        if learns(model.model.language_model) or learns(model.model.visual):
            visual = model.encode_image(batch.patches, *batch.grids)
            losses.update(self._read(batch, visual))
            tokens = visual[0]
            if learns(model.model.visual):
                dense.update(self.heads.token_losses(tokens, batch.qwen))
        if learns(model.grounding):
            features = model.grounding.encode(batch.pixels, fine=self.masks)
            coarse = features.pyramid[-1]
            if learns(model.grounding.vision_encoder):
                dense.update(self.heads.losses('coarse', coarse.permute(0, 2, 3, 1), batch.sam))
            for chosen in batch.calls(self.phrases_per_call):
                add(losses, self._detect(features, batch, chosen))
        losses.update({name: (DENSE_WEIGHT * value, count) for name, (value, count) in dense.items()})
        if batch.text.blocks:
            losses.update(self.alignment(model, batch, tokens, coarse))
        return losses

    def _read(self, batch, visual):
        """What the language model answers, and where its slots are."""
        model = self.model
        hidden = read(model, batch, visual)
        losses = answer_terms(model, batch, hidden)
        if batch.text.blocks:
            if learns(model.model.mask_hidden_fcs):
                slots = slot_queries(model, hidden, batch, range(len(batch.text.blocks)))
                goal = model.grounding.detr_decoder.query_embed.weight.detach().expand_as(slots)
                off = F.mse_loss(slots, goal, reduction='none').mean((1, 2)).sum()
                losses['bridge'] = (BRIDGE_WEIGHT * off, 'blocks')
            if self.pointing is not None:
                losses.update(self.pointing(hidden, batch))
        return losses

    def _detect(self, features, batch, chosen):
        masks = [batch.masks[index] for index in chosen]
        queries, references = self._slots(masks)
        phrase_ids = [batch.text.phrase_ids[index] for index in chosen]
        features = features_of(features, batch, chosen)
        outputs = detect_layers(self.model, features, queries, references, phrase_ids, self.masks)
        return {**layer_losses(self.model, outputs, masks), **self.alignment.of_fused(outputs.encoded, masks)}

    def _slots(self, masks):
        """Queries [P, G, K, d] and references [P, G, K, 4] for phrases with these masks: the learned groups, and those
        of true boxes that are off, among others that show nothing (denoising, DN-DETR, arXiv 2203.01305).
        """
        decoder, phrases = self.model.grounding.detr_decoder, len(masks)
        learned = torch.cat([decoder.reference_points.weight[None], self.references])
        count, width = self.queries.shape[1:]
        queries = torch.cat(
            [decoder.query_embed.weight[None], self.queries, self.repairer.expand(DENOISING, count, width)]
        )
        boxes = [tight_boxes(each) for each in masks]
        off = torch.stack([torch.stack([_off(each, count) for _ in range(DENOISING)]) for each in boxes])
        references = torch.cat([learned.expand(phrases, -1, -1, -1), off.to(learned)], dim=1)
        return queries.expand(phrases, -1, -1, -1), references


def _off(boxes, count):
    """`boxes` [N, 4] xyxy moved and stretched at random, and random ones up to `count`: cxcywh before the sigmoid."""
    centre, side = (boxes[:, :2] + boxes[:, 2:]) / 2, boxes[:, 2:] - boxes[:, :2]
    centre = centre + SHIFT * side * (torch.rand(len(boxes), 2) - 0.5) * 2
    side = side * (1 + STRETCH * (torch.rand(len(boxes), 2) - 0.5) * 2)
    more = count - len(boxes)
    filler = torch.cat([torch.rand(more, 2), 0.05 + 0.3 * torch.rand(more, 2)], dim=1)
    return sam3.inverse_sigmoid(torch.cat([torch.cat([centre, side], dim=1), filler]).clamp(0.01, 0.99))

"""Stage `base`: pretraining of a small model's language model and detector, instead of Qwen3-VL's and SAM3's.

The language model learns to answer with phrases, and SAM3 to find the objects of a phrase with learned queries of its
own. If both are trained, the slots of the language model are one more group of queries, so that the bridge and the
slots' reference boxes learn by detection. The dense labels of stage `pixels` are learned alongside.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from instructsam.core.model.grounding import PreparedFeatures, sam3
from instructsam.core.model.instructsam import InstructSAMModel
from instructsam.train.data.collate import Collator
from instructsam.train.data.dataset import RecordDataset
from instructsam.train.data.mixing import mixing_list
from instructsam.train.data.scene_labels import LabelledBatch, LabelledCollator
from instructsam.train.engines.concept import ConceptEngine
from instructsam.train.losses.alignment import Alignment
from instructsam.train.losses.boxes import tight_boxes
from instructsam.train.losses.deep_supervision import layer_losses
from instructsam.train.losses.dense import DenseHeads
from instructsam.train.losses.loss_sum import LossSum, accumulate
from instructsam.train.losses.pointing import Pointing
from instructsam.train.stages.forward import (
    PhraseCall,
    answer_losses,
    detect_layers,
    encoder_inputs,
    images_of,
    is_trainable,
    phrase_calls,
    read_and_point,
    require_masks,
    slot_inputs,
)
from instructsam.train.stages.previews import answer_preview
from instructsam.train.stages.record_stage import RecordStage
from instructsam.train.stages.settings import BaseSettings
from instructsam.train.weights.initialise import prepare_detector, spread_boxes

if TYPE_CHECKING:
    from instructsam.train.loop.recipe import Recipe

GROUPS = 3
"""Groups of learned queries: SAM3's own, and others that only training uses."""

DENOISING_GROUPS = 2
"""Groups that start from noisy ground-truth boxes."""

SLOTS_WEIGHT = 1 / (GROUPS + DENOISING_GROUPS + 1)
"""Weight of a short phrase, which only the slots see: that of the slots' group in the mean over all groups."""

SHORT_WEIGHTS = {'semantic': 0.0, 'align_fused': 0.0}
"""Weights of a short phrase's terms that depend on the phrase alone, which does not tell the objects."""

SHIFT, STRETCH = 0.4, 0.4
"""Largest noise of the position and size of a ground-truth box, as shares of its sides."""

REFERENCE_STD = 0.3
"""Spread of the reference boxes of the training groups around those of SAM3, before the sigmoid."""

DENSE_WEIGHT = 0.25

PRESENCE_TARGET = 'soft_dice'
"""Target of matched slots where masks are learned, see objective.Objective."""

PREPARED_WITH = 8
"""Samples whose features the detector is rescaled to, see prepare_detector."""


class DetectorPretraining(nn.Module):
    """The model with more query groups and auxiliary heads.

    SAM3 is skipped if it is frozen; so is the language model with Qwen's vision tower.
    """

    def __init__(
        self,
        model: InstructSAMModel,
        phrases_per_call: int,
        *,
        pointing: float = 0.0,
        masks: bool = True,
        short_phrases: float = 0.0,
    ):
        """Add the query groups and heads.

        Args:
            model: The model.
            phrases_per_call: Phrases that share one detector call.
            pointing: Weight of the auxiliary loss losses.pointing; 0: none.
            masks: Also learn masks; False: the detector learns boxes alone.
            short_phrases: Probability of each shorter form of a phrase in SAM3, for the language model's slots alone.
        """
        super().__init__()
        self.model = model
        self.phrases_per_call = phrases_per_call
        self.masks = masks
        self.short_phrases = short_phrases
        self.pointing = Pointing(model.config, pointing) if pointing else None
        config = model.config
        self.queries = nn.Parameter(torch.randn(GROUPS - 1, config.num_queries, config.bridge_dim))
        boxes = spread_boxes(config.num_queries)
        self.references = nn.Parameter(boxes + REFERENCE_STD * torch.randn(GROUPS - 1, *boxes.shape))
        self.denoising_query = nn.Parameter(torch.randn(config.bridge_dim))  # one query, shared by all noisy boxes
        self.heads = DenseHeads(config, ('coarse', 'tokens'))
        self.alignment = Alignment(config)

    def forward(self, batch: LabelledBatch) -> dict[str, LossSum]:
        """Return the loss sums."""
        assert batch.labels is not None  # LabelledCollator adds the labels
        require_masks(batch, 'stage base cannot use it')
        model = self.model
        losses: dict[str, LossSum] = {}
        dense: dict[str, LossSum] = {}
        hidden = tokens = coarse = None
        inputs = encoder_inputs(model, batch)
        if is_trainable(model.model.language_model) or is_trainable(model.model.visual):
            visual = model.encode_image(inputs.patches, *inputs.grids)
            hidden, losses = read_and_point(model, batch, visual, self.pointing)
            losses.update(answer_losses(model, batch, hidden))
            tokens = visual.embeddings
            if is_trainable(model.model.visual):
                dense.update(self.heads.token_losses(tokens, batch.labels.qwen))
        if is_trainable(model.grounding):
            features = model.grounding.encode(inputs.pixels, inputs.lateral_maps, fine=self.masks)
            coarse = features.pyramid[-1]
            if is_trainable(model.grounding.vision_encoder):
                dense.update(self.heads.losses('coarse', coarse.permute(0, 2, 3, 1), batch.labels.sam))
            if not is_trainable(model.model.language_model):
                hidden = None
            shared = model.grounding.prepare(features)
            short_phrases = self.short_phrases if self.training and hidden is not None else 0.0
            for call in phrase_calls(batch, self.phrases_per_call, short_phrases):
                accumulate(losses, self._detector_losses(shared, hidden, batch, call))
        losses.update({name: loss.scaled(DENSE_WEIGHT) for name, loss in dense.items()})
        if not all(batch.text.partial):
            losses.update(self.alignment(model, batch, tokens, coarse))
        return losses

    def _detector_losses(
        self, features: PreparedFeatures, hidden: torch.Tensor | None, batch: LabelledBatch, call: PhraseCall
    ) -> dict[str, LossSum]:
        """Return the losses of one call; hidden: states of the language model whose slots take part; None: none do."""
        model = self.model
        masks = [batch.masks[index] for index in call.phrases]
        groups = [] if call.are_partial else [self._query_groups(masks)]
        if hidden is not None:
            groups.append(slot_inputs(model, hidden, batch, call.phrases))
        queries, references, scores = (torch.cat(each, dim=1) for each in zip(*groups, strict=True))
        image = features.of_groups(images_of(batch, call.phrases))
        outputs = detect_layers(model, image, queries, references, call.phrase_ids, scores)
        losses = layer_losses(model, outputs, masks, presence_target=PRESENCE_TARGET)
        losses.update(self.alignment.fused_loss(outputs.encoded, masks))
        if call.are_partial:
            losses = {name: loss.scaled(SHORT_WEIGHTS.get(name, SLOTS_WEIGHT)) for name, loss in losses.items()}
        return losses

    def _query_groups(self, masks: Sequence[torch.Tensor]) -> tuple[torch.Tensor, ...]:
        """Return queries [P, G, K, d], reference boxes [P, G, K, 4] and scores [P, G, K] for phrases with these masks.

        The groups are the learned ones, then those of noisy ground-truth boxes, filled up with random boxes that show
        nothing (denoising, DN-DETR, arXiv 2203.01305).
        """
        decoder, phrases = self.model.grounding.detr_decoder, len(masks)
        learned = torch.cat([decoder.reference_points.weight[None], self.references])
        count, width = self.queries.shape[1:]
        denoising = self.denoising_query.expand(DENOISING_GROUPS, count, width)
        queries = torch.cat([decoder.query_embed.weight[None], self.queries, denoising])
        boxes = [tight_boxes(each) for each in masks]
        noisy = torch.stack(
            [torch.stack([noisy_boxes(each, count) for _ in range(DENOISING_GROUPS)]) for each in boxes]
        )
        references = torch.cat([learned.expand(phrases, -1, -1, -1), noisy.to(learned)], dim=1)
        return queries.expand(phrases, -1, -1, -1), references, references.new_zeros(references.shape[:-1])


def noisy_boxes(boxes: torch.Tensor, count: int) -> torch.Tensor:
    """Return `boxes` shifted and stretched at random, filled up with random boxes.

    Args:
        boxes: [N, 4] xyxy, 0 to 1.
        count: Number of boxes to return, at least N.

    Returns:
        [count, 4] cxcywh before the sigmoid.
    """
    random = partial(torch.rand, device=boxes.device)
    centre, side = (boxes[:, :2] + boxes[:, 2:]) / 2, boxes[:, 2:] - boxes[:, :2]
    centre = centre + SHIFT * side * (random(len(boxes), 2) - 0.5) * 2
    side = side * (1 + STRETCH * (random(len(boxes), 2) - 0.5) * 2)
    missing = count - len(boxes)
    filler = torch.cat([random(missing, 2), 0.05 + 0.3 * random(missing, 2)], dim=1)
    return sam3.inverse_sigmoid(torch.cat([torch.cat([centre, side], dim=1), filler]).clamp(0.01, 0.99))


class DetectorStage(RecordStage):
    """See stage.Stage."""

    def __init__(self, recipe: Recipe, model: InstructSAMModel, folder: str | Path):
        super().__init__(recipe, model, folder)
        self.settings = recipe.base or BaseSettings()

    def collator(self) -> LabelledCollator:
        """Return the collator of samples with dense labels."""
        recipe = self.recipe
        collator = Collator.from_folder(
            self.folder,
            self.model.config,
            branches=recipe.branches,
            concise=self.settings.concise,
            max_pixels=recipe.max_pixels,
        )
        return LabelledCollator(collator, mixing_list(self.settings.scenes, Path()), self.model.grounding.rows)

    def module(self) -> DetectorPretraining:
        """Return the module to train, with its detector prepared if the recipe says so."""
        if self.settings.prepare:
            dataset = self.dataset(self.recipe.data)
            samples = [dataset[index] for index in range(min(PREPARED_WITH, len(dataset)))]
            prepare_detector(self.model, encoder_inputs(self.model, self.collator()(samples)))
        settings = self.settings
        return DetectorPretraining(
            self.model,
            self.recipe.phrases_per_call,
            pointing=settings.pointing,
            masks=settings.masks,
            short_phrases=settings.short_phrases,
        )

    def preview(
        self,
        training: DetectorPretraining,
        dataset: RecordDataset,
        indices: Sequence[int],
        to_batch: Callable[[Sequence[Any]], LabelledBatch],
    ) -> np.ndarray | None:
        """Draw the model's answers and the masks of the true phrases, found by SAM3's own queries."""
        samples = [dataset[index] for index in indices]
        return answer_preview(ConceptEngine, training.model, self.folder, samples, use_true_phrases=True)

"""Stage `instruct`: instructions to masks through the whole model; stages 1 and 2 of the paper (section 3.4)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import nn
from torch.distributed.fsdp import FSDPModule

from instructsam.core.model.instructsam import InstructSAMModel
from instructsam.train.data.batch import Batch
from instructsam.train.data.collate import Collator
from instructsam.train.data.dataset import RecordDataset
from instructsam.train.engines.autoregressive import engine_type
from instructsam.train.losses.deep_supervision import LOSS_UNITS, layer_losses
from instructsam.train.losses.loss_sum import LossSum, accumulate
from instructsam.train.losses.objective import Objective
from instructsam.train.losses.pointing import Pointing
from instructsam.train.stages.forward import (
    answer_losses,
    detect_layers,
    encoder_inputs,
    images_of,
    phrase_calls,
    phrase_score_losses,
    published_losses,
    read_and_point,
    require_masks,
    slot_inputs,
    with_idle_phrase,
)
from instructsam.train.stages.previews import answer_preview
from instructsam.train.stages.record_stage import RecordStage
from instructsam.train.stages.settings import InstructSettings

if TYPE_CHECKING:
    from instructsam.train.loop.recipe import Recipe


class InstructTraining(nn.Module):
    """The model with the published objective, or with deep supervision."""

    def __init__(
        self,
        model: InstructSAMModel,
        objective: Objective,
        phrases_per_call: int,
        *,
        deep_supervision: bool = False,
        pointing: float = 0.0,
        short_phrases: float = 0.0,
    ):
        """Add the auxiliary heads.

        Args:
            model: The model.
            objective: Weights and choices of the losses.
            phrases_per_call: Phrases that share one detector call.
            deep_supervision: Losses on every detector layer instead of the published ones.
            pointing: With deep supervision, the weight of losses.pointing; 0: none.
            short_phrases: With deep supervision, the probability of each shorter form of a phrase in SAM3 in training.
        """
        super().__init__()
        self.pointing = Pointing(model.config, pointing) if pointing else None
        self.model = model
        self.objective = objective
        self.phrases_per_call = phrases_per_call
        self.deep_supervision = deep_supervision
        self.short_phrases = short_phrases

    def forward(self, batch: Batch) -> dict[str, LossSum]:
        """Return the loss sums."""
        is_sharded = isinstance(self, FSDPModule)
        if self.deep_supervision:
            return self._deeply_supervised(batch, always_detect=is_sharded)
        return published_losses(self.model, batch, self.objective, self.phrases_per_call, always_detect=is_sharded)

    def _deeply_supervised(self, batch: Batch, *, always_detect: bool) -> dict[str, LossSum]:
        require_masks(batch, 'set instruct.deep_supervision to false')
        model = self.model
        inputs = encoder_inputs(model, batch)
        visual = model.encode_image(inputs.patches, *inputs.grids)
        hidden, losses = read_and_point(model, batch, visual, self.pointing)
        losses.update(answer_losses(model, batch, hidden), **phrase_score_losses(model, batch, hidden))
        zero = hidden.sum() * 0.0  # every batch has all terms, because processes add up theirs
        losses.update({name: LossSum(zero, unit) for name, unit in LOSS_UNITS.items()})
        is_idle = always_detect and not batch.detected_phrases
        if is_idle:
            batch = with_idle_phrase(model, batch)
        if not batch.detected_phrases:
            return losses
        features = model.grounding.prepare(model.grounding.encode(inputs.pixels, inputs.lateral_maps))
        for call in phrase_calls(batch, self.phrases_per_call, self.short_phrases if self.training else 0.0):
            queries, references, scores = slot_inputs(model, hidden, batch, call.phrases)
            image = features.of_groups(images_of(batch, call.phrases))
            outputs = detect_layers(model, image, queries, references, call.phrase_ids, scores)
            masks = [batch.masks[index] for index in call.phrases]
            terms = layer_losses(model, outputs, masks, presence_target=self.objective.presence_target)
            terms['presence'] = terms['presence'].scaled(self.objective.presence_loss)
            if call.are_partial:  # the semantic map sees the phrase alone
                terms['semantic'] = terms['semantic'].scaled(0.0)
            if is_idle:
                terms = {name: term.scaled(0.0) for name, term in terms.items()}
            accumulate(losses, terms)
        return losses


class InstructStage(RecordStage):
    """See stage.Stage."""

    def __init__(self, recipe: Recipe, model: InstructSAMModel, folder: str | Path):
        super().__init__(recipe, model, folder)
        self.settings = recipe.instruct or InstructSettings()

    def collator(self) -> Collator:
        """Return the collator of samples."""
        recipe = self.recipe
        return Collator.from_folder(
            self.folder,
            self.model.config,
            branches=recipe.branches,
            concise=self.settings.concise,
            max_pixels=recipe.max_pixels,
            mode=self.settings.mode,
        )

    def module(self) -> InstructTraining:
        """Return the module to train."""
        settings = self.settings
        return InstructTraining(
            self.model,
            settings.objective,
            self.recipe.phrases_per_call,
            deep_supervision=settings.deep_supervision,
            pointing=settings.pointing,
            short_phrases=settings.short_phrases,
        )

    def preview(
        self,
        training: InstructTraining,
        dataset: RecordDataset,
        indices: Sequence[int],
        to_batch: Callable[[Sequence[Any]], Batch],
    ) -> np.ndarray | None:
        """Draw the model's answers with their masks."""
        engine = engine_type(self.settings.mode)
        samples = [dataset[index] for index in indices]
        return answer_preview(engine.engine_class, training.model, self.folder, samples, mode=engine.mode)

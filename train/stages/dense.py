"""Stage `pixels`: pretraining of both image encoders on dense labels of rendered scenes.

It replaces the pretraining of SAM3 and Qwen3-VL. Every cell predicts the category and colour of its object
and the distances to the sides of the object's box. SAM3's encoder learns this at its coarsest level and, if the decoder
has a learning rate, through the pixel decoder; Qwen's vision tower learns it per token. The heads are dropped after
training.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from instructsam.core.model.instructsam import InstructSAMModel
from instructsam.core.model.preprocess import load_preprocessor
from instructsam.train.data.mixing import mixing_list
from instructsam.train.data.scene_labels import DenseBatch, DenseCollator, SceneDataset
from instructsam.train.losses.dense import DenseHeads
from instructsam.train.losses.loss_sum import LossSum
from instructsam.train.stages.forward import is_trainable
from instructsam.train.stages.previews import COLUMNS, category_strip, evenly
from instructsam.train.stages.settings import PixelsSettings

if TYPE_CHECKING:
    from instructsam.train.loop.recipe import Recipe


class DensePretraining(nn.Module):
    """The model with a head on every feature map of the encoders that are trained."""

    def __init__(self, model: InstructSAMModel):
        super().__init__()
        self.model = model
        self.heads = DenseHeads(model.config, ('pixels', 'coarse', 'tokens'))

    def forward(self, batch: DenseBatch) -> dict[str, LossSum]:
        """Return the loss sums over images."""
        grounding = self.model.grounding
        losses = {}
        inputs = self.model.encoder_inputs(batch.pixels, batch.patches, batch.grids)
        if is_trainable(grounding):
            decoder = grounding.mask_decoder.pixel_decoder
            features = grounding.encode(inputs.pixels, inputs.lateral_maps, fine=is_trainable(decoder))
            if is_trainable(decoder):
                fine = decoder(list(features.pyramid))
                losses.update(self.heads.losses('pixels', fine.permute(0, 2, 3, 1), batch.labels.sam))
            losses.update(self.heads.losses('coarse', features.pyramid[-1].permute(0, 2, 3, 1), batch.labels.sam))
        if is_trainable(self.model.model.visual):
            tokens, _ = self.model.encode_image(inputs.patches, *inputs.grids)
            losses.update(self.heads.token_losses(tokens, batch.labels.qwen))
        return losses

    def categories(self, batch: DenseBatch) -> torch.Tensor:
        """Return the pixel decoder's category of each cell, [B, h, w]; 0: no object."""
        inputs = self.model.encoder_inputs(batch.pixels, batch.patches, batch.grids)
        features = self.model.grounding.encode(inputs.pixels, inputs.lateral_maps)
        fine = self.model.grounding.mask_decoder.pixel_decoder(list(features.pyramid))
        return self.heads.categories('pixels', fine.permute(0, 2, 3, 1))


class DenseStage:
    """See stage.Stage."""

    def __init__(self, recipe: Recipe, model: InstructSAMModel, folder: str | Path):
        self.recipe, self.model, self.folder = recipe, model, folder
        self.settings = recipe.pixels or PixelsSettings()

    def dataset(self, entries: Sequence[dict[str, Any]], *, training: bool = False) -> SceneDataset:
        """Return the images of scene files."""
        augmentation = self.recipe.augmentation if training else None
        return SceneDataset(mixing_list(entries, Path()), self.recipe.seed, self.settings.random_crop, augmentation)

    def collator(self) -> DenseCollator:
        """Return the collator of both encoders."""
        config = self.model.config
        return DenseCollator(load_preprocessor(self.folder, config), config.image_size, self.model.grounding.rows)

    def module(self) -> DensePretraining:
        """Return the module to train."""
        return DensePretraining(self.model)

    def preview(
        self,
        training: DensePretraining,
        dataset: SceneDataset,
        indices: Sequence[int],
        to_batch: Callable[[Sequence[Any]], DenseBatch],
    ) -> np.ndarray:
        """Draw the predicted categories."""
        items = [dataset[index] for index in evenly(indices, COLUMNS)]
        return category_strip(training, items, [to_batch([item]) for item in items])

"""Common base of the stages that learn from record files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from instructsam.core.model.instructsam import InstructSAMModel
from instructsam.train.data.dataset import RecordDataset
from instructsam.train.data.mixing import mixing_list

if TYPE_CHECKING:
    from instructsam.train.loop.recipe import Recipe


class RecordStage:
    """Base of stages whose samples are records: questions and phrases with masks or boxes."""

    def __init__(self, recipe: Recipe, model: InstructSAMModel, folder: str | Path):
        self.recipe, self.model, self.folder = recipe, model, folder

    def dataset(self, entries: Sequence[dict[str, Any]], *, training: bool = False) -> RecordDataset:
        """Return the samples of record files."""
        recipe = self.recipe
        settings = recipe.base or recipe.instruct
        return RecordDataset(
            mixing_list(entries, Path()),
            self.model.config.num_queries,
            recipe.seed,
            recipe.max_broken_share,
            recipe.max_phrases,
            recipe.augmentation if training else None,
            settings.dummy_phrases if training and settings else 0.0,
        )

"""The training stages by name: each provides a module, its dataset, its collator and a preview of its predictions.

A stage's module returns loss sums, `{term: LossSum}`; its batches return the counts that the sums are divided by.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from torch import nn

from instructsam.train.stages.dense import DenseStage
from instructsam.train.stages.detector import DetectorStage
from instructsam.train.stages.instruct import InstructStage

if TYPE_CHECKING:
    from instructsam.core.model.instructsam import InstructSAMModel
    from instructsam.train.loop.recipe import Recipe


class StageDataset(Protocol):
    """Samples that depend on the epoch."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Any: ...

    def set_epoch(self, epoch: int) -> None:
        """Select the random choices of an epoch."""
        ...


class Stage(Protocol):
    """One stage of training, bound to a recipe and to the model that it trains."""

    def __init__(self, recipe: Recipe, model: InstructSAMModel, folder: str | Path):
        """Bind the stage.

        Args:
            recipe: The recipe.
            model: The model to train.
            folder: The model folder that it was loaded from: tokenizer and preprocessor.
        """

    def dataset(self, entries: Sequence[dict[str, Any]], *, training: bool = False) -> StageDataset:
        """Return the samples of a mixing list; training: with the random changes that the recipe asks for.

        Raises:
            DataError: If the list or one of its files cannot be used.
        """
        ...

    def collator(self) -> Callable[[Sequence[Any]], Any]:
        """Return the function that turns samples into a batch with `counts()`."""
        ...

    def module(self) -> nn.Module:
        """Return the module to train, with the model in `.model`; everything else in it is auxiliary heads."""
        ...

    def preview(
        self,
        training: Any,
        dataset: Any,
        indices: Sequence[int],
        to_batch: Callable[[Sequence[Any]], Any],
    ) -> np.ndarray | None:
        """Draw predictions on a few validation samples; None if none of them can be drawn.

        Args:
            training: The stage's module, in evaluation mode.
            dataset: The validation samples, as `dataset` returns them.
            indices: Those that may be drawn.
            to_batch: Collates samples on the module's device.

        Returns:
            An image [H, W, 3] uint8.
        """
        ...


STAGES: dict[str, type[Stage]] = {'pixels': DenseStage, 'base': DetectorStage, 'instruct': InstructStage}
"""Stages by their names in recipes. The recipe's section of a stage has the same name."""

"""An exponential moving average (EMA) of the trained weights, which the final model gets instead of the last ones.

It averages the noise of the last steps away, which a small model trained with small batches gains from. The average is
part of every checkpoint, so that a resumed run ends with the same bits. torch.optim.swa_utils.AveragedModel would copy
frozen weights, too, and writes neither checkpoints nor safetensors.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import nn
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from instructsam.core.model.checkpoint import write_tensors

FILE = 'ema.safetensors'


class MovingAverage(TrainerCallback):
    """The average of a stage's trained parameters; every process keeps the same one."""

    def __init__(self, training: nn.Module, decay: float):
        """Start from the current weights.

        Args:
            training: A stage's module, whose parameters are frozen or trained already.
            decay: Weight of the former average after each step; less in the first steps, (1 + step) / (10 + step).
        """
        self.training, self.decay = training, decay
        self.averages = {name: parameter.detach().clone() for name, parameter in self._trained()}

    def _trained(self) -> Iterator[tuple[str, nn.Parameter]]:
        return ((name, each) for name, each in self.training.named_parameters() if each.requires_grad)

    @torch.no_grad()
    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Move the average towards the weights after a step."""
        decay = min(self.decay, (1 + state.global_step) / (10 + state.global_step))
        for name, parameter in self._trained():
            self.averages[name] = self.averages[name].to(parameter).lerp_(parameter, 1 - decay)

    def save(self, folder: str | Path) -> None:
        """Write the average into a checkpoint's folder."""
        write_tensors(Path(folder) / FILE, {name: average.contiguous() for name, average in self.averages.items()})

    def load(self, folder: str | Path) -> None:
        """Read the average of a checkpoint."""
        self.averages = load_file(Path(folder) / FILE)

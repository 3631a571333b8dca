"""Evaluation during a run: loss terms on held-out samples and a preview of the model's predictions.

Training continues as if no evaluation had taken place: modules' modes and random states are restored.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from accelerate.utils import gather_object
from PIL import Image
from torch import nn
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from instructsam.core.atomic_write import replaced
from instructsam.train.data.batch import move_to_device
from instructsam.train.loop.run_log import append_row, drop_rows_after
from instructsam.train.loop.trainer import StageTrainer
from instructsam.train.losses.loss_sum import LossSum, accumulate
from instructsam.train.stages.previews import evenly
from instructsam.train.stages.stage import Stage, StageDataset

VALIDATION = 'validation.csv'
PREVIEWS = 'pictures'


class Validation(TrainerCallback):
    """Evaluates every `evaluate_every` steps and after the last one."""

    def __init__(
        self,
        trainer: StageTrainer,
        stage: Stage,
        dataset: StageDataset,
        collate: Callable[[Sequence[Any]], Any],
    ):
        """Select the samples.

        Args:
            trainer: The trainer.
            stage: Draws the previews.
            dataset: Held-out samples.
            collate: Turns samples into a batch.
        """
        self.trainer, self.stage, self.recipe = trainer, stage, trainer.recipe
        self.dataset, self.collate = dataset, collate
        self.indices = evenly(range(len(dataset)), self.recipe.validation_samples)

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Drop rows after the checkpoint that training resumes from."""
        if state.is_world_process_zero:
            drop_rows_after(self.trainer.output / VALIDATION, state.global_step)

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Evaluate if an evaluation is due."""
        step, every = state.global_step, self.recipe.evaluate_every
        if step >= state.max_steps or (every and step % every == 0):
            should_log = control.should_log
            self.evaluate(step)
            control.should_log = should_log  # the evaluation's log does not replace that of the step

    def evaluate(self, step: int) -> None:
        """Write the losses and the preview of `step`; all processes have to call it together."""
        start = time.monotonic()
        is_main = self.trainer.is_world_process_zero()
        with evaluation_mode(self.trainer.stage_module):
            terms = self.losses()
            if is_main and not self.trainer.is_fsdp_enabled:  # with FSDP, no process has all weights
                self.write_preview(step)
        terms = {'loss': sum(terms.values()), **terms}
        if is_main:
            row = {'step': step, **{f'val_{name}': f'{value:.5g}' for name, value in terms.items()}}
            append_row(self.trainer.output / VALIDATION, row)
        runtime_s = time.monotonic() - start
        self.trainer.log({**{f'eval_{name}': value for name, value in terms.items()}, 'eval_runtime': runtime_s})

    @torch.no_grad()
    def losses(self) -> dict[str, float]:
        """Return the mean of each term, as one step with all samples would have it.

        Processes take batches in turn. Because FSDP needs all of them in every forward pass, a process without a batch
        left repeats the last one, uncounted.
        """
        size, rank, world = self.recipe.batch_size, self.trainer.args.process_index, self.trainer.args.world_size
        batches = [self.indices[i : i + size] for i in range(0, len(self.indices), size)]
        results = []  # (number of the batch, its sums, its counts)
        for first in range(0, len(batches), world):
            number = min(first + rank, len(batches) - 1)
            torch.manual_seed(number)  # makes losses that draw random numbers reproducible
            batch = self.to_batch([self.dataset[index] for index in batches[number]])
            sums = self.trainer.stage_module(batch)
            if first + rank == number:
                values = {name: LossSum(loss.value.cpu(), loss.unit) for name, loss in sums.items()}
                results.append((number, values, batch.counts()))
        totals: dict[str, LossSum] = {}
        counts: dict[str, int] = {}
        for _, sums, batch_counts in sorted(gather_object(results), key=lambda each: each[0]):
            accumulate(totals, sums)
            for unit, count in batch_counts.items():
                counts[unit] = counts.get(unit, 0) + count
        return {name: float(loss.value) / max(counts[loss.unit], 1) for name, loss in totals.items()}

    def to_batch(self, samples: Sequence[Any]) -> Any:
        """Return the batch of `samples` on the trainer's device."""
        return move_to_device(self.collate(samples), self.trainer.args.device)

    def write_preview(self, step: int) -> None:
        """Write the predictions on a few samples, evenly spaced over the validation list."""
        training = self.trainer.accelerator.unwrap_model(self.trainer.model)
        preview = self.stage.preview(training, self.dataset, self.indices, self.to_batch)
        if preview is not None:
            path = self.trainer.output / PREVIEWS / f'step_{step:06d}.png'
            path.parent.mkdir(parents=True, exist_ok=True)
            with replaced(path) as part:
                Image.fromarray(preview).save(part)


@contextmanager
def evaluation_mode(model: nn.Module) -> Iterator[None]:
    """Put `model` in evaluation mode; afterwards restore every module's mode and every random state."""
    modes = {module: module.training for module in model.modules()}
    python_state, numpy_state = random.getstate(), np.random.get_state()
    with torch.random.fork_rng([torch.cuda.current_device()] if torch.cuda.is_available() else []):
        try:
            model.eval()
            yield
        finally:
            random.setstate(python_state)
            np.random.set_state(numpy_state)
            for module, mode in modes.items():
                module.training = mode

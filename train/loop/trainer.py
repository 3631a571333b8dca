"""transformers' Trainer for the stages: loss sums divided by the counts of a whole step, and atomic checkpoints.

A stage's module returns loss sums, `{term: LossSum}`, and its batches know the count of each unit. A step adds up both
over its batches and over all processes, so that no sample's weight depends on the batch or process that it is in.
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedType, FullyShardedDataParallelPlugin, gather_object
from torch import nn
from torch.utils.data import Dataset
from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer import OPTIMIZER_NAME, SCHEDULER_NAME, TRAINER_STATE_NAME

from instructsam.core.atomic_write import commit_folder
from instructsam.core.errors import InstructSAMError
from instructsam.train.data.batch import move_to_device
from instructsam.train.loop.checkpoints import PARTIAL, checkpoints, read_stage, save_stage, step_of
from instructsam.train.loop.param_groups import describe, parameter_groups
from instructsam.train.loop.recipe import Recipe, RecipeError
from instructsam.train.loop.sharding import gathered, load_model, load_optimizer
from instructsam.train.optimizers.ema import MovingAverage
from instructsam.train.optimizers.muon import Muon
from instructsam.train.stages.stage import StageDataset


class TrainingError(InstructSAMError):
    """A run that cannot continue."""


class StageTrainer(Trainer):
    """Trains the module of a stage."""

    def __init__(
        self,
        training: nn.Module,
        recipe: Recipe,
        dataset: StageDataset,
        collate: Callable[[Sequence[Any]], Any],
        *,
        source: str | Path | None = None,
        args: TrainingArguments,
        callbacks: list[TrainerCallback],
    ):
        """Freeze what the recipe does not train.

        Args:
            training: The stage's module.
            recipe: The recipe.
            dataset: The stage's samples.
            collate: Turns samples into a batch.
            source: Model folder whose small files are copied to every checkpoint.
            args: Settings of transformers' Trainer.
            callbacks: Callbacks in addition to the Trainer's.
        """
        self.recipe, self.source = recipe, source
        self.groups = parameter_groups(training, recipe.learning_rates, recipe.weight_decay, recipe.muon)
        super().__init__(
            training,
            args=args,
            train_dataset=BatchDataset(dataset, collate),
            data_collator=_identity,
            callbacks=callbacks,
        )
        self.add_callback(EpochSetter(dataset))
        self.average = MovingAverage(training, recipe.ema) if recipe.ema else None
        if self.average is not None:
            self.add_callback(self.average)
        self.model_accepts_loss_kwargs = True  # losses are divided here, not by the number of batches
        self.means = RunningMeans()

    @property
    def output(self) -> Path:
        """Folder of the run."""
        return Path(self.recipe.output)

    @property
    def stage_module(self) -> nn.Module:
        """The stage's module."""
        return cast(nn.Module, self.model)

    def create_accelerator_and_postprocess(self) -> None:
        """Refuse types of FSDP whose checkpoints would not hold whole weights, and enable FSDP on CPUs.

        On CPUs, accelerate would silently replicate the model, although torch can shard it.
        """
        super().create_accelerator_and_postprocess()
        state: Any = self.accelerator.state
        plugin_args: Any = self.args.fsdp_plugin_args
        if plugin_args is None:
            return
        if state.distributed_type is DistributedType.MULTI_CPU:
            state.distributed_type = DistributedType.FSDP
            state.fsdp_plugin = FullyShardedDataParallelPlugin(**plugin_args)
            self.is_fsdp_enabled = True
        if state.fsdp_plugin.fsdp_version != 2 or 'FULL_STATE_DICT' not in str(state.fsdp_plugin.state_dict_type):
            raise RecipeError('trainer.fsdp_config needs version 2 and state_dict_type FULL_STATE_DICT')

    def create_optimizer(self, model: nn.Module | None = None) -> torch.optim.Optimizer:
        """Create the recipe's optimizer and print the parts that it trains."""
        if self.optimizer is None:
            if self.recipe.muon:
                self.optimizer = Muon(self.groups, betas=self.recipe.betas)
            else:
                self.optimizer = torch.optim.AdamW(self.groups, betas=self.recipe.betas, fused=True)
            if self.is_world_process_zero():
                print('\n'.join(describe(self.groups)), flush=True)
        return self.optimizer

    def get_batch_samples(self, epoch_iterator: Any, num_batches: int, device: torch.device) -> tuple[list[Any], Any]:
        """Return the batches of one step and its counts over all processes.

        Raises:
            InstructSAMError: If a sample could not be read.
        """
        batches, _ = super().get_batch_samples(epoch_iterator, num_batches, device)
        counts: dict[str, int] = {}
        for batch in batches:
            if isinstance(batch, InstructSAMError):
                raise batch
            for unit, count in batch.counts().items():
                counts[unit] = counts.get(unit, 0) + count
        values = torch.tensor([float(counts[unit]) for unit in sorted(counts)], device=device)
        if self.args.world_size > 1:
            values = cast(torch.Tensor, self.accelerator.reduce(values, 'sum'))
        return batches, dict(zip(sorted(counts), values.clamp(min=1).tolist(), strict=True))

    def _get_num_items_in_batch(self, batch_samples: list[Any], device: torch.device) -> None:
        return None

    def floating_point_ops(self, inputs: Any) -> int:
        """Return 0, because operations are not counted."""
        return 0

    def _prepare_inputs(self, inputs: Any) -> Any:
        return move_to_device(inputs, self.args.device)

    def compute_loss(
        self,
        model: nn.Module,
        inputs: Any,
        return_outputs: bool = False,
        num_items_in_batch: Mapping[str, float] | None = None,
    ) -> torch.Tensor:
        """Return the loss of one batch of a step; num_items_in_batch: the counts of the step."""
        assert num_items_in_batch is not None  # get_batch_samples returns the counts
        losses = {name: loss.value / num_items_in_batch[loss.unit] for name, loss in model(inputs).items()}
        self._check_losses(losses)
        self.means.add(losses, is_step=self.accelerator.sync_gradients)
        total = sum(losses.values(), torch.zeros((), device=self.args.device))
        if torch.is_grad_enabled() and not total.requires_grad:
            parts = ', '.join(sorted({group['name'] for group in self.groups}))
            raise RecipeError(
                f'no loss of stage {self.recipe.stage!r} depends on what is trained ({parts}): give other parts of the '
                'model a learning rate'
            )
        # DDP and FSDP average gradients over processes, but the sums have to be added up.
        return total * self.args.world_size

    def _check_losses(self, losses: Mapping[str, torch.Tensor]) -> None:
        """Raise TrainingError if a loss is not finite: one step with it makes all weights NaN."""
        if not losses or torch.isfinite(torch.stack([loss.detach().float() for loss in losses.values()])).all():
            return
        values = {name: float(loss.detach()) for name, loss in losses.items()}
        wrong = ', '.join(f'{name} is {value}' for name, value in values.items() if not math.isfinite(value))
        raise TrainingError(
            f'step {self.state.global_step + 1}: the loss {wrong}. The checkpoints are fine: start again from one with '
            'lower learning rates or another precision, or look for data that causes it'
        )

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Log the mean of every loss term since the last log, over all processes, with the other values."""
        if 'loss' in logs:
            terms = self.means.take(self.accelerator if self.args.world_size > 1 else None)
            logs = {**logs, **terms, 'loss': sum(terms.values())}
        super().log(logs, start_time)

    def is_finished(self, folder: Path) -> bool:
        """Return whether a checkpoint is that of the last step; resumed from it, the Trainer would take one more."""
        steps = self.args.max_steps
        if steps <= 0:
            per_epoch = max(1, math.ceil(len(self.get_train_dataloader()) / self.args.gradient_accumulation_steps))
            steps = math.ceil(self.args.num_train_epochs * per_epoch)
        return TrainerState.load_from_json(str(folder / TRAINER_STATE_NAME)).global_step >= steps

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """Write the weights of a checkpoint."""
        tensors = gathered(self.stage_module.state_dict(), keep=self.args.should_save)
        if self.args.should_save:
            save_stage(self.stage_module, tensors, output_dir or self.output, self.source)
            if self.average is not None:
                self.average.save(output_dir or self.output)

    def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
        """Write the same files with and without FSDP."""
        if not self.is_fsdp_enabled:
            super()._save_optimizer_and_scheduler(output_dir)
            return
        optimizer, scheduler = cast(torch.optim.Optimizer, self.optimizer), cast(Any, self.lr_scheduler)
        state = gathered(optimizer.state_dict(), keep=self.args.should_save)
        if self.args.should_save:
            torch.save(state, Path(output_dir) / OPTIMIZER_NAME)
            torch.save(scheduler.state_dict(), Path(output_dir) / SCHEDULER_NAME)

    def _get_output_dir(self, trial: Any) -> str:
        """Return the folder in which the Trainer writes a checkpoint, before _save_checkpoint moves it."""
        return str(self.output / PARTIAL)

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        """Write a checkpoint under another name first: a kill at any instant leaves the last complete one."""
        partial = self.output / PARTIAL
        if self.args.should_save:
            shutil.rmtree(partial, ignore_errors=True)
        self.accelerator.wait_for_everyone()
        super()._save_checkpoint(model, trial)
        self.accelerator.wait_for_everyone()
        if self.args.should_save:
            written = partial / f'checkpoint-{self.state.global_step}'
            commit_folder(written, self.output / written.name)
            done = [path for path in checkpoints(self.output) if step_of(path) <= self.state.global_step]
            for old in done[: -self.recipe.keep]:
                shutil.rmtree(old)
        self.accelerator.wait_for_everyone()

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        load_model(self.stage_module, read_stage(self.stage_module, resume_from_checkpoint))
        if self.average is not None:
            self.average.load(resume_from_checkpoint)

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        if checkpoint is None:
            return
        if self.is_deepspeed_enabled:  # DeepSpeed has loaded both already
            super()._load_optimizer_and_scheduler(checkpoint)
            return
        files = [Path(checkpoint) / name for name in (OPTIMIZER_NAME, SCHEDULER_NAME)]
        optimizer, scheduler = (torch.load(file, map_location='cpu', weights_only=True) for file in files)
        try:
            cast(Any, self.lr_scheduler).load_state_dict(scheduler)
            load_optimizer(self.optimizer, optimizer)
        except (ValueError, IndexError) as error:
            raise RecipeError(
                f'{checkpoint} was written by a run that trains other parts of the model ({error}). Give this run '
                'another output, or the learning rates that the run was started with'
            ) from error


class BatchDataset(Dataset):
    """Reads and collates whole batches, and returns an InstructSAMError instead of raising it.

    A DataLoader turns an exception of a worker process into one whose message is the worker's traceback. As a value,
    the error reaches the main process unchanged.
    """

    def __init__(self, dataset: StageDataset, collate: Callable[[Sequence[Any]], Any]):
        self.dataset, self.collate = dataset, collate

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> Any:
        return self.__getitems__([index])

    def __getitems__(self, indices: Iterable[int]) -> Any:
        """Return the batch of some samples; a DataLoader calls this if it exists."""
        try:
            return self.collate([self.dataset[index] for index in indices])
        except InstructSAMError as error:
            return error


def _identity(batch: Any) -> Any:
    """Collate function for a BatchDataset; a lambda could not be sent to worker processes."""
    return batch


class EpochSetter(TrainerCallback):
    """Sets the dataset's epoch: with several processes, accelerate's data loader does not."""

    def __init__(self, dataset: StageDataset):
        self.dataset = dataset

    def on_epoch_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Set the dataset's epoch to the one that begins."""
        self.dataset.set_epoch(int(state.epoch or 0))


class RunningMeans:
    """Loss terms averaged over steps."""

    def __init__(self) -> None:
        self.sums: dict[str, torch.Tensor] = {}
        self.steps = 0

    def add(self, losses: Mapping[str, torch.Tensor], *, is_step: bool) -> None:
        """Add the terms of a batch; is_step: it is the last batch of a step."""
        for name, value in losses.items():
            value = value.detach()
            self.sums[name] = self.sums[name] + value if name in self.sums else value
        self.steps += is_step

    def take(self, accelerator: Accelerator | None = None) -> dict[str, float]:
        """Return the mean of each term since the last call, summed over processes, which may have different terms."""
        names = sorted(self.sums)
        if accelerator is not None:
            names = sorted(set(gather_object(names)))
        zero = torch.zeros_like(next(iter(self.sums.values())))
        values = torch.stack([self.sums.get(name, zero).float() for name in names]) / max(self.steps, 1)
        if accelerator is not None:
            values = cast(torch.Tensor, accelerator.reduce(values, 'sum'))
        self.sums, self.steps = {}, 0
        return dict(zip(names, values.tolist(), strict=True))

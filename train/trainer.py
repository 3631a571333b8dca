"""transformers' Trainer for the stages: loss sums divided by the counts of a whole step, atomic checkpoints.

A stage's module returns sums, `{term: (sum, count)}`, where `count` names what the sum goes over; its batches know
their counts. A step adds up both over its batches and over all processes, so that no sample's weight depends on which
batch or process it fell into.
"""
import os
import shutil
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from transformers import Trainer
from transformers.trainer_utils import get_last_checkpoint

from instructsam.core import checkpoint
from instructsam.train.parts import describe, parameter_groups, to

PARTIAL = 'partial'  # where a checkpoint is written before it gets its name
HEADS = 'heads.safetensors'


class StageTrainer(Trainer):
    """Trains the module of a stage."""

    def __init__(self, training, recipe, *, source=None, **kwargs):
        """training: the module; source: model folder whose small files every checkpoint gets."""
        self.recipe, self.source = recipe, source
        self.groups = parameter_groups(training, recipe.rates, recipe.weight_decay)
        super().__init__(training, **kwargs)
        self.model_accepts_loss_kwargs = True  # losses are divided here, not by the number of batches
        self.means = Means()

    def create_optimizer(self, model=None):
        if self.optimizer is None:
            if model is not None:  # wrapped by FSDP: other parameter objects
                self.groups = parameter_groups(model, self.recipe.rates, self.recipe.weight_decay)
            self.optimizer = torch.optim.AdamW(self.groups, betas=tuple(self.recipe.betas))
            for line in describe(self.groups):
                self.log_line(line)
        return self.optimizer

    def log_line(self, line):
        if self.is_world_process_zero():
            print(line, flush=True)

    def get_batch_samples(self, epoch_iterator, num_batches, device):
        """The batches of one step and its counts over all processes."""
        batches, _ = super().get_batch_samples(epoch_iterator, num_batches, device)
        counts = {}
        for batch in batches:
            for name, count in batch.counts().items():
                counts[name] = counts.get(name, 0) + count
        values = torch.tensor([float(counts[name]) for name in sorted(counts)], device=device)
        if self.args.world_size > 1:
            values = self.accelerator.reduce(values, 'sum')
        return batches, dict(zip(sorted(counts), values.clamp(min=1).tolist()))

    def _get_num_items_in_batch(self, batch_samples, device):
        return None

    def floating_point_ops(self, inputs):
        return 0  # not counted

    def _prepare_inputs(self, inputs):
        return to(inputs, self.args.device)

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        sums = model(inputs)
        losses = {name: value / num_items_in_batch[count] for name, (value, count) in sums.items()}
        self.means.add(losses, step=self.accelerator.sync_gradients)
        total = sum(losses.values())
        # DDP and FSDP average gradients over processes; the sums are to be added
        return total * self.args.world_size

    def log(self, logs, start_time=None):
        """Adds the mean of every loss term since the last log, over all processes."""
        if 'loss' in logs:
            terms = self.means.take(self.accelerator if self.args.world_size > 1 else None)
            logs = {**logs, **terms, 'loss': sum(terms.values())}
        super().log(logs, start_time)

    def _save(self, output_dir=None, state_dict=None):
        if self.args.should_save:
            save_stage(self.model, output_dir, self.source)

    def _save_checkpoint(self, model, trial):
        """Writes to a folder of another name first: a kill at any instant leaves the last good checkpoint."""
        final, partial = Path(self.args.output_dir), Path(self.args.output_dir) / PARTIAL
        if self.args.should_save:
            shutil.rmtree(partial, ignore_errors=True)
        self.accelerator.wait_for_everyone()
        kept, self.args.output_dir = self.args.output_dir, str(partial)
        limit, self.args.save_total_limit = self.args.save_total_limit, None
        try:
            super()._save_checkpoint(model, trial)
        finally:
            self.args.output_dir, self.args.save_total_limit = kept, limit
        self.accelerator.wait_for_everyone()
        if self.args.should_save:
            written = partial / f'checkpoint-{self.state.global_step}'
            _flush(written)
            target = final / written.name
            shutil.rmtree(target, ignore_errors=True)
            os.replace(written, target)
            for old in checkpoints(final)[: -self.recipe.keep]:
                shutil.rmtree(old)
        self.accelerator.wait_for_everyone()

    def _load_from_checkpoint(self, resume_from_checkpoint, model=None):
        load_stage(self.model, resume_from_checkpoint)


class Means:
    """Loss terms, averaged over steps."""

    def __init__(self):
        self.sums, self.steps = {}, 0

    def add(self, losses, step):
        for name, value in losses.items():
            self.sums[name] = self.sums.get(name, 0.0) + value.detach()
        self.steps += step

    def take(self, accelerator=None):
        """{term: mean} since the last call, summed over processes."""
        names = sorted(self.sums)
        values = torch.stack([self.sums[name].float() for name in names]) / max(self.steps, 1)
        if accelerator is not None:
            values = accelerator.reduce(values, 'sum')
        self.sums, self.steps = {}, 0
        return dict(zip(names, values.tolist()))


def save_stage(training, folder, source):
    """A checkpoint's weights: the model in the published layout, and what only training uses."""
    folder = Path(folder)
    checkpoint.save(training.model, folder, source)
    heads = {
        name: tensor.contiguous() for name, tensor in training.state_dict().items() if not name.startswith('model.')
    }
    if heads:
        save_file(heads, folder / HEADS)


def load_stage(training, folder):
    """Reads back what save_stage wrote, into `training`."""
    folder = Path(folder)
    tensors = {f'model.{name}': tensor for name, tensor in load_file(folder / checkpoint.SINGLE).items()}
    if (folder / HEADS).is_file():
        tensors.update(load_file(folder / HEADS))
    training.load_state_dict(tensors)


def checkpoints(folder):
    """The whole checkpoints in a run's folder, oldest first."""
    found = [path for path in Path(folder).glob('checkpoint-*') if path.is_dir()]
    return sorted(found, key=lambda path: int(path.name.rpartition('-')[2]))


def last_checkpoint(folder):
    """Path of the newest whole checkpoint in a run's folder, or None."""
    return get_last_checkpoint(folder) if Path(folder).is_dir() else None


def _flush(folder):
    """Brings everything in `folder` to the disk."""
    for path in folder.rglob('*'):
        if path.is_file():
            with path.open('rb') as file:
                os.fsync(file.fileno())

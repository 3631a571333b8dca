"""transformers' Trainer for the stages: loss sums divided by the counts of a whole step, atomic checkpoints.

A stage's module returns sums, `{term: (sum, count)}`, where `count` names what the sum goes over; its batches know
their counts. A step adds up both over its batches and over all processes, so that no sample's weight depends on which
batch or process it fell into.
"""

import math
import shutil
from pathlib import Path

import torch
from accelerate.utils import DistributedType, FullyShardedDataParallelPlugin
from transformers import Trainer, TrainerCallback, TrainerState
from transformers.trainer import OPTIMIZER_NAME, SCHEDULER_NAME, TRAINER_STATE_NAME

from instructsam.train.loop.checkpoints import PARTIAL, checkpoints, publish, read_stage, save_stage, step_of
from instructsam.train.loop.muon import Muon
from instructsam.train.loop.param_groups import describe, parameter_groups, to
from instructsam.train.loop.recipe import RecipeError
from instructsam.train.loop.sharding import gathered, load_model, load_optimizer


class StageTrainer(Trainer):
    """Trains the module of a stage."""

    def __init__(self, training, recipe, *, source=None, **kwargs):
        """training: the module; source: model folder whose small files every checkpoint gets."""
        self.recipe, self.source = recipe, source
        self.groups = parameter_groups(training, recipe.rates, recipe.weight_decay, recipe.muon)
        super().__init__(training, **kwargs)
        self.add_callback(Epochs(self.train_dataset))
        self.model_accepts_loss_kwargs = True  # losses are divided here, not by the number of batches
        self.means = Means()

    def create_accelerator_and_postprocess(self):
        """Refuses kinds of FSDP whose checkpoints would hold no whole weights, and lets FSDP be on CPUs: accelerate
        would replicate the model there without a word, while torch can shard it.
        """
        super().create_accelerator_and_postprocess()
        state, wanted = self.accelerator.state, self.args.fsdp_plugin_args
        if wanted is None:
            return
        if state.distributed_type is DistributedType.MULTI_CPU:
            state.distributed_type = DistributedType.FSDP
            state.fsdp_plugin = FullyShardedDataParallelPlugin(**wanted)
            self.is_fsdp_enabled = True
        if state.fsdp_plugin.fsdp_version != 2 or 'FULL_STATE_DICT' not in str(state.fsdp_plugin.state_dict_type):
            raise RecipeError('trainer.fsdp_config: version is 2 and state_dict_type FULL_STATE_DICT here')

    def create_optimizer(self, model=None):
        if self.optimizer is None:
            kind = Muon if self.recipe.muon else torch.optim.AdamW
            self.optimizer = kind(self.groups, betas=tuple(self.recipe.betas))
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

    def is_finished(self, folder):
        """Whether the checkpoint `folder` is of the last step: transformers' Trainer would take one more."""
        steps = self.args.max_steps
        if steps <= 0:
            per_epoch = max(1, math.ceil(len(self.get_train_dataloader()) / self.args.gradient_accumulation_steps))
            steps = math.ceil(self.args.num_train_epochs * per_epoch)
        return TrainerState.load_from_json(Path(folder) / TRAINER_STATE_NAME).global_step >= steps

    def save_model(self, output_dir=None, _internal_call=False):
        tensors = gathered(self.model.state_dict(), self.args.should_save)
        if self.args.should_save:
            save_stage(self.model, tensors, output_dir, self.source)

    def _save_optimizer_and_scheduler(self, output_dir):
        """The same files with FSDP and without."""
        if not self.is_fsdp_enabled:
            super()._save_optimizer_and_scheduler(output_dir)
            return
        state = gathered(self.optimizer.state_dict(), self.args.should_save)
        if self.args.should_save:
            torch.save(state, Path(output_dir) / OPTIMIZER_NAME)
            torch.save(self.lr_scheduler.state_dict(), Path(output_dir) / SCHEDULER_NAME)

    def _save_checkpoint(self, model, trial):
        """Writes to a folder of another name first: a kill at any instant leaves the last good checkpoint."""
        output, partial = Path(self.args.output_dir), Path(self.args.output_dir) / PARTIAL
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
            publish(written, output / written.name)
            done = [path for path in checkpoints(output) if step_of(path) <= self.state.global_step]
            for old in done[: -self.recipe.keep]:
                shutil.rmtree(old)
        self.accelerator.wait_for_everyone()

    def _load_from_checkpoint(self, resume_from_checkpoint, model=None):
        load_model(self.model, read_stage(self.model, resume_from_checkpoint))

    def _load_optimizer_and_scheduler(self, checkpoint):
        if checkpoint is None:
            return
        if self.is_deepspeed_enabled:  # has loaded both
            super()._load_optimizer_and_scheduler(checkpoint)
            return
        files = [Path(checkpoint) / name for name in (OPTIMIZER_NAME, SCHEDULER_NAME)]
        optimizer, scheduler = (torch.load(file, map_location='cpu', weights_only=True) for file in files)
        try:
            self.lr_scheduler.load_state_dict(scheduler)
            load_optimizer(self.optimizer, optimizer)
        except (ValueError, IndexError) as error:
            raise RecipeError(
                f'{checkpoint} was written by a run that trains other parts of the model ({error}). Give this run '
                'another output, or the rates that the run was started with'
            ) from error


class Epochs(TrainerCallback):
    """Tells the dataset which epoch begins: with several processes, accelerate's data loader does not."""

    def __init__(self, dataset):
        self.dataset = dataset

    def on_epoch_begin(self, args, state, control, **kwargs):
        self.dataset.set_epoch(int(state.epoch or 0))


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

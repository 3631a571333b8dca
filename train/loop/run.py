"""Runs a recipe: builds the model, the stage and the trainer, and resumes from the last checkpoint if there is one."""

from __future__ import annotations

import gc
import os
from contextlib import ExitStack, closing, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from accelerate import PartialState
from torch import nn
from transformers import TrainingArguments
from transformers.integrations.integration_utils import is_tensorboard_available
from transformers.trainer_callback import PrinterCallback, ProgressCallback
from transformers.training_args import ParallelMode

from instructsam.core import builtin
from instructsam.core.folder_lock import FolderLock
from instructsam.core.model import checkpoint
from instructsam.core.model.instructsam import InstructSAMModel
from instructsam.core.stop_signals import resume_hint
from instructsam.core.storage import explained_storage_faults, thread_faults_raised
from instructsam.train.loop.checkpoints import (
    FINAL,
    is_finished,
    last_checkpoint,
    load_auxiliary_heads,
    read_stage,
    step_of,
    write_final_model,
)
from instructsam.train.loop.lora import add_lora
from instructsam.train.loop.recipe import Recipe, RecipeError
from instructsam.train.loop.resuming import check_resumed
from instructsam.train.loop.run_log import Progress, TensorBoard
from instructsam.train.loop.trainer import StageTrainer
from instructsam.train.loop.validation import Validation
from instructsam.train.stages.stage import STAGES
from instructsam.train.weights.initialise import initialise

if TYPE_CHECKING:
    from instructsam.train.stages.stage import Stage


def run(recipe: Recipe) -> Path:
    """Train by `recipe` and return the folder of the final model.

    Raises:
        InstructSAMError: If the recipe or its data cannot be used.
        FolderInUseError: If another process trains in the recipe's output.
        StorageError: If the output cannot be written.
    """

    def where() -> str:
        last = last_checkpoint(recipe.output)
        return f'the same command resumes after step {step_of(last)}' if last else 'there is no checkpoint yet'

    is_main = os.environ.get('RANK', '0') == '0'  # torchrun sets the number of this process; the first one writes
    lock = FolderLock(recipe.output) if is_main else nullcontext()
    with explained_storage_faults(recipe.output), thread_faults_raised(recipe.output), lock, resume_hint(where):
        final = _run(recipe, is_main=is_main)
    # A process that ends with a live process group may crash. Among the objects that refer to the group, DDP's reducer
    # has to be freed first: freed last, it would join the group's thread while holding the GIL, which that thread
    # may be waiting for.
    gc.collect()
    PartialState().destroy_process_group()
    return final


def _run(recipe: Recipe, *, is_main: bool) -> Path:
    folder = Path(builtin.folder(recipe.model, recipe.revision))
    world_size = int(os.environ.get('WORLD_SIZE', '1'))
    if is_main:
        check_resumed(recipe, folder, world_size)
    final = Path(recipe.output) / FINAL
    if last_checkpoint(recipe.output) is None and is_finished(recipe.output):  # its checkpoints were deleted
        return final
    torch.manual_seed(recipe.seed)
    stage = build_stage(recipe, start_model(recipe, folder), folder)
    dataset, collate = stage.dataset(recipe.data, training=True), stage.collator()
    if len(dataset) < recipe.batch_size * world_size:  # The loader drops the last batch if it is not full.
        each = f' of each of the {world_size} processes' if world_size > 1 else ''
        raise RecipeError(
            f'data has {len(dataset)} samples, and batch_size{each} is {recipe.batch_size}: not one batch is full; '
            f'lower batch_size or give more data'
        )
    trainer = StageTrainer(
        build_module(stage, folder),
        recipe,
        dataset,
        collate,
        source=folder,
        args=training_arguments(recipe),
        callbacks=[Progress(recipe.batch_size * recipe.accumulation * world_size)],
    )
    trainer.remove_callback(PrinterCallback)
    trainer.remove_callback(ProgressCallback)
    if recipe.validation:
        trainer.add_callback(Validation(trainer, stage, stage.dataset(recipe.validation), collate))
    with ExitStack() as stack:
        if is_tensorboard_available():
            trainer.add_callback(stack.enter_context(closing(TensorBoard())))
        train(trainer, last_checkpoint(recipe.output))
    if trainer.args.should_save:
        write_final_model(recipe.output, merged=recipe.lora is not None and recipe.lora.merge)
    return final


def train(trainer: StageTrainer, last: Path | None) -> None:
    """Train from the checkpoint `last`, or from the start."""
    if last is not None and trainer.is_finished(last):
        read_stage(trainer.stage_module, last)  # RecipeError if another configuration wrote it
        return
    trainer.train(resume_from_checkpoint=str(last) if last else None)


def start_model(recipe: Recipe, folder: str | Path) -> InstructSAMModel:
    """Return the model that training starts from, in float32 on the CPU, in training mode."""
    model = checkpoint.load(folder, torch.device('cpu'), torch.float32)
    if recipe.initialise:
        trunk = model.model.trunk
        model = InstructSAMModel(model.config)
        initialise(model, recipe.seed)
        model.model.trunk = trunk
    if not recipe.trainer.get('fsdp'):  # FSDP needs contiguous weights
        # Makes convolutions faster. torch does not annotate the keyword alone.
        model.grounding.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    model.requires_grad_(True).train()
    if recipe.lora is not None:
        add_lora(model, recipe.lora)
    return model


def build_stage(recipe: Recipe, model: InstructSAMModel, folder: str | Path) -> Stage:
    """Return the recipe's stage for a model loaded from `folder`."""
    return STAGES[recipe.stage](recipe, model, folder)


def build_module(stage: Stage, folder: str | Path) -> nn.Module:
    """Return the stage's module with the auxiliary heads that the previous run left."""
    training = stage.module()
    load_auxiliary_heads(training, folder)
    return training


def training_arguments(recipe: Recipe) -> TrainingArguments:
    """Return transformers' TrainingArguments.

    Raises:
        RecipeError: If a setting is invalid, or this machine cannot train with it.
    """
    try:
        arguments = _training_arguments(recipe)
    except (TypeError, ValueError, ImportError) as error:
        raise RecipeError(f'trainer: {" ".join(str(error).split())}') from error
    if arguments.fsdp and arguments.parallel_mode is not ParallelMode.DISTRIBUTED:
        raise RecipeError('trainer.fsdp shards the model over processes: start them with torchrun')
    arguments._n_gpu = min(arguments.n_gpu, 1)  # each process uses one GPU; torchrun starts one process per GPU
    return arguments


def _training_arguments(recipe: Recipe) -> TrainingArguments:
    return TrainingArguments(
        output_dir=recipe.output,
        per_device_train_batch_size=recipe.batch_size,
        gradient_accumulation_steps=recipe.accumulation,
        max_steps=recipe.steps or -1,
        num_train_epochs=recipe.epochs,
        lr_scheduler_type=recipe.schedule,
        warmup_steps=recipe.warmup_ratio,  # transformers takes a value below 1 as a share of all steps
        max_grad_norm=recipe.clip_norm,
        logging_steps=recipe.log_every,
        save_steps=recipe.save_every,
        seed=recipe.seed,
        bf16=recipe.dtype == 'bfloat16',
        dataloader_num_workers=recipe.workers,
        dataloader_drop_last=True,
        remove_unused_columns=False,
        report_to='none',  # run_log.TensorBoard reports instead
        logging_nan_inf_filter=False,
        disable_tqdm=True,
        use_cpu=not torch.cuda.is_available(),  # without it, several processes without a GPU would not find each other
        **{'ddp_find_unused_parameters': True, 'dataloader_pin_memory': torch.cuda.is_available(), **recipe.trainer},
    )

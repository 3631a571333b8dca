"""Runs a recipe: builds model, data and trainer, goes on from the last checkpoint where there is one."""

import gc
import os
from pathlib import Path

import torch
from accelerate import PartialState
from transformers import TrainingArguments
from transformers.integrations import is_tensorboard_available
from transformers.trainer_callback import PrinterCallback, ProgressCallback
from transformers.training_args import ParallelMode

from instructsam.core import builtin
from instructsam.core.errors import InstructSAMError
from instructsam.core.model import checkpoint
from instructsam.core.model.config import ModelConfig
from instructsam.core.model.instructsam import InstructSAMModel
from instructsam.core.model.preprocess import QwenPreprocessor
from instructsam.train.data.collate import Collator
from instructsam.train.data.dataset import Mix, mixing_list
from instructsam.train.loop.checkpoints import FINAL, HEADS, finish, last_checkpoint, load_heads, read_stage
from instructsam.train.loop.lora import add_lora
from instructsam.train.loop.recipe import RecipeError
from instructsam.train.loop.run_log import Board, Progress
from instructsam.train.loop.trainer import StageTrainer
from instructsam.train.loop.validation import Watch
from instructsam.train.stages.dense import PixelCollator, PixelTraining, ScenePictures
from instructsam.train.stages.detector import BaseCollator, BaseTraining
from instructsam.train.stages.instruct import InstructTraining
from instructsam.train.weights.initialise import initialise, prepare_detector

PREPARED_WITH = 8  # samples


def run(recipe):
    """Trains as `recipe` says and returns the folder of the final model."""
    final = _run(recipe)
    # A process that ends with a live group may crash. Of what refers to the group, DDP's reducer has to go first: freed
    # last, it would end the group's thread while it holds Python's lock, which that thread may be waiting for.
    gc.collect()
    PartialState().destroy_process_group()
    return final


def _run(recipe):
    torch.manual_seed(recipe.seed)
    folder = builtin.folder(recipe.model)
    model = start_model(recipe, folder)
    training, dataset, collator = build_stage(recipe, model, folder)
    arguments = arguments_of(recipe)
    world = int(os.environ.get('WORLD_SIZE', '1'))
    trainer = StageTrainer(
        training,
        recipe,
        source=folder,
        args=arguments,
        train_dataset=dataset,
        data_collator=collator,
        callbacks=[Progress(recipe.batch_size * recipe.accumulation * world)],
    )
    trainer.remove_callback(PrinterCallback)
    trainer.remove_callback(ProgressCallback)
    if is_tensorboard_available():
        trainer.add_callback(Board())
    if recipe.validation:
        trainer.add_callback(Watch(trainer, dataset_of(recipe, recipe.validation, model.config), collator, folder))
    train(trainer, last_checkpoint(recipe.output))
    if trainer.args.should_save:
        finish(recipe.output, merged=recipe.lora is not None and recipe.lora.merge)
    return Path(recipe.output) / FINAL


def train(trainer, last):
    """Trains from the checkpoint `last` on, or from the start (None)."""
    if last is not None and trainer.is_finished(last):
        read_stage(trainer.model, last)  # raises where it is another configuration's
        return
    try:
        trainer.train(resume_from_checkpoint=last and str(last))
    except InstructSAMError as error:
        of_worker = str(error).partition('Original Traceback')[2]  # torch puts a worker process's into the message
        raise type(error)(of_worker.strip().rpartition('\n')[2].partition(': ')[2]) if of_worker else error


def start_model(recipe, folder):
    """The model that training starts from, in float32 on the CPU, in training mode."""
    if recipe.initialise:
        model = InstructSAMModel(ModelConfig.from_folder(folder))
        initialise(model, recipe.seed)
    else:
        model = checkpoint.load(folder, torch.device('cpu'), torch.float32)
    if not recipe.trainer.get('fsdp'):  # which wants contiguous weights
        model.grounding.to(memory_format=torch.channels_last)  # faster convolutions
    model.requires_grad_(True).train()
    if recipe.lora is not None:
        add_lora(model, recipe.lora)
    return model


def build_stage(recipe, model, folder):
    """(module, dataset, collator) of the recipe's stage."""
    dataset = dataset_of(recipe, recipe.data, model.config)
    if recipe.stage == 'pixels':
        training = PixelTraining(model)
        take_heads(training, recipe, folder)
        return training, dataset, PixelCollator(model, QwenPreprocessor.from_folder(folder))
    collator = Collator.from_folder(folder, model.config, recipe.branches, recipe.max_pixels, recipe.mode)
    if recipe.stage == 'base':
        grounding = model.grounding
        scenes = mixing_list(recipe.scenes, Path())
        collator = BaseCollator(collator, scenes, grounding.image_size // grounding.patch_size)
        if recipe.prepare:
            some = [dataset[index] for index in range(min(PREPARED_WITH, len(dataset)))]
            prepare_detector(model, collator(some).pixels)
        training = BaseTraining(model, recipe.phrases_per_call, recipe.pointing, recipe.masks)
    else:
        training = InstructTraining(model, recipe.objective, recipe.phrases_per_call, recipe.layers, recipe.pointing)
    take_heads(training, recipe, folder)
    return training, dataset, collator


def take_heads(training, recipe, folder):
    """What earlier runs left of a stage's heads. Raises RecipeError."""
    load_heads(training, folder)
    if recipe.heads is not None:
        if not (Path(recipe.heads.folder) / HEADS).is_file():
            raise RecipeError(f'heads.folder: there is no {HEADS} in {recipe.heads.folder}')
        load_heads(training, recipe.heads.folder, recipe.heads.names)


def dataset_of(recipe, entries, config):
    """The samples of a mixing list, as the recipe's stage reads them."""
    sources = mixing_list(entries, Path())
    if recipe.stage == 'pixels':
        return ScenePictures(sources, recipe.seed, recipe.zoom)
    return Mix(sources, config.num_queries, recipe.seed, recipe.max_broken_share, recipe.max_phrases)


def arguments_of(recipe):
    """Transformers' TrainingArguments. Raises RecipeError: not with these settings, or not on this machine."""
    try:
        arguments = _arguments(recipe)
    except (TypeError, ValueError, ImportError) as error:
        raise RecipeError(f'trainer: {" ".join(str(error).split())}') from error
    if arguments.fsdp and arguments.parallel_mode is not ParallelMode.DISTRIBUTED:
        raise RecipeError('trainer.fsdp shards the model over processes: start them with torchrun')
    arguments._n_gpu = min(arguments.n_gpu, 1)  # a process takes one GPU; torchrun starts one for each
    return arguments


def _arguments(recipe):
    return TrainingArguments(
        output_dir=recipe.output,
        per_device_train_batch_size=recipe.batch_size,
        gradient_accumulation_steps=recipe.accumulation,
        max_steps=recipe.steps or -1,
        num_train_epochs=recipe.epochs,
        lr_scheduler_type=recipe.schedule,
        warmup_steps=recipe.warmup_ratio,  # below 1: a share of all steps
        max_grad_norm=recipe.clip_norm,
        logging_steps=recipe.log_every,
        save_steps=recipe.save_every,
        seed=recipe.seed,
        bf16=recipe.dtype == 'bfloat16',
        dataloader_num_workers=recipe.workers,
        dataloader_drop_last=True,
        remove_unused_columns=False,
        report_to='none',  # see Board
        logging_nan_inf_filter=False,
        disable_tqdm=True,
        use_cpu=not torch.cuda.is_available(),  # else several processes without a GPU would not find each other
        **{'ddp_find_unused_parameters': True, 'dataloader_pin_memory': torch.cuda.is_available(), **recipe.trainer},
    )

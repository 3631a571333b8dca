"""Runs a recipe: builds model, data and trainer, goes on from the last checkpoint where there is one."""
import os
from pathlib import Path

import torch
from transformers import TrainingArguments
from transformers.trainer_callback import PrinterCallback, ProgressCallback

from instructsam.core import builtin, checkpoint
from instructsam.core.config import ModelConfig
from instructsam.core.model import InstructSAMModel
from instructsam.core.preprocess import QwenPreprocessor
from instructsam.train.base import BaseTraining
from instructsam.train.collate import Collator
from instructsam.train.data import Mix, mixing_list
from instructsam.train.initialise import initialise
from instructsam.train.instruct import InstructTraining
from instructsam.train.pixels import PixelCollator, PixelTraining, ScenePictures
from instructsam.train.progress import Progress
from instructsam.train.trainer import StageTrainer, last_checkpoint, save_stage

FINAL = 'final'


def run(recipe):
    """Trains as `recipe` says and returns the folder of the final model."""
    torch.manual_seed(recipe.seed)
    folder = model_folder(recipe.model)
    model = start_model(recipe, folder)
    training, dataset, collator = build_stage(recipe, model, folder)
    arguments = arguments_of(recipe)
    world = int(os.environ.get('WORLD_SIZE', '1'))
    trainer = StageTrainer(
        training, recipe, source=folder, args=arguments, train_dataset=dataset, data_collator=collator,
        callbacks=[Progress(recipe.batch_size * recipe.accumulation * world)],
    )  # fmt: skip
    trainer.remove_callback(PrinterCallback)
    trainer.remove_callback(ProgressCallback)
    trainer.train(resume_from_checkpoint=last_checkpoint(recipe.output))
    final = Path(recipe.output) / FINAL
    if trainer.args.should_save:
        save_stage(trainer.accelerator.unwrap_model(trainer.model), final, folder)
    return final


def model_folder(name):
    """The folder of a built-in model, a local folder, or a hub id."""
    return builtin.MODELS[name] if name in builtin.MODELS else checkpoint.resolve(name)


def start_model(recipe, folder):
    """The model that training starts from, in float32 on the CPU, in training mode."""
    if recipe.initialise:
        model = InstructSAMModel(ModelConfig.from_folder(folder))
        initialise(model, recipe.seed)
    else:
        model = checkpoint.load(folder, torch.device('cpu'), torch.float32)
    model.grounding.to(memory_format=torch.channels_last)  # faster convolutions
    return model.requires_grad_(True).train()


def build_stage(recipe, model, folder):
    """(module, dataset, collator) of the recipe's stage."""
    sources = mixing_list(recipe.data, Path())
    if recipe.stage == 'pixels':
        preprocessor = QwenPreprocessor.from_folder(folder)
        return PixelTraining(model), ScenePictures(sources, recipe.seed), PixelCollator(model, preprocessor)
    dataset = Mix(sources, model.config.num_queries, recipe.seed, recipe.max_broken_share, recipe.max_phrases)
    collator = Collator.from_folder(folder, model.config, recipe.branches)
    if recipe.stage == 'base':
        return BaseTraining(model, recipe.phrases_per_call), dataset, collator
    return InstructTraining(model, recipe.objective, recipe.phrases_per_call, recipe.layers), dataset, collator


def arguments_of(recipe):
    """transformers' TrainingArguments."""
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
        report_to=['tensorboard'],
        logging_nan_inf_filter=False,
        disable_tqdm=True,
        use_cpu=not torch.cuda.is_available(),  # else several processes without a GPU would not find each other
        **{'ddp_find_unused_parameters': True, 'dataloader_pin_memory': torch.cuda.is_available(), **recipe.trainer},
    )

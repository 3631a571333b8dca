"""Watching a run: now and then the loss terms on held-out samples, and a strip of pictures of what the model finds.

Training goes on as if nothing had happened: modes and random states are put back.
"""

import random
import time
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from accelerate.utils import gather_object
from PIL import Image
from transformers import TrainerCallback

from instructsam.core.model.preprocess import QwenPreprocessor
from instructsam.core.model.tokenizer import load_prompter
from instructsam.train.engines.autoregressive import engine_type
from instructsam.train.engines.concept import ConceptEngine
from instructsam.train.loop.param_groups import to
from instructsam.train.loop.previews import answer_strip, category_strip
from instructsam.train.loop.run_log import append_row, drop_rows_after
from instructsam.train.losses.deep_supervision import add

VALIDATION = 'validation.csv'
PICTURES = 'pictures'
COUNT = 6  # pictures of a strip


class Watch(TrainerCallback):
    """Evaluates every `evaluate_every` steps and after the last one."""

    def __init__(self, trainer, dataset, collate, folder):
        """trainer: a StageTrainer; dataset, collate: as those of training, of held-out samples; folder: of the model
        that training started from, for the tokenizer.
        """
        self.trainer, self.recipe = trainer, trainer.recipe
        self.dataset, self.collate, self.folder = dataset, collate, folder
        self.output = Path(trainer.args.output_dir)
        self.indices = evenly(range(len(dataset)), self.recipe.validation_samples)

    def on_train_begin(self, args, state, control, **kwargs):
        if state.is_world_process_zero:
            drop_rows_after(self.output / VALIDATION, state.global_step)

    def on_step_end(self, args, state, control, **kwargs):
        step, every = state.global_step, self.recipe.evaluate_every
        if step >= state.max_steps or (every and step % every == 0):
            wanted = control.should_log
            self.evaluate(step)
            control.should_log = wanted  # the line of the evaluation is not that of the step

    def evaluate(self, step):
        """Everything, under the number `step`; called by all processes together."""
        start = time.monotonic()
        is_first = self.trainer.is_world_process_zero()
        with undisturbed(self.trainer.model):
            terms = self.losses()
            if is_first and not self.trainer.is_fsdp_enabled:  # one process has not all weights
                self.draw(step)
        terms = {'loss': sum(terms.values()), **terms}
        if is_first:
            row = {'step': step, **{f'val_{name}': f'{value:.5g}' for name, value in terms.items()}}
            append_row(self.output / VALIDATION, row)
        runtime_s = time.monotonic() - start
        self.trainer.log({**{f'eval_{name}': value for name, value in terms.items()}, 'eval_runtime': runtime_s})

    @torch.no_grad()
    def losses(self):
        """{term: mean} as a step of all samples would have it. Processes take batches in turn, all equally many: one
        that has none left repeats the last, uncounted (FSDP wants all of them in every forward pass).
        """
        size, rank, world = self.recipe.batch_size, self.trainer.args.process_index, self.trainer.args.world_size
        batches = [self.indices[i : i + size] for i in range(0, len(self.indices), size)]
        found = []  # (number of the batch, its sums, its counts)
        for first in range(0, len(batches), world):
            number = min(first + rank, len(batches) - 1)
            torch.manual_seed(number)  # of stages that draw something
            batch = self.batch(batches[number])
            sums = self.trainer.model(batch)
            if first + rank == number:
                found.append((number, {k: (float(v), count) for k, (v, count) in sums.items()}, batch.counts()))
        totals, counts = {}, {}
        for _, sums, of_batch in sorted(gather_object(found), key=lambda each: each[0]):
            add(totals, sums)
            for name, count in of_batch.items():
                counts[name] = counts.get(name, 0) + count
        return {name: value / max(counts[count], 1) for name, (value, count) in totals.items()}

    def batch(self, indices):
        return to(self.collate([self.dataset[index] for index in indices]), self.trainer.args.device)

    def draw(self, step):
        """Writes the strip of a few samples spread over the validation list."""
        training = self.trainer.accelerator.unwrap_model(self.trainer.model)
        if self.recipe.stage == 'pixels':
            chosen = evenly(self.indices, COUNT)
            strip = category_strip(training, [self.dataset[i] for i in chosen], [self.batch([i]) for i in chosen])
        else:
            samples = [self.dataset[i] for i in self.indices]
            samples = evenly([s for s in samples if any(turn.phrases for turn in s.turns)], COUNT)
            if not samples:
                return
            is_base = self.recipe.stage == 'base'
            prompter, stop_ids = load_prompter(self.folder, training.model.config)
            preprocessor = QwenPreprocessor.from_folder(self.folder)
            kind, mode = (ConceptEngine, 'consistent') if is_base else engine_type(self.recipe.mode)
            engine = kind(training.model, prompter, preprocessor, stop_ids, mode=mode)
            strip = answer_strip(engine, samples, given=is_base)
        path = self.output / PICTURES / f'step_{step:06d}.png'
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(strip).save(path)


def evenly(items, count):
    """At most `count` of `items`, spread evenly."""
    count = min(count, len(items))
    return [items[i * len(items) // count] for i in range(count)]


@contextmanager
def undisturbed(model):
    """`model` in evaluation mode; afterwards every mode and every random state is what it was."""
    modes = {module: module.training for module in model.modules()}
    states = random.getstate(), np.random.get_state()
    with torch.random.fork_rng([torch.cuda.current_device()] if torch.cuda.is_available() else []):
        try:
            model.eval()
            yield
        finally:
            random.setstate(states[0])
            np.random.set_state(states[1])
            for module, mode in modes.items():
                module.training = mode

"""Training recipes, ablation plans and changes on the command line; accepted recipes train for a step or two."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
from pathlib import Path
from typing import Any, ClassVar

import yaml
from harness import data_files
from harness.engine import CHECKPOINT
from harness.example import Example, write_files
from harness.mutations import values
from harness.target import ACCEPTED, InProcessTarget, Verdict, WrongAnswerError
from hypothesis import strategies as st

MOST_STEPS = 2
KEYS = (
    'stage', 'model', 'output', 'data', 'data.0.annotations', 'pixels', 'base', 'base.scenes', 'instruct',
    'instruct.mode', 'instruct.objective.presence_loss', 'instruct.deep_supervision', 'instruct.pointing',
    'validation', 'heads', 'seed', 'initialise', 'steps', 'epochs', 'batch_size', 'accumulation', 'learning_rates',
    'learning_rates.language', 'learning_rates.decoder', 'weight_decay', 'muon', 'betas', 'warmup_ratio',
    'schedule', 'clip_norm', 'lora', 'lora.rank', 'lora.targets', 'dtype', 'branches', 'max_phrases', 'max_pixels',
    'phrases_per_call', 'max_broken_share', 'workers', 'log_every', 'save_every', 'keep', 'evaluate_every',
    'trainer', 'trainer.fsdp', 'trainer.optim', 'trainer.lr_scheduler_kwargs', 'rates', 'x', '', '.', 'a.b.c',
    '__class__', 'steps.x',
)  # fmt: skip


class Recipes(InProcessTarget):
    """Recipes of every stage and a plan; the tiny model and data lie beside them."""

    name: ClassVar[str] = 'recipes'
    time_limit_s: ClassVar[float] = 90.0
    memory_mb: ClassVar[int] = 2500
    seeds: ClassVar[tuple[str, ...]] = ('instruct', 'instruct', 'lora', 'deep', 'base', 'pixels', 'plan')

    def options(self) -> st.SearchStrategy[dict[str, Any]]:
        """Return the strategy: changes as on the command line, and whether an accepted recipe is run."""
        change = st.tuples(st.sampled_from(KEYS), values().map(_as_argument) | st.text(max_size=8))
        changes = st.lists(change.map('='.join) | st.text(max_size=8), max_size=2)
        return st.fixed_dictionaries(
            {'changes': st.one_of(st.just([]), st.just([]), changes), 'run': st.sampled_from([True, False, False])}
        )

    def open(self, folder: Path) -> None:
        """Make the seeds and a folder with the data."""
        import logging

        import instructsam.train.loop.run  # noqa: F401  # imports torch and transformers before memory is limited

        logging.disable(logging.WARNING)
        self._data = folder / 'data'
        write_files(data_files.training_sets()['train records'], (), self._data)
        (self._data / 'scenes.jsonl').write_bytes(data_files.as_lines(data_files.scenes()))
        records = [{'annotations': str(self._data / 'records.json'), 'images': str(self._data), 'repeat': 4}]
        scenes = [{'annotations': str(self._data / 'scenes.jsonl'), 'images': str(self._data), 'repeat': 4}]
        common = {
            'model': str(CHECKPOINT),
            'output': 'out',
            'data': records,
            'seed': 0,
            'steps': 1,
            'epochs': 1.0,
            'batch_size': 1,
            'accumulation': 1,
            'weight_decay': 0.01,
            'warmup_ratio': 0.03,
            'schedule': 'cosine',
            'clip_norm': 1.0,
            'dtype': 'float32',
            'log_every': 1,
            'save_every': 1,
            'keep': 1,
            'learning_rates': {'language': 1e-3, 'decoder': 1e-3, 'heads': 1e-3},
            'trainer': {},
        }
        recipes = {
            'instruct': {'stage': 'instruct', **common, 'instruct': {'mode': 'consistent'}, 'validation': records},
            'lora': {'stage': 'instruct', **common, 'lora': {'rank': 2, 'alpha': 4, 'merge': True}},
            'deep': {'stage': 'instruct', **common, 'instruct': {'deep_supervision': True, 'pointing': 0.1}},
            'base': {'stage': 'base', **common, 'base': {'scenes': scenes, 'masks': True}},
            'pixels': {'stage': 'pixels', **common, 'data': scenes, 'pixels': {'random_crop': 0.5}},
        }
        self._seeds: dict[str, dict[str, bytes]] = {
            name: {'recipe.yaml': yaml.safe_dump(raw, sort_keys=False).encode()} for name, raw in recipes.items()
        }
        plan = {
            'output': 'out',
            'base': str(CHECKPOINT),
            'stage1': 'recipe.yaml',
            'stage2': 'recipe.yaml',
            'stage1_changes': ['steps=2'],
            'stage2_changes': ['steps=3'],
            'processes': 1,
            'seeds': [1, 2],
            'variants': ['full', 'causal', 'no_stage1'],
            'questions': {'scenes': 2, 'threshold': 0.5},
        }
        self._seeds['plan'] = {'plan.yaml': yaml.safe_dump(plan).encode(), **self._seeds['instruct']}

    def run(self, example: Example, folder: Path) -> Verdict:
        """Read the recipe or plan; run an accepted recipe."""
        write_files(self._seeds[example.seed], example.changes, folder)
        before = Path.cwd()
        os.chdir(folder)
        try:
            if example.seed == 'plan':
                return self._plan(example)
            return self._recipe(example, folder)
        finally:
            os.chdir(before)

    def _recipe(self, example: Example, folder: Path) -> Verdict:
        from instructsam.train.loop.recipe import read_recipe
        from instructsam.train.loop.run import run, training_arguments

        changes = example.options['changes']
        recipe = read_recipe('recipe.yaml', changes)
        if recipe != read_recipe('recipe.yaml', changes):
            raise WrongAnswerError('one file gives two recipes')
        harmless = self._harmless(recipe, folder)
        training_arguments(dataclasses.replace(recipe, output=harmless.output, trainer=harmless.trainer))
        if not example.options['run']:
            return ACCEPTED
        shutil.rmtree(harmless.output, ignore_errors=True)
        final = run(harmless)
        self._check_model(final)
        return ACCEPTED

    def _harmless(self, recipe: Any, folder: Path) -> Any:
        """Return the recipe with less to do, and with an output of this test."""
        trainer = {key: value for key, value in recipe.trainer.items() if not key.endswith('_dir') and 'hub' not in key}
        return dataclasses.replace(
            recipe,
            output=str(folder / 'harmless'),
            trainer=trainer,
            steps=min(recipe.steps, MOST_STEPS) if recipe.steps > 0 else recipe.steps,
            epochs=min(recipe.epochs, 0.1) if recipe.steps == 0 else recipe.epochs,
            accumulation=min(recipe.accumulation, 2),
            batch_size=min(recipe.batch_size, 4),
            workers=min(recipe.workers, 1),
            data=tuple(
                {**each, 'repeat': min(each.get('repeat', 1), 4)} if _repeats(each) else each for each in recipe.data
            ),
        )

    @staticmethod
    def _check_model(final: Path) -> None:
        """Raise WrongAnswerError if the trained model is not there or has numbers that are not finite."""
        import numpy as np
        from safetensors.numpy import load_file

        for name, tensor in load_file(final / 'model.safetensors').items():
            if not np.isfinite(tensor).all():
                raise WrongAnswerError(f'training ends well, and {name} has numbers that are not finite')

    def _plan(self, example: Example) -> Verdict:
        from instructsam.train.ablation.plan import read_plan

        plan = read_plan('plan.yaml')
        plan.check(plan.variants)
        if not example.changes and len(plan.recipes('full', 1, plan.base)) != 2:
            raise WrongAnswerError('a plan without its two stages')
        return ACCEPTED


def _repeats(entry: Any) -> bool:
    return isinstance(entry, dict) and isinstance(entry.get('repeat', 1), int)


def _as_argument(value: Any) -> str:
    return json.dumps(value)


TARGET = Recipes()

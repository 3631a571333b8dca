"""The plan of an ablation, one YAML file: recipes of the two stages, the common base model, seeds and questions."""

from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import yaml

from instructsam.core.atomic_write import write_text
from instructsam.core.model.config import ModelConfig
from instructsam.train.ablation.variants import VARIANTS, trained_variants
from instructsam.train.loop.recipe import Recipe, RecipeError, build, read_recipe, read_yaml
from instructsam.train.stages.settings import InstructSettings

STAGES = ('stage1', 'stage2')


@dataclass(frozen=True)
class Questions:
    """The scenes that the models are measured on, and how they are prompted; see `instructsam eval tabletop`."""

    split: str = 'test'
    scenes: int = 100
    seed: int = 0
    threshold: float = 0.5
    max_new_tokens: int = 256
    workers: int = 1  # processes that draw scenes
    device: str = 'auto'


@dataclass(frozen=True)
class Plan:
    """An ablation. Paths are relative to the working directory of the command."""

    output: str  # folder of all runs and results
    base: str  # model folder that every variant starts from
    stage2: str  # recipe file of stage 2
    stage1: str = ''  # recipe file of stage 1; '': the base model has been through it
    stage1_changes: tuple[str, ...] = ()  # changes to the recipe as key=value, as on the command line
    stage2_changes: tuple[str, ...] = ()  # changes to the recipe as key=value, as on the command line
    processes: int = 1  # processes per training command; a step has processes * batch_size * accumulation samples
    seeds: tuple[int, ...] = (1, 2)
    variants: tuple[str, ...] = tuple(VARIANTS)
    questions: Questions = field(default_factory=Questions)

    def __post_init__(self) -> None:
        unknown = [name for name in self.variants if name not in VARIANTS]
        if unknown:
            raise RecipeError(f'unknown variants: {", ".join(unknown)}. Known: {", ".join(VARIANTS)}')
        if not self.stage1 and (self.stage1_changes or any(not VARIANTS[name].has_stage1 for name in self.variants)):
            raise RecipeError('stage1 is empty, so there are no stage1_changes and no variant without stage 1')
        if not self.seeds or self.processes < 1:
            raise RecipeError('give one or more seeds and one or more processes')

    @property
    def stages(self) -> tuple[str, ...]:
        """The stages that are trained."""
        return STAGES if self.stage1 else STAGES[1:]

    def recipes(self, name: str, seed: int, start: str | Path) -> dict[str, Recipe]:
        """Return the recipe of each stage of a variant.

        All variants train on the same number of samples: without stage 1, stage 2 has more steps.

        Args:
            name: The variant.
            seed: Seed of its training.
            start: Model folder that its training starts from.

        Raises:
            RecipeError: A recipe cannot be read, is not for stage instruct, or gives no number of steps.
        """
        variant, runs = VARIANTS[name], self.folder(name, seed)
        recipes = {}
        for stage in self.stages:
            recipe = self.read_recipe(stage)
            recipes[stage] = replace(
                recipe,
                model=str(start),
                output=str(runs / stage),
                seed=seed,
                instruct=replace(recipe.instruct or InstructSettings(), mode=variant.mode),
                # With fewer slots, records with more instances than slots count as broken.
                max_broken_share=1.0 if variant.slots else recipe.max_broken_share,
            )
        if 'stage1' not in recipes:
            return recipes
        if variant.has_stage1:
            recipes['stage2'] = replace(recipes['stage2'], model=str(runs / 'stage1' / 'final'))
        else:
            skipped = recipes.pop('stage1')
            more = round(skipped.steps * _samples_per_step(skipped) / _samples_per_step(recipes['stage2']))
            recipes['stage2'] = replace(recipes['stage2'], steps=recipes['stage2'].steps + more)
        return recipes

    def read_recipe(self, stage: str) -> Recipe:
        """Return the recipe of a stage, before what a variant changes. Raises RecipeError if it cannot be used."""
        file, changes = getattr(self, stage), getattr(self, f'{stage}_changes')
        recipe = read_recipe(file, changes)
        if recipe.stage != 'instruct' or recipe.steps < 1:
            raise RecipeError(f'{file}: an ablation needs stage instruct and a number of steps')
        return recipe

    def folder(self, name: str, seed: int) -> Path:
        """Return the folder with the training runs and the figures of a variant."""
        return Path(self.output) / name / f'seed{seed}'

    def check(self, names: Iterable[str]) -> None:
        """Raise an InstructSAMError for any mistake that would otherwise stop the variants `names` later."""
        names = list(names)
        slots = ModelConfig.from_folder(self.base).num_queries
        if 'k10' in names and slots != 10:
            raise RecipeError(f'variant k10 is the full model, and {self.base} has K = {slots}')
        for name in trained_variants(names):
            self.recipes(name, self.seeds[0], self.base)


def read_plan(path: str | Path) -> Plan:
    """Return the plan in the YAML file `path`. Raises RecipeError."""
    return build(Plan, read_yaml(path), str(path))


def write_recipe(recipe: Recipe, path: Path) -> None:
    """Write a recipe as YAML."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, yaml.safe_dump(_plain(asdict(recipe)), sort_keys=False))


def _plain(value: Any) -> Any:
    """Return nested values with lists instead of tuples, which YAML lacks."""
    if isinstance(value, dict):
        return {key: _plain(each) for key, each in value.items()}
    return [_plain(each) for each in value] if isinstance(value, (tuple, list)) else value


def _samples_per_step(recipe: Recipe) -> int:
    """Return the number of samples per step and process."""
    return recipe.batch_size * recipe.accumulation

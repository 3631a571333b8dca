"""An ablation's plan: one YAML file. Recipes of the two stages, what all variants start from, seeds, and questions."""

from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import yaml

from instructsam.core.model.config import ModelConfig
from instructsam.train.ablation.variants import VARIANTS, trained
from instructsam.train.loop.recipe import RecipeError, build, read_recipe, read_yaml

STAGES = ('stage1', 'stage2')


@dataclass(frozen=True)
class Questions:
    """Which scenes the models are asked about, and how; see `instructsam eval tabletop`."""

    split: str = 'test'
    scenes: int = 100
    seed: int = 0
    threshold: float = 0.5
    max_new_tokens: int = 256
    workers: int = 1  # processes that draw
    device: str = 'auto'


@dataclass(frozen=True)
class Plan:
    """Paths are relative to where the command runs."""

    output: str  # folder of everything
    base: str  # model folder that every variant starts from
    stage1: str  # recipe file
    stage2: str
    stage1_changes: tuple[str, ...] = ()  # key=value, as on the command line
    stage2_changes: tuple[str, ...] = ()
    processes: int = 1  # of a training command; a step's samples are processes * batch_size * accumulation
    seeds: tuple[int, ...] = (1, 2)
    variants: tuple[str, ...] = tuple(VARIANTS)
    questions: Questions = field(default_factory=Questions)

    def __post_init__(self):
        unknown = [name for name in self.variants if name not in VARIANTS]
        if unknown:
            raise RecipeError(f'no variant {", ".join(unknown)}. There are {", ".join(VARIANTS)}')
        if not self.seeds or self.processes < 1:
            raise RecipeError('seeds are one or more, and so are processes')

    def recipes(self, name, seed, start):
        """{stage: Recipe} of the variant `name`, which starts from the folder `start`. Raises RecipeError."""
        variant, runs = VARIANTS[name], self.folder(name, seed)
        found = {}
        for stage in STAGES:
            recipe = read_recipe(getattr(self, stage), getattr(self, f'{stage}_changes'))
            if recipe.stage != 'instruct' or recipe.steps < 1:
                raise RecipeError(f'{getattr(self, stage)}: an ablation wants stage instruct and a number of steps')
            found[stage] = replace(
                recipe,
                model=str(start),
                output=str(runs / stage),
                seed=seed,
                mode=variant.mode,
                max_broken_share=1.0 if variant.slots else recipe.max_broken_share,  # records with too many instances
            )
        if variant.has_stage1:
            found['stage2'] = replace(found['stage2'], model=str(runs / 'stage1' / 'final'))
        else:
            skipped = found.pop('stage1')
            more = round(skipped.steps * _samples(skipped) / _samples(found['stage2']))
            found['stage2'] = replace(found['stage2'], steps=found['stage2'].steps + more)
        return found

    def folder(self, name, seed):
        """Where the runs of a trained variant are, and what was measured of any variant."""
        return Path(self.output) / name / f'seed{seed}'

    def check(self, names):
        """Raises an InstructSAMError for what would stop the variants `names` later on."""
        slots = ModelConfig.from_folder(self.base).num_queries
        if 'k10' in names and slots != 10:
            raise RecipeError(f'variant k10 is the full model, and {self.base} has K = {slots}')
        for name in trained(names):
            self.recipes(name, self.seeds[0], self.base)


def read_plan(path):
    """The Plan in the YAML file `path`. Raises RecipeError."""
    return build(Plan, read_yaml(path), str(path))


def write_recipe(recipe, path):
    """Writes a Recipe as YAML. Raises RecipeError where another one is there already."""
    text = yaml.safe_dump(_plain(asdict(recipe)), sort_keys=False)
    if path.is_file() and path.read_text(encoding='utf-8') != text:
        raise RecipeError(f'{path} is another recipe, by which a run was made. Give the plan another output')
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding='utf-8')


def _plain(value):
    """Tuples as lists."""
    if isinstance(value, dict):
        return {key: _plain(each) for key, each in value.items()}
    return [_plain(each) for each in value] if isinstance(value, (tuple, list)) else value


def _samples(recipe):
    """Of a step and process."""
    return recipe.batch_size * recipe.accumulation

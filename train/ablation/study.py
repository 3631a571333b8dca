"""Trains and measures whatever is not there yet: a study that was stopped goes on when it is started again."""

import json
import subprocess
import sys
from dataclasses import asdict
from functools import cache, partial

from instructsam.core.errors import InstructSAMError
from instructsam.core.model import checkpoint
from instructsam.train.ablation.plan import STAGES, write_recipe
from instructsam.train.ablation.variants import VARIANTS
from instructsam.train.engines.autoregressive import load_engine
from instructsam.train.loop.checkpoints import FINAL
from instructsam.train.modes import AUTOREGRESSIVE
from instructsam.train.weights.mask_token import initialise_mask_token
from instructsam.train.weights.resize_bank import resize_bank

FIGURES = 'figures.json'


def study(plan, names, seeds, tell=print, measured=lambda: None):
    """Trains and measures the variants `names` of a Plan with each of `seeds`.

    tell: gets a line for whatever is begun; measured: called when another one is measured.
    """
    plan.check(names)
    scenes = cache(partial(draw_scenes, plan.questions))
    if any(read_figures(plan, name, seed) is None for name in names for seed in seeds):
        check_drawing()  # now, not after hours of training
    for seed in seeds:
        for name in names:
            trained = VARIANTS[name].of or name
            if read_figures(plan, name, seed) is None:
                train_variant(plan, trained, seed, tell)
                tell(f'{name}, seed {seed}: asking about {plan.questions.scenes} scenes')
                measure_variant(plan, name, seed, scenes())
                measured()


def train_variant(plan, name, seed, tell):
    """Runs the stages of a variant that are not finished; none where its final model is there, also from elsewhere."""
    folder = plan.folder(name, seed)
    recipes = plan.recipes(name, seed, start_folder(plan, name, seed))
    for stage, recipe in recipes.items():
        write_recipe(recipe, folder / f'{stage}.yaml')
    if is_finished(folder / STAGES[-1]):
        return
    for stage, recipe in recipes.items():
        if not is_finished(folder / stage):
            tell(f'{name}, seed {seed}: training {stage}, {recipe.steps} steps')
            train(folder / f'{stage}.yaml', plan.processes)


def is_finished(run):
    return (run / FINAL / checkpoint.SINGLE).is_file()


def start_folder(plan, name, seed):
    """The model folder that training a variant starts from, made of the base model where it is another."""
    variant, out = VARIANTS[name], plan.folder(name, seed) / 'start'
    if not variant.slots and variant.mode != AUTOREGRESSIVE:
        return plan.base
    if not (out / checkpoint.SINGLE).is_file():  # written last
        if variant.slots:
            resize_bank(plan.base, out, variant.slots, seed)
        else:
            initialise_mask_token(plan.base, out)
    return out


def train(file, processes):
    """`instructsam train run FILE` in processes of its own. Raises InstructSAMError."""
    launcher = ['-m', 'torch.distributed.run', '--standalone', f'--nproc-per-node={processes}'] if processes > 1 else []
    command = [sys.executable, *launcher, '-m', 'instructsam.core.cli', 'train', 'run', str(file)]
    code = subprocess.run(command).returncode
    if code:
        raise InstructSAMError(f'training by {file} ended with exit code {code}. Started again, it goes on from there')


def measure_variant(plan, name, seed, scenes):
    """Asks a trained variant everything about `scenes` and writes the figures."""
    from instructsam.train.evaluation.figures.summary import summarise
    from instructsam.train.evaluation.running.prompting import Asking, ask_all

    settings, questions = settings_of(plan, name, seed), plan.questions
    engine = load_engine(settings['model'], settings['mode'], device=questions.device)
    asking = Asking(
        threshold=questions.threshold,
        phrase=settings['phrase'],
        own_queries=settings['own_queries'],
        max_new_tokens=questions.max_new_tokens,
    )
    found = summarise(list(ask_all(engine, scenes, asking)), questions.threshold, details=False)
    folder = plan.folder(name, seed)
    folder.mkdir(parents=True, exist_ok=True)
    write_json({'settings': settings, 'on': str(engine.device), **found}, folder / FIGURES)


def settings_of(plan, name, seed):
    """What decides the figures of a variant."""
    variant = VARIANTS[name]
    model = plan.folder(variant.of or name, seed) / 'stage2' / FINAL
    asked = {'phrase': 'generated', 'own_queries': False, **variant.asked}
    return {'model': str(model), 'mode': variant.mode, **asked, **asdict(plan.questions)}


def read_figures(plan, name, seed):
    """What measure_variant found, None where it has not yet, or not with these settings."""
    file = plan.folder(name, seed) / FIGURES
    if not file.is_file():
        return None
    document = json.loads(file.read_text(encoding='utf-8'))
    return document if document['settings'] == settings_of(plan, name, seed) else None


def check_drawing():
    from instructsam.train.tabletop.command import check_drawing

    check_drawing()


def draw_scenes(questions):
    """The scenes that every variant is asked about."""
    from instructsam.train.evaluation.tabletop import draw
    from instructsam.train.tabletop.workers import in_order

    drawing = partial(draw, split=questions.split, seed=questions.seed)
    return list(in_order(drawing, range(questions.scenes), questions.workers))


def write_json(document, path):
    """Whole or not at all."""
    part = path.with_name(path.name + '.part')
    part.write_text(json.dumps(document, indent=1) + '\n', encoding='utf-8')
    part.replace(path)

"""Table 8 of the paper in small: does filtered engine data help? With a SIMULATED annotator over the tabletop world.

    python test/bench/table8.py prepare FOLDER     draws the data and writes a plan per arm
    python test/bench/table8.py run FOLDER         trains and measures what is missing; the same command resumes
    python test/bench/table8.py table FOLDER       prints the table of what was measured so far

The base is the built-in model. Every arm trains it for the same number of samples on scenes of the split `train`, which
it knows; all arms but `none` mix them with as many scenes of the split `unseen` (pairs of colour and category,
combinations and wordings that the base never saw), annotated

- `exact`: by the generator;
- `unfiltered_R`: by the simulated annotator with noise in R percent of the questions;
- `filtered_R`: the same with the filter's rules and a round trip, by a checker that errs for 10 % of the questions.

All arms are measured on other scenes of the split `unseen`. The paper's table 8 is about photographs and noise that it
does not state: the shape can be compared, the numbers cannot.
"""

import argparse
import asyncio
import json
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import yaml

from instructsam.core.builtin import MODELS
from instructsam.core.files.json_file import write_json
from instructsam.train.ablation.plan import read_plan
from instructsam.train.ablation.study import read_figures
from instructsam.train.data_engine.export.documents import training_records
from instructsam.train.data_engine.export.samples import exported
from instructsam.train.data_engine.filtering import FilterAnswers, FilterSettings
from instructsam.train.data_engine.filters.rules import rejections_by_rule
from instructsam.train.data_engine.recipe import ExportSettings
from instructsam.train.data_engine.simulated.annotator import CheckErrors, SimulatedAnnotator
from instructsam.train.data_engine.simulated.noise import Noise
from instructsam.train.data_engine.simulated.rows import segmented_row
from instructsam.train.data_engine.simulated.server import MODEL, serving
from instructsam.train.data_engine.simulated.world import Gallery, draw_known_scene
from instructsam.train.vlm.client import VlmClient
from instructsam.train.vlm.settings import VlmSettings

NOISE = (10, 20, 40)  # percent; the main comparison is at 40, chosen before anything was trained
MAIN = 40
KINDS = ('unfiltered', 'filtered')
ARMS = ('none', 'exact', *(f'{kind}_{rate}' for rate in sorted(NOISE, reverse=True) for kind in KINDS))
ENGINE_SPLIT, ENGINE_SEED, TRAIN_SEED, QUESTION_SEED = 'unseen', 52, 51, 77
CHECKS = CheckErrors(0.1, 0.1)
ONE_OR_SEVERAL = ('1', '2+')  # groups of the figures by number of targets
FIGURES = {'cIoU': 'cIoU', 'gIoU': 'gIoU', 'no_target_accuracy': 'no target', 'answer_accuracy': 'answer'}
INSTRUCTSAM = (sys.executable, '-m', 'instructsam.core.cli')
EXPORT = ExportSettings(validation_share=0.0)
PAPER = {'none': (47.6, 17.6, 25.9), f'unfiltered_{MAIN}': (10.2, 13.1, 11.9), f'filtered_{MAIN}': (52.6, 22.2, 31.5)}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('command', choices=('prepare', 'run', 'table'))
    parser.add_argument('folder', type=Path)
    parser.add_argument('--scenes', type=int, default=300, help='scenes of the engine, and of the rest')
    parser.add_argument('--steps', type=int, default=200, help='steps of eight samples per arm')
    parser.add_argument('--questions', type=int, default=100, help='scenes to measure on')
    parser.add_argument('--seeds', type=int, nargs='+', default=[1, 2])
    parser.add_argument('--arms', nargs='+', choices=ARMS, default=ARMS)
    arguments = parser.parse_args()
    folder = arguments.folder.resolve()
    if arguments.command == 'prepare':
        prepare(folder, arguments)
    elif arguments.command == 'run':
        for arm in arguments.arms:
            print(f'arm {arm}', flush=True)
            subprocess.run([*INSTRUCTSAM, 'train', 'ablate', folder / 'plans' / f'{arm}.yaml'], check=True)
            print(*table(folder), sep='\n', flush=True)
    else:
        print(*table(folder), sep='\n')


def prepare(folder, arguments):
    """Draw and annotate the scenes, and write data, recipes and plans; what is there already is kept."""
    data = folder / 'data'
    if not (data / 'rest' / 'train_run.json').exists():
        size = ['--size', '224', '224', '--workers', '1', '--no-depth']
        command = ['tabletop', 'generate', data / 'rest', '--split', 'train', '--scenes', arguments.scenes, *size]
        subprocess.run([*INSTRUCTSAM, *map(str, command), '--seed', str(TRAIN_SEED)], check=True)
    if not (data / 'counts.json').exists():
        annotate(data, arguments.scenes)
    for arm in ARMS:
        write_plan(folder, arm, arguments)


def annotate(data, count):
    """Write the engine's scenes and their records for every arm."""
    scenes = [draw_known_scene(index, ENGINE_SPLIT, ENGINE_SEED) for index in range(count)]
    images = data / 'images'
    images.mkdir(parents=True, exist_ok=True)
    exact = rows_of(scenes, Noise(), is_filtered=False)
    for scene, row in zip(scenes, exact, strict=True):
        (images / f'{row.image.id[:32]}.jpg').write_bytes(scene.jpeg)  # the name that the export gives it
    counts = {'exact': write_records(data / 'exact.json', exact)}
    for rate in NOISE:
        noise = Noise.uniform(rate / 100)
        for kind in KINDS:
            rows = rows_of(scenes, noise, is_filtered=kind == 'filtered')
            arm = f'{kind}_{rate}'
            counts[arm] = write_records(data / f'{arm}.json', rows) | {'rejections': rejections_by_rule(rows)}
    write_json(data / 'counts.json', counts)
    print(json.dumps(counts, indent=1))


def rows_of(scenes, noise, *, is_filtered):
    """Return the rows of all scenes, annotated over HTTP."""
    annotator = SimulatedAnnotator(Gallery(scenes), noise, CHECKS)

    async def run(url):
        client = VlmClient(VlmSettings(url, MODEL, retries=0))
        try:
            return [await one(client, order, scene) for order, scene in enumerate(scenes)]
        finally:
            await client.aclose()

    async def one(client, order, scene):
        row = await segmented_row(scene, client, annotator, order)
        if is_filtered:
            settings = FilterSettings(second_opinion=False, exhaustivity=False)
            row = await FilterAnswers(settings, client, MODEL, None, lambda image: scene.image)(row)
        return row

    with serving(annotator) as url:
        return asyncio.run(run(url))


def write_records(path, rows):
    """Write the training records of rows; return their numbers."""
    path.parent.mkdir(parents=True, exist_ok=True)
    records = list(training_records(exported(rows, EXPORT), 'train', negatives=False))
    path.write_text(json.dumps(records))
    return {'images': len(records), 'questions': sum(len(each['annotation']) for each in records)}


def write_plan(folder, arm, arguments):
    """Write the recipe and the plan of an arm."""
    data = folder / 'data'
    rest = {'annotations': str(data / 'rest' / 'train_sentences.json'), 'images': str(data / 'rest')}
    engine = {'annotations': str(data / f'{arm}.json'), 'images': str(data)}
    recipe = yaml.safe_load(Path('train/configs/tabletop/05_stage2.yaml').read_text())
    rates = {name: float(rate) / 3 for name, rate in recipe['learning_rates'].items()}  # the base is trained already
    # New pointing heads would disturb a trained model for most of so few steps; short phrases are not annotated.
    recipe['instruct'] |= {'pointing': 0.0, 'short_phrases': 0.0, 'dummy_phrases': 0.0}
    recipe |= {
        'model': str(MODELS['tabletop']),
        'output': str(folder / 'runs' / arm),
        'data': [rest] if arm == 'none' else [rest, engine],
        'validation': [],
        'batch_size': 8,
        'steps': arguments.steps,
        'learning_rates': rates,
        'ema': 0.98,  # of 200 steps, that of the recipe would keep the base
        'log_every': 10,
        'save_every': 20,
    }
    plan = {
        'output': str(folder / 'runs' / arm),
        'base': str(MODELS['tabletop']),
        'stage2': str(folder / 'plans' / f'{arm}_recipe.yaml'),
        'variants': ['full'],
        'seeds': list(arguments.seeds),
        'questions': {
            'split': ENGINE_SPLIT,
            'scenes': arguments.questions,
            'seed': QUESTION_SEED,
            'threshold': 0.5,
            'max_new_tokens': 96,
        },
    }
    (folder / 'plans').mkdir(parents=True, exist_ok=True)
    (folder / 'plans' / f'{arm}_recipe.yaml').write_text(yaml.safe_dump(recipe, sort_keys=False))
    (folder / 'plans' / f'{arm}.yaml').write_text(yaml.safe_dump(plan, sort_keys=False))


def table(folder):
    """Return the lines of the table of all arms that were measured."""
    counts = json.loads((folder / 'data' / 'counts.json').read_text())
    columns = 'arm', 'questions', 'seeds', 'mAP', 'one', 'several', *FIGURES.values(), 'paper: mAP one, several, all'
    lines = [f'| {" | ".join(columns)} |', '|---' * len(columns) + '|']
    for arm in ARMS:
        plan = read_plan(folder / 'plans' / f'{arm}.yaml')
        figures = [found for seed in plan.seeds if (found := read_figures(plan, 'full', seed))]
        if figures:
            groups = [
                [each['all'] for each in figures],
                *([each['by_targets'].get(n) for each in figures] for n in ONE_OR_SEVERAL),
            ]
            maps = [mean([each and each['mAP'] for each in group]) for group in groups]
            others = [mean([each['all'][name] for each in figures]) for name in FIGURES]
            questions = counts.get(arm, {}).get('questions', 0)
            paper = ', '.join(map(str, PAPER[arm])) if arm in PAPER else '-'
            lines.append(f'| `{arm}` | {questions} | {len(figures)} | {" | ".join([*maps, *others])} | {paper} |')
    return [*lines, f'The annotator and the checker are simulated ({asdict(CHECKS)}); the base is the built-in model.']


def mean(values):
    """Return the mean of some percentages as text, and half their range if there are several."""
    known = [value for value in values if value is not None]
    if not known:
        return '-'
    spread = f' ± {(max(known) - min(known)) / 2:.1f}' if len(known) > 1 else ''
    return f'{sum(known) / len(known):.1f}{spread}'


if __name__ == '__main__':
    main()

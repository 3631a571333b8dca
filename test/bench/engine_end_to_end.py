"""The data engine from rendered scenes to a training run, with a SIMULATED annotator behind HTTP and real masks.

    python test/bench/engine_end_to_end.py FOLDER [--scenes 300] [--noise 0.2] [--steps 3]

Draws scenes of the split `train` into FOLDER/images, serves the simulated annotator on the loopback, runs `instructsam
engine run` with the backend `concept` and every check of the filter, and trains the built-in model on the export with
`instructsam train run`. The same command resumes. At the end it compares the masks of the export with the truth, which
the engine does not know: it tells the quality of the built-in model's masks, not of an annotator.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import yaml

from instructsam.core.builtin import MODELS
from instructsam.train.data_engine.runners.store import StageFile
from instructsam.train.data_engine.simulated.annotator import CheckErrors, SimulatedAnnotator
from instructsam.train.data_engine.simulated.noise import Noise
from instructsam.train.data_engine.simulated.rows import is_good
from instructsam.train.data_engine.simulated.server import MODEL, serving
from instructsam.train.data_engine.simulated.world import Gallery, draw_known_scene

SPLIT, SEED = 'train', 61
INSTRUCTSAM = (sys.executable, '-m', 'instructsam.core.cli')


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('folder', type=Path)
    parser.add_argument('--scenes', type=int, default=300)
    parser.add_argument('--noise', type=float, default=0.2, help='share of the questions with a fault')
    parser.add_argument('--steps', type=int, default=3, help='steps of training')
    arguments = parser.parse_args()
    folder = arguments.folder.resolve()
    (folder / 'images').mkdir(parents=True, exist_ok=True)
    scenes = [draw_known_scene(index, SPLIT, SEED) for index in range(arguments.scenes)]
    for scene in scenes:
        (folder / 'images' / f'{scene.name}.jpg').write_bytes(scene.jpeg)
    annotator = SimulatedAnnotator(Gallery(scenes), Noise.uniform(arguments.noise), CheckErrors())
    with serving(annotator) as url:
        recipe = {
            'output': str(folder / 'run'),
            'sources': [{'name': 'simulated', 'images': str(folder / 'images'), 'licence': 'simulated'}],
            'vlm': {'url': url, 'model': MODEL},
            'questions': {'per_image': 8, 'negatives': 1},
            'objects': {'convention': annotator.convention},
            'masks': {'backend': 'concept', 'device': 'cpu'},
            'verify': {'opinion_model': 'tabletop', 'opinion_device': 'cpu', 'round_trip': True, 'exhaustive': True},
        }
        (folder / 'recipe.yaml').write_text(yaml.safe_dump(recipe, sort_keys=False))
        subprocess.run([*INSTRUCTSAM, 'engine', 'run', folder / 'recipe.yaml'], check=True)
    print(json.dumps(json.loads((folder / 'run/export/summary.json').read_text()), indent=1))
    print(compared(folder / 'run', scenes))
    train(folder, arguments.steps)


def compared(run, scenes):
    """Return a line about the questions that are left, and about all of them, against the truth."""
    by_name = {scene.name: scene for scene in scenes}
    left, everything = [], []
    with StageFile(run / 'filter.jsonl') as rows:
        for row in rows:
            kept = {each.id for each in row.kept_questions()}
            for question in row.questions:
                good = is_good(by_name[Path(row.image.path).stem], row, question)
                everything.append(good)
                if question.id in kept:
                    left.append(good)
    return f'good: {share(left)} of the {len(left)} questions left, {share(everything)} of {len(everything)}'


def share(values):
    """Return the share of true values as text; there may be none in a small run."""
    return f'{np.mean(values):.0%}' if values else 'none'


def train(folder, steps):
    """Train the built-in model on the exported records for some steps."""
    recipe = yaml.safe_load(Path('train/configs/tabletop/05_stage2.yaml').read_text())
    export = folder / 'run/export'
    recipe |= {
        'model': str(MODELS['tabletop']),
        'output': str(folder / 'training'),
        'data': [{'annotations': str(export / 'train.json'), 'images': str(export)}],
        'validation': [],
        'steps': steps,
        'log_every': 1,
    }
    (folder / 'training.yaml').write_text(yaml.safe_dump(recipe, sort_keys=False))
    subprocess.run([*INSTRUCTSAM, 'train', 'run', folder / 'training.yaml'], check=True)


if __name__ == '__main__':
    main()

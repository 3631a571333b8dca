"""Measure the training stages of a small model, part by part, on records of the tabletop world.

    instructsam tabletop generate --size 384 384 --scenes 16 --no-depth DATA
    python test/bench/bench_stages.py MODEL DATA [--stages instruct] [--steps 3]

Each step loads a batch, and makes a forward pass, a backward pass and an optimizer step, as a training run does. Times
are processor times of one thread, because other programs may use the cores. The times of a backward pass are those
between marks in the graph where a part begins and ends.
"""

import argparse
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from rich.console import Console
from rich.table import Table

from instructsam.core.model.grounding import ImageFeatures, PreparedFeatures
from instructsam.train.loop.param_groups import parameter_groups
from instructsam.train.loop.recipe import LearningRates, Recipe
from instructsam.train.loop.run import start_model
from instructsam.train.optimizers.muon import Muon
from instructsam.train.stages import detector, instruct
from instructsam.train.stages.settings import BaseSettings, InstructSettings
from instructsam.train.stages.stage import STAGES

REST = 'everything else'


class Stopwatch:
    """Adds up the processor time of parts, separately for forward and backward passes."""

    def __init__(self) -> None:
        self.times_s: Counter[tuple[str, str]] = Counter()
        self._last, self._part = 0.0, REST

    def start(self) -> None:
        """Begin to measure."""
        self._last, self._part = time.thread_time(), REST

    def switch(self, direction: str, part: str) -> None:
        """Count the time since the last call for the part that has run, and begin `part`."""
        now = time.thread_time()
        self.times_s[self._part, direction] += now - self._last
        self._last, self._part = now, part

    def timed(self, part: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """Return `function`, measured as `part`."""

        def call(*args: Any, **options: Any) -> Any:
            args, options = self._marked(args, REST), self._marked(options, REST)
            self.switch('forward', part)
            result = function(*args, **options)
            self.switch('forward', REST)
            return self._marked(result, part)

        return call

    def _marked(self, value: Any, part: str) -> Any:
        """Return `value`, with `part` beginning where a backward pass reaches one of its tensors."""
        if isinstance(value, torch.Tensor):
            return _Mark.apply(value, self, part) if value.requires_grad and torch.is_grad_enabled() else value
        if isinstance(value, dict):
            return {name: self._marked(each, part) for name, each in value.items()}
        if isinstance(value, tuple) and hasattr(value, '_fields'):
            return type(value)(*(self._marked(each, part) for each in value))
        if isinstance(value, (list, tuple)):
            return type(value)(self._marked(each, part) for each in value)
        if isinstance(value, (ImageFeatures, PreparedFeatures)) or (
            is_dataclass(value) and type(value).__name__ in ('LayerOutputs', 'VisualFeatures', 'EncoderInputs')
        ):
            return replace(
                value, **{each.name: self._marked(getattr(value, each.name), part) for each in fields(value)}
            )
        return value


class _Mark(torch.autograd.Function):
    """The identity, which tells a stopwatch when the backward pass gets there."""

    @staticmethod
    def forward(ctx: Any, value: torch.Tensor, watch: Stopwatch, part: str) -> torch.Tensor:
        ctx.watch, ctx.part = watch, part
        return value.view_as(value)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> Any:
        ctx.watch.switch('backward', ctx.part)
        return gradient, None, None


@contextmanager
def measured(watch: Stopwatch, model: Any, training: Any) -> Iterator[None]:
    """Measure the parts of a model."""
    sam = model.grounding
    parts = [
        ('trunk', model.model.trunk, 'forward'),
        ("SAM3's encoder", sam, 'encode'),
        ("Qwen's vision tower", model, 'encode_image'),
        ('language model', model, 'decode'),
        ('features of an image', sam, 'prepare'),
        ('fusion encoder', sam, 'fuse'),
        ('pixel decoder', sam, 'pixel_maps'),
        ('detector', sam.detr_decoder, 'forward'),
        ('losses of the layers', instruct, 'layer_losses'),
        ('losses of the layers', detector, 'layer_losses'),
        ('pointing', getattr(training, 'pointing', None), 'forward'),
    ]
    with ExitStack() as stack:
        for part, owner, name in parts:
            if owner is not None:
                stack.enter_context(patch.object(owner, name, watch.timed(part, getattr(owner, name))))
        yield


def recipe_of(stage: str, args: argparse.Namespace) -> Recipe:
    """Return a recipe like those of the small model."""
    kind = {'pixels': 'scenes.jsonl', 'base': 'phrases.json', 'instruct': 'sentences.json'}[stage]
    entries = ({'annotations': str(args.data / f'train_{kind}'), 'images': str(args.data)},)
    scenes = ({'annotations': str(args.data / 'train_scenes.jsonl'), 'images': str(args.data)},)
    return Recipe(
        stage=stage,
        model=str(args.model),
        output='',
        data=entries,
        base=BaseSettings(scenes=scenes, pointing=1.0) if stage == 'base' else None,
        instruct=InstructSettings(deep_supervision=True, pointing=1.0) if stage == 'instruct' else None,
        branches=True,
        max_phrases=args.phrases,
        phrases_per_call=args.batch_size * args.phrases,
        muon=4.0,
        learning_rates=LearningRates(5e-4, 1e-4, 2e-4, 5e-4, 1e-4, heads=5e-4),
    )


def measure(stage: str, args: argparse.Namespace) -> tuple[Stopwatch, int]:
    """Return the times, and the number of phrases that reached the detector in all steps."""
    recipe = recipe_of(stage, args)
    model = start_model(recipe, args.model)
    bound = STAGES[stage](recipe, model, args.model)
    dataset, collate, training = bound.dataset(recipe.data), bound.collator(), bound.module()
    optimizer = Muon(parameter_groups(training, recipe.learning_rates, 0.0, recipe.muon))
    watch, phrases = Stopwatch(), 0
    for step in range(-1, args.steps):  # the first is slow: memory is allocated, and convolutions are prepared
        if step == 0:
            phrases = 0
            watch.times_s.clear()
        indices = [(step * args.batch_size + index) % len(dataset) for index in range(args.batch_size)]
        watch.start()
        watch.switch('forward', 'data')
        batch = collate([dataset[index] for index in indices])
        watch.switch('forward', REST)
        with measured(watch, model, training):
            terms = training(batch)
            counts = {unit: max(count, 1) for unit, count in batch.counts().items()}
            loss = sum(term.value / counts[term.unit] for term in terms.values())
            watch.switch('forward', REST)
            loss.backward()
            watch.switch('backward', 'optimizer')
        optimizer.step()
        watch.switch('backward', REST)
        optimizer.zero_grad(set_to_none=True)
        phrases += 0 if stage == 'pixels' else len(batch.detected_phrases)
    return watch, phrases


def print_table(stage: str, watch: Stopwatch, phrases: int, images: int) -> None:
    """Print the milliseconds per image of each part and the images per processor second."""
    table = Table(
        title=f'Stage {stage}: {images} images, {phrases / images:.1f} phrases each in the detector; ms per image',
        title_justify='left',
        box=None,
    )
    table.add_column('part')
    for direction in ('forward', 'backward'):
        table.add_column(direction, justify='right')
    optimizer_s = watch.times_s.pop(('optimizer', 'backward'), 0.0)
    for part in (*dict.fromkeys(part for part, _ in watch.times_s if part != REST), REST):
        times = (watch.times_s[part, direction] for direction in ('forward', 'backward'))
        table.add_row(part, *(f'{1e3 * time_s / images:.0f}' for time_s in times))
    console = Console(width=160)
    console.print(table)
    total_s = watch.times_s.total() + optimizer_s
    console.print(
        f'{images / total_s:.2f} images per processor second, {1e3 * total_s / images:.0f} ms per image, '
        f'{1e3 * optimizer_s / images:.0f} of it for the optimizer'
    )


def main() -> None:
    """Measure the stages and print a table for each."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('model', type=Path, help='model folder')
    parser.add_argument('data', type=Path, help='folder of `instructsam tabletop generate`')
    parser.add_argument('--stages', nargs='+', choices=STAGES, default=list(STAGES), help='default: all')
    parser.add_argument(
        '--steps', type=int, default=3, help='steps after one that is not counted (default: %(default)s)'
    )
    parser.add_argument('--batch-size', type=int, default=4, help='images per step (default: %(default)s)')
    parser.add_argument('--phrases', type=int, default=6, help='phrases of an image (default: %(default)s)')
    args = parser.parse_args()
    torch.set_num_threads(1)
    for stage in args.stages:
        print_table(stage, *measure(stage, args), args.steps * args.batch_size)


if __name__ == '__main__':
    main()

"""Measure the training stages of a small model, part by part, on records of the tabletop world.

    instructsam tabletop generate --size 384 384 --scenes 16 --no-depth DATA
    python test/bench/bench_stages.py MODEL DATA [--stages instruct] [--steps 3]

Each step loads a batch, and makes a forward pass, a backward pass and an optimizer step, as a training run does. Times
are processor times of one thread, because other programs may use the cores. Stages `base` and `instruct` are measured
in two forms that take turns: as they are, and with SAM3's own pixel decoder for every phrase instead of the maps that
the phrases of an image share; the losses are the same. The times of a backward pass are those between marks in the
graph where a part begins and ends.
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

from instructsam.core.model.grounding import Grounding, ImageFeatures
from instructsam.train.loop.param_groups import parameter_groups
from instructsam.train.loop.recipe import LearningRates, Recipe
from instructsam.train.loop.run import start_model
from instructsam.train.optimizers.muon import Muon
from instructsam.train.stages import detector, forward, instruct
from instructsam.train.stages.settings import BaseSettings, InstructSettings
from instructsam.train.stages.shared_maps import PhraseFeatures, SharedFeatures
from instructsam.train.stages.stage import STAGES

REST = 'everything else'
PLAIN, SHARED = 'maps of each phrase', 'as it is'


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
        if isinstance(value, (ImageFeatures, PhraseFeatures, SharedFeatures)) or (
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


def plain_features(sam: Grounding, features: ImageFeatures) -> SharedFeatures:
    """Stand in for SharedFeatures.of; the finer levels stay as they are."""
    return SharedFeatures(features.pyramid[-1], features.position[:1], features.pyramid[-2::-1])


def plain_maps(
    sam: Grounding, features: PhraseFeatures, encoded: torch.Tensor, text: torch.Tensor, text_mask: torch.Tensor
) -> torch.Tensor:
    """Stand in for pixel_maps."""
    finer = [level.index_select(0, features.samples) for level in reversed(features.convolved)]
    return sam.pixel_embeddings((*finer, *features.image.pyramid), encoded, text, text_mask)


@contextmanager
def measured(watch: Stopwatch, model: Any, training: Any, form: str) -> Iterator[None]:
    """Measure the parts of a model in one of the two forms."""
    sam = model.grounding
    of, maps = (SharedFeatures.of, forward.pixel_maps) if form == SHARED else (plain_features, plain_maps)
    parts = [
        ('trunk', model.model.trunk, 'forward'),
        ("SAM3's encoder", sam, 'encode'),
        ("Qwen's vision tower", model, 'encode_image'),
        ('language model', model, 'decode'),
        ('fusion encoder', sam, 'fuse'),
        ('detector', sam.detr_decoder, 'forward'),
        ('losses of the layers', instruct, 'layer_losses'),
        ('losses of the layers', detector, 'layer_losses'),
        ('pointing', getattr(training, 'pointing', None), 'forward'),
    ]
    with ExitStack() as stack:
        for part, owner, name in parts:
            if owner is not None:
                stack.enter_context(patch.object(owner, name, watch.timed(part, getattr(owner, name))))
        timed = staticmethod(watch.timed('pixel decoder', of))
        stack.enter_context(patch.object(SharedFeatures, 'of', timed))
        stack.enter_context(patch.object(forward, 'pixel_maps', watch.timed('pixel decoder', maps)))
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


def measure(stage: str, args: argparse.Namespace) -> tuple[dict[str, Stopwatch], int]:
    """Return a stopwatch per form, and the number of phrases that reached the detector in all steps of a form."""
    recipe = recipe_of(stage, args)
    model = start_model(recipe, args.model)
    bound = STAGES[stage](recipe, model, args.model)
    dataset, collate, training = bound.dataset(recipe.data), bound.collator(), bound.module()
    optimizer = Muon(parameter_groups(training, recipe.learning_rates, 0.0, recipe.muon))
    watches = {form: Stopwatch() for form in ((SHARED,) if stage == 'pixels' else (SHARED, PLAIN))}
    phrases = 0
    for step in range(-1, args.steps):  # the first is slow: memory is allocated, and convolutions are prepared
        if step == 0:
            phrases = 0
            for watch in watches.values():
                watch.times_s.clear()
        indices = [(step * args.batch_size + index) % len(dataset) for index in range(args.batch_size)]
        losses = {}
        for form, watch in watches.items():
            watch.start()
            watch.switch('forward', 'data')
            batch = collate([dataset[index] for index in indices])
            watch.switch('forward', REST)
            torch.manual_seed(step)  # noisy boxes of stage base
            with measured(watch, model, training, form):
                terms = training(batch)
                counts = {unit: max(count, 1) for unit, count in batch.counts().items()}
                loss = sum(term.value / counts[term.unit] for term in terms.values())
                watch.switch('forward', REST)
                loss.backward()
                watch.switch('backward', REST)
            losses[form] = float(loss.detach())
            if form == list(watches)[-1]:
                watch.switch('backward', 'optimizer')
                optimizer.step()
                watch.switch('backward', REST)
            optimizer.zero_grad(set_to_none=True)
        expected = losses[SHARED]
        assert all(abs(loss - expected) < 1e-3 * abs(expected) for loss in losses.values()), (
            f'the losses differ: {losses}'
        )
        phrases += 0 if stage == 'pixels' else len(batch.detected_phrases)
    return watches, phrases


def print_table(stage: str, watches: dict[str, Stopwatch], phrases: int, images: int) -> None:
    """Print the milliseconds per image of each part and the images per processor second."""
    table = Table(
        title=f'Stage {stage}: {images} images, {phrases / images:.1f} phrases each in the detector; ms per image',
        title_justify='left',
        box=None,
    )
    table.add_column('part')
    for form in watches:
        for direction in ('forward', 'backward'):
            table.add_column(f'{form}, {direction}', justify='right')
    columns = [(watch, direction) for watch in watches.values() for direction in ('forward', 'backward')]
    optimizer_s = max(watch.times_s.pop(('optimizer', 'backward'), 0.0) for watch in watches.values())
    parts = dict.fromkeys(part for watch in watches.values() for part, _ in watch.times_s if part != REST)
    for part in (*parts, REST):
        table.add_row(part, *(f'{1e3 * watch.times_s[part, direction] / images:.0f}' for watch, direction in columns))
    console = Console(width=160)
    console.print(table)
    for form, watch in watches.items():
        total_s = watch.times_s.total() + optimizer_s
        console.print(
            f'{form}: {images / total_s:.2f} images per processor second, {1e3 * total_s / images:.0f} ms per image, '
            f'{1e3 * optimizer_s / images:.0f} of it for the optimizer'
        )


def main() -> None:
    """Measure the stages and print a table for each."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('model', type=Path, help='model folder')
    parser.add_argument('data', type=Path, help='folder of `instructsam tabletop generate`')
    parser.add_argument('--stages', nargs='+', choices=STAGES, default=list(STAGES), help='default: all')
    parser.add_argument(
        '--steps', type=int, default=3, help='steps of each form after one that is not counted (default: %(default)s)'
    )
    parser.add_argument('--batch-size', type=int, default=4, help='images per step (default: %(default)s)')
    parser.add_argument('--phrases', type=int, default=6, help='phrases of an image (default: %(default)s)')
    args = parser.parse_args()
    torch.set_num_threads(1)
    for stage in args.stages:
        print_table(stage, *measure(stage, args), args.steps * args.batch_size)


if __name__ == '__main__':
    main()

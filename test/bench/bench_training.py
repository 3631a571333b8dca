"""One training step of stage 1, and the same step without what makes it cheap, in turn on this machine.

    python test/bench/bench_training.py [--seconds 60] [--vocabulary 151936]

Beside the step as it is: token logits of every row in the place of the supervised rows alone, one detector call for
every phrase in the place of a few for all, and both. Forward and backward pass, random weights, made-up samples; the
losses of all four are compared first. The variants take turns, the median of each counts. Where other programs want
the cores, believe the ratio of processor times rather than that of durations.
"""

import argparse
import statistics
import sys
import time
from contextlib import nullcontext
from pathlib import Path
from unittest.mock import patch

import numpy as np
import torch
import torch.nn.functional as F
from rich.console import Console
from rich.table import Table

from instructsam.core import builtin
from instructsam.core.model.config import ModelConfig
from instructsam.core.rle import Rle
from instructsam.train.data.collate import Collator
from instructsam.train.data.dialogue import IGNORED
from instructsam.train.data.record_fields import Target
from instructsam.train.data.records import Sample, Turn
from instructsam.train.losses.mask_losses import Objective
from instructsam.train.stages import forward
from instructsam.train.stages.instruct import InstructTraining

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / 'support'))

from sample_models import random_model  # noqa: E402

SIDE_PX = 224
THINGS = ('red mug', 'spoon', 'blue bowl', 'book', 'green bottle', 'plate', 'scissors', 'banana')


def all_rows(model, batch, hidden):
    """The answer's loss from token logits of every row: forward.answer_terms without its choice of rows."""
    labels = batch.text.labels[:, 1:].flatten().to(hidden.device)
    logits = model.token_logits(hidden[:, :-1]).flatten(0, 1).float()
    return {'answer': (F.cross_entropy(logits, labels, ignore_index=IGNORED, reduction='sum'), 'tokens')}


def made_up(count, phrases, rng):
    """Samples with a question of its own for every phrase, and one or two ellipses for each."""
    y, x = np.mgrid[:SIDE_PX, :SIDE_PX]
    samples = []
    for _ in range(count):
        turns = []
        for name in rng.permutation(THINGS)[np.arange(phrases) % len(THINGS)]:
            masks = []
            for cx, cy, rx, ry in rng.uniform((30, 30, 10, 10), (194, 194, 30, 30), (rng.integers(1, 3), 4)):
                masks.append(Rle.encode(((x - cx) / rx) ** 2 + ((y - cy) / ry) ** 2 < 1))
            turns.append(Turn(f'where is the {name}?', (str(name),), (Target(masks=tuple(masks)),)))
        pixels = torch.from_numpy(rng.integers(0, 256, (3, SIDE_PX, SIDE_PX), dtype=np.uint8))
        samples.append(Sample(Path('none'), SIDE_PX, SIDE_PX, tuple(turns), pixels))
    return samples


def build(args):
    """(model with random weights, batch)."""
    folder = builtin.folder(args.model)
    config = ModelConfig.from_folder(folder)
    if args.vocabulary:
        config.qwen.text_config.vocab_size = args.vocabulary
    model = random_model(config).requires_grad_(True).train()
    model.grounding.to(memory_format=torch.channels_last)
    samples = made_up(args.batch_size, args.phrases, np.random.default_rng(0))
    return model, Collator.from_folder(folder, config)(samples)


def step(training, batch, answer_terms):
    """(loss, (seconds, seconds of processor time)) of a forward and a backward pass."""
    training.zero_grad(set_to_none=True)
    with patch.object(forward, 'answer_terms', answer_terms) if answer_terms else nullcontext():
        start, cpu_start = time.perf_counter(), time.process_time()
        loss = sum(value for value, _ in training(batch).values())
        loss.backward()
        return float(loss.detach()), (time.perf_counter() - start, time.process_time() - cpu_start)


def measure(args):
    """{variant: times of each step}, and the batch's rows and supervised tokens."""
    model, batch = build(args)
    together = InstructTraining(model, Objective(), args.phrases_per_call)
    apart = InstructTraining(model, Objective(), 1)
    variants = {
        'as it is': (together, None),
        'all logits': (together, all_rows),
        'phrase by phrase': (apart, None),
        'both': (apart, all_rows),
    }
    losses = [step(training, batch, terms)[0] for training, terms in variants.values()]  # warm-up
    assert np.allclose(losses, losses[0], rtol=1e-3), f'the variants do not agree: {losses}'
    times_s = {name: [] for name in variants}
    until = time.monotonic() + args.seconds
    while time.monotonic() < until or len(times_s['both']) < 3:
        for name, (training, terms) in variants.items():
            times_s[name].append(step(training, batch, terms)[1])
    return times_s, batch.text.ids.numel(), batch.counts()['tokens']


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--model', default='core/pretrained/tabletop', help='folder or built-in (default: %(default)s)')
    parser.add_argument('--vocabulary', type=int, help="size of the vocabulary, e.g. 151936, Qwen3-VL's")
    parser.add_argument('--batch-size', type=int, default=2, help='samples of a step (default: %(default)s)')
    parser.add_argument('--phrases', type=int, default=6, help='of a sample (default: %(default)s)')
    parser.add_argument('--phrases-per-call', type=int, default=12, help='(default: %(default)s)')
    parser.add_argument('--seconds', type=float, default=60.0, help='at least three steps of each are taken')
    args = parser.parse_args()

    times_s, rows, tokens = measure(args)
    medians = {name: [statistics.median(part) for part in zip(*each)] for name, each in times_s.items()}
    table = Table(
        title=f'{args.batch_size} samples of {args.phrases} phrases, {rows} rows, {tokens} supervised tokens, '
        f'{len(times_s["both"])} steps each',
        title_justify='left',
        box=None,
    )
    for header in ('step', 'median ms', 'samples/s', 'times as long', 'of processor time'):
        table.add_column(header, justify='left' if header == 'step' else 'right')
    for name, (median_s, cpu_s) in medians.items():
        ratios = [f'{own / plain:.2f}' for own, plain in zip((median_s, cpu_s), medians['as it is'], strict=True)]
        table.add_row(name, f'{1e3 * median_s:.0f}', f'{args.batch_size / median_s:.2f}', *ratios)
    Console().print(table)


if __name__ == '__main__':
    main()

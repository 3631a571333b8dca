"""Measure a training step of stage 1, and the same step without the measures that make it fast.

    python test/bench/bench_training.py [--seconds 60] [--vocabulary 151936]

The variants compute token logits of every row instead of the supervised rows only, make one detector call per phrase
instead of a few for all phrases, or both. Each step is a forward and backward pass with random weights on random
samples; the losses of all variants are compared first. The variants take turns, and the median of each is reported. If
other programs use the cores, the ratio of processor times is more reliable than that of durations.
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
from instructsam.train.data.sample import Sample, Turn
from instructsam.train.losses.loss_sum import LossSum
from instructsam.train.losses.objective import Objective
from instructsam.train.stages import forward
from instructsam.train.stages.instruct import InstructTraining

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / 'support'))

from sample_models import random_model

SIDE_PX = 224
NAMES = ('red mug', 'spoon', 'blue bowl', 'book', 'green bottle', 'plate', 'scissors', 'banana')


def all_rows(model, batch, hidden):
    """Return the answer's loss from the token logits of every row, unlike forward.answer_losses."""
    labels = batch.text.labels[:, 1:].flatten().to(hidden.device)
    logits = model.token_logits(hidden[:, :-1]).flatten(0, 1).float()
    loss = F.cross_entropy(logits, labels, ignore_index=IGNORED, reduction='sum')
    return {'answer': LossSum(loss, 'tokens')}


def random_samples(count, phrases, rng):
    """Return samples with one question per phrase, and one or two ellipses as its masks."""
    y, x = np.mgrid[:SIDE_PX, :SIDE_PX]
    samples = []
    for _ in range(count):
        turns = []
        for name in rng.permutation(NAMES)[np.arange(phrases) % len(NAMES)]:
            masks = []
            for cx, cy, rx, ry in rng.uniform((30, 30, 10, 10), (194, 194, 30, 30), (rng.integers(1, 3), 4)):
                masks.append(Rle.encode(((x - cx) / rx) ** 2 + ((y - cy) / ry) ** 2 < 1))
            turns.append(Turn(f'where is the {name}?', (str(name),), (Target(masks=tuple(masks)),)))
        pixels = torch.from_numpy(rng.integers(0, 256, (3, SIDE_PX, SIDE_PX), dtype=np.uint8))
        samples.append(Sample(Path('none'), SIDE_PX, SIDE_PX, tuple(turns), pixels))
    return samples


def build(args):
    """Return a model with random weights and a batch."""
    folder = builtin.folder(args.model)
    config = ModelConfig.from_folder(folder)
    if args.vocabulary:
        config.qwen.text_config.vocab_size = args.vocabulary
    model = random_model(config).requires_grad_(True).train()
    model.grounding.to(memory_format=torch.channels_last)
    samples = random_samples(args.batch_size, args.phrases, np.random.default_rng(0))
    return model, Collator.from_folder(folder, config)(samples)


def step(training, batch, answer_losses):
    """Return the loss of a forward and backward pass, and its (duration, processor time) in seconds."""
    training.zero_grad(set_to_none=True)
    with patch.object(forward, 'answer_losses', answer_losses) if answer_losses else nullcontext():
        start, cpu_start = time.perf_counter(), time.process_time()
        loss = sum(value for value, _ in training(batch).values())
        loss.backward()
        return float(loss.detach()), (time.perf_counter() - start, time.process_time() - cpu_start)


def measure(args):
    """Return the times of every step by variant, and the numbers of rows and supervised tokens of the batch."""
    model, batch = build(args)
    together = InstructTraining(model, Objective(), args.phrases_per_call)
    apart = InstructTraining(model, Objective(), 1)
    variants = {
        'as it is': (together, None),
        'all logits': (together, all_rows),
        'phrase by phrase': (apart, None),
        'both': (apart, all_rows),
    }
    losses = [step(training, batch, terms)[0] for training, terms in variants.values()]  # warm-up steps
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
    parser.add_argument('--batch-size', type=int, default=2, help='samples per step (default: %(default)s)')
    parser.add_argument('--phrases', type=int, default=6, help='phrases per sample (default: %(default)s)')
    parser.add_argument(
        '--phrases-per-call', type=int, default=12, help='phrases that share a detector call (default: %(default)s)'
    )
    parser.add_argument(
        '--seconds',
        type=float,
        default=60.0,
        help='duration of the measurement; at least three steps per variant are measured',
    )
    args = parser.parse_args()

    times_s, rows, tokens = measure(args)
    medians = {name: [statistics.median(part) for part in zip(*each, strict=True)] for name, each in times_s.items()}
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

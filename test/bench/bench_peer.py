"""Compare the processor time with that of the authors' implementation, or of one with the same interface.

    git clone https://github.com/DCDmllm/InstructSAM /tmp/peer
    pip install --target /tmp/peer_libraries transformers==5.0.0rc1
    python test/bench/bench_peer.py /tmp/peer --peer-path /tmp/peer_libraries [--divisor 4] [--rounds 3]

Both packages are called `instructsam`, and they need different releases of transformers: each runs in a process of its
own (peer_own.py, peer_adapter.py), on one thread of the CPU. They load the same model folder and take turns.

Answers: random weights with 1 / --divisor of the published layers, at the published widths and vocabulary, on an image
of 640x480. The answer has nine tokens that name one phrase; each token is forced after its logits are computed. Here, a
new frame is `encode` and `segment`, and another instruction is `segment` alone, which decodes nine tokens or is given
the phrase. The peer has one call, which always computes everything. It is measured as it is and with an `lm_head` that
does not copy its weights, which the adapter gives it. The engine is in mode reference, which computes what the peer
does: scores and masks are compared first. Both end with scores and mask logits at the network's resolution; the
preprocessing of the image counts here, and not for the peer, which is given tensors.

Training: a step of stage instruct from the weights of assets/tabletop_base (6.6 M parameters, 1,839 tokens; without a
trunk, which the peer lacks) on two images with six phrases each: forward and backward pass, clipping, and AdamW as
either's trainer makes it. Both train everything except SAM3's image encoder, in float32, with the weights of the loss
in the peer's code; neither uses its trainer, gradient checkpointing or LoRA. The losses of every step are compared.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from full_size import run_phase
from rich.console import Console
from rich.table import Table
from workers import Worker, in_turn, package_of

OWN = Path(__file__).parents[2]
PARTS = 'answers', 'training'
LIMITS = {'float32': (1e-4, 0.999), 'bfloat16': (0.02, 0.5)}  # largest difference of scores, least IoU of masks
LOSS_LIMIT = 1e-3  # largest relative difference


class Pair:
    """The two processes of a part."""

    def __init__(self, part: str, model: Path, folder: Path, args: argparse.Namespace):
        """Start them; `folder` is an empty one."""
        folder.mkdir()
        here, options = Path(__file__).parent, [part, str(folder), str(model), args.dtype]
        own = [package_of(OWN, folder / 'path')]
        self.own = Worker('this checkout', here / 'peer_own.py', options, own)
        paths = [args.checkout, *args.peer_path]
        self.peer = Worker(f'the peer in {args.checkout}', here / 'peer_adapter.py', options, paths)

    def ask(self, request: str) -> tuple[Any, Any]:
        """Return the reply of each, own first, which writes the inputs."""
        own = self.own.ask(request)
        return own, self.peer.ask(request)

    def in_turn(self, request: str, rounds: int) -> tuple[list[Any], list[Any]]:
        """Return the replies of each; who begins alternates."""
        own, peer = zip(*in_turn(self.own, self.peer, [request] * rounds), strict=True)
        return list(own), list(peer)

    def close(self) -> None:
        """End them."""
        self.own.close()
        self.peer.close()


def check_answers(folder: Path, dtype: str) -> dict[str, float]:
    """Return how far scores and masks differ; end the program if that is too far."""
    own, peer = (np.load(folder / f'{name}.npz') for name in ('own', 'peer'))
    difference = float(np.abs(own['scores'] - peer['scores']).max())
    both, any_ = (join(own['masks'], peer['masks']).sum((1, 2)) for join in (np.logical_and, np.logical_or))
    iou = float(np.where(any_, both / np.maximum(any_, 1), 1.0).min())
    limit, least = LIMITS[dtype]
    if not (difference <= limit and iou >= least):
        raise SystemExit(
            f'the answers differ: scores by up to {difference:.2g} (limit {limit:g}), and the least IoU of masks is '
            f'{iou:.3f} (limit {least:g})'
        )
    return {'score_difference': difference, 'least_iou': iou}


def check_losses(own: list[dict[str, float]], peer: list[dict[str, float]]) -> float:
    """Return by how much the losses of the steps differ, relative; end the program if that is too much."""
    pairs = [(name, mine[name], theirs[name]) for mine, theirs in zip(own, peer, strict=True) for name in mine]
    for name, mine, theirs in pairs:
        if not abs(mine - theirs) <= LOSS_LIMIT * abs(theirs):
            raise SystemExit(f'the losses differ: {name} is {mine:g} here, and {theirs:g} in the peer')
    return max(abs(mine - theirs) / abs(theirs) for _, mine, theirs in pairs)


def columns(rounds: list[list[Any]]) -> list[list[Any]]:
    """Return the replies of all rounds figure by figure."""
    return [list(figures) for figures in zip(*rounds, strict=True)]


def row(name: str, own: list[float], peer: list[float]) -> dict[str, Any]:
    """Return the seconds of both, and the median of their ratios, round by round."""
    ratios = [theirs / mine for mine, theirs in zip(own, peer, strict=True)]
    return {'name': name, 'own_s': own, 'peer_s': peer, 'ratio': statistics.median(ratios), 'ratios': ratios}


def measure_answers(folder: Path, args: argparse.Namespace) -> dict[str, Any]:
    """Return the rows of inference, and what else was found."""
    model = args.model
    if model is None:
        model = folder / 'model'
        run_phase('save', model, SimpleNamespace(device='cpu', dtype=args.dtype, divisor=args.divisor))
    pair = Pair('answers', model, folder / 'answers', args)
    facts, _ = pair.ask('check')
    agreement = check_answers(folder / 'answers', args.dtype)
    own, peer = pair.in_turn('run', args.rounds)
    pair.close()
    frame, decoded, given, rates = columns(own)
    plain, patched = columns(peer)
    rate = statistics.median(rates)
    products_s = facts['operations'] / rate
    return {
        **facts,
        **agreement,
        'rows': [
            row('new frame and instruction, nine tokens', frame, patched),
            row("same, the peer's lm_head as it is", frame, plain),
            row('another instruction, nine tokens', decoded, patched),
            row('another instruction, phrase given', given, patched),
        ],
        'product_gflop_per_s': rate / 1e9,
        'products_s': products_s,
        'own_share': products_s / statistics.median(frame),
        'peer_share': products_s / statistics.median(patched),
    }


def measure_training(folder: Path, args: argparse.Namespace) -> dict[str, Any]:
    """Return the row of training, and the difference of the losses."""
    pair = Pair('training', OWN / 'assets' / 'tabletop_base', folder / 'training', args)
    pair.ask('run')
    own, peer = pair.in_turn('run', args.steps)
    pair.close()
    (own_s, own_losses), (peer_s, peer_losses) = columns(own), columns(peer)
    difference = check_losses(own_losses, peer_losses)
    return {'rows': [row('training step', own_s, peer_s)], 'loss_difference': difference}


def span(seconds: list[float]) -> str:
    """Return the median and the range of times."""
    return f'{statistics.median(seconds):.3g} ({min(seconds):.3g} to {max(seconds):.3g})'


def print_figures(document: dict[str, Any], args: argparse.Namespace) -> None:
    """Print a table of all rows, and what was compared."""
    table = Table(title='Processor time of one thread, s', title_justify='left', box=None)
    for header in ('', 'here', 'peer', 'peer / here'):
        table.add_column(header, justify='right' if header else 'left')
    for part in document.values():
        for each in part['rows']:
            table.add_row(each['name'], span(each['own_s']), span(each['peer_s']), span(each['ratios']))
    Console(width=120).print(table)
    if answers := document.get('answers'):
        print(
            f'{answers["parameters"] / 1e9:.2f} B parameters, {args.dtype}, {len(answers["rows"][0]["own_s"])} rounds, '
            f'{answers["cpu"]}, torch {answers["torch"]}. Scores differ by up to {answers["score_difference"]:.1e}, '
            f'the least IoU of masks is {answers["least_iou"]:.4f}.\n'
            f'A new frame has {answers["operations"] / 1e9:,.0f} GFLOP of products, convolutions and attention, which '
            f'both compute: at the rate of the fastest product in the same run, {answers["product_gflop_per_s"]:,.0f} '
            f'GFLOP/s, they take {answers["products_s"]:.3g} s, {answers["own_share"]:.0%} of the time here and '
            f'{answers["peer_share"]:.0%} of that of the peer (patched). No ratio above '
            f'{1 / answers["peer_share"]:.2f} is possible.'
        )
    if training := document.get('training'):
        print(f'Training: the losses differ by up to {training["loss_difference"]:.1e} of their size.')


def main() -> None:
    """Measure both and print the ratios."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('checkout', type=Path, help="checkout of the authors' repository")
    parser.add_argument(
        '--peer-path', type=Path, nargs='+', default=[], metavar='DIR', help='libraries that only the peer uses'
    )
    parser.add_argument('--divisor', type=int, default=4, help='of the published layers (default: %(default)s)')
    parser.add_argument('--model', type=Path, help='model folder for answers, instead of random weights')
    parser.add_argument('--dtype', choices=tuple(LIMITS), default='float32', help='of answers (default: %(default)s)')
    parser.add_argument('--rounds', type=int, default=3, help='of answers (default: %(default)s)')
    parser.add_argument('--steps', type=int, default=10, help='of training (default: %(default)s)')
    parser.add_argument('--parts', nargs='+', choices=PARTS, default=PARTS, help='(default: both)')
    parser.add_argument('--json', type=Path, metavar='FILE', help='write the figures as JSON')
    args = parser.parse_args()
    if not (args.checkout / 'instructsam' / 'models' / 'instructsam.py').is_file():
        raise SystemExit(
            f"{args.checkout} is no checkout of the authors' repository: it has no instructsam/models/instructsam.py"
        )
    with tempfile.TemporaryDirectory() as folder:
        measures = {'answers': measure_answers, 'training': measure_training}
        document = {part: measures[part](Path(folder), args) for part in args.parts}
    if args.json:
        args.json.write_text(json.dumps(document, indent=1))
    print_figures(document, args)


if __name__ == '__main__':
    main()

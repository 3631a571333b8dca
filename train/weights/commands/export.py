"""`instructsam train export MODEL OUT`: write a model, or the average of several, in a smaller type, to ship."""

import argparse

from instructsam.core.modes import DTYPES


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the folders and the type."""
    parser.add_argument('model', metavar='MODEL', help='a final folder or checkpoint, without unmerged LoRA matrices')
    parser.add_argument('out', metavar='OUT', help='the folder to write')
    parser.add_argument(
        '--average',
        nargs='+',
        default=[],
        metavar='OTHER',
        help='average the weights with those of other runs that started from the same model (a model soup)',
    )
    parser.add_argument(
        '--dtype', choices=DTYPES[1:], default='float16', help='precision of the weights (default: %(default)s)'
    )


def run(args: argparse.Namespace) -> int:
    """Export and return exit code 0."""
    from instructsam.core.device import TORCH_DTYPES
    from instructsam.train.weights.export import export

    export([args.model, *args.average], args.out, TORCH_DTYPES[args.dtype])
    print(f'the model is in {args.out}')
    return 0

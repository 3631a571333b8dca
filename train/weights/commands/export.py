"""`instructsam train export MODEL OUT`: write a model folder in a smaller type, without auxiliary heads, to ship."""

import argparse

from instructsam.core.modes import DTYPES


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the two folders and the type."""
    parser.add_argument('model', metavar='MODEL', help='a final folder or checkpoint, without unmerged LoRA matrices')
    parser.add_argument('out', metavar='OUT', help='the folder to write')
    parser.add_argument(
        '--dtype', choices=DTYPES[1:], default='float16', help='precision of the weights (default: %(default)s)'
    )


def run(args: argparse.Namespace) -> int:
    """Export and return exit code 0."""
    from instructsam.core.device import TORCH_DTYPES
    from instructsam.train.weights.export import export

    export(args.model, args.out, TORCH_DTYPES[args.dtype])
    print(f'the model is in {args.out}')
    return 0

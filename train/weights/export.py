"""`instructsam train export MODEL OUT`: write a model folder in a smaller type, to ship or to start from."""

import argparse
from pathlib import Path

import torch

from instructsam.core.model import checkpoint
from instructsam.core.model.device import TORCH_DTYPES
from instructsam.train.weights import new_folder


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the two folders and the type."""
    parser.add_argument('model', metavar='MODEL', help='a final folder or checkpoint, without unmerged LoRA matrices')
    parser.add_argument('out', metavar='OUT', help='the folder to write')
    parser.add_argument(
        '--dtype', choices=TORCH_DTYPES, default='float16', help='precision of the weights (default: %(default)s)'
    )


def run(args: argparse.Namespace) -> int:
    """Export and return exit code 0."""
    export(args.model, args.out, TORCH_DTYPES[args.dtype])
    print(f'the model is in {args.out}')
    return 0


def export(source: str | Path, out: str | Path, dtype: torch.dtype) -> None:
    """Write the model in the folder `source` to a new folder `out` with weights in `dtype`. Raises ModelError."""
    out = new_folder(out)
    checkpoint.save(checkpoint.load(source, torch.device('cpu'), dtype), out, source)

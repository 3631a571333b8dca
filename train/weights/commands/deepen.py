"""`instructsam train deepen MODEL OUT`: double the blocks of Qwen's vision tower, without changing its output."""

import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the two folders."""
    parser.add_argument('model', metavar='MODEL', help='a model folder')
    parser.add_argument('out', metavar='OUT', help='the folder to write')


def run(args: argparse.Namespace) -> int:
    """Deepen the model and return exit code 0."""
    from instructsam.train.weights.deepen import deepen

    deepen(args.model, args.out)
    print(f'the deeper model is in {args.out}')
    return 0

"""`instructsam train merge CHECKPOINT OUT`: add LoRA matrices to the weights that they belong to."""

import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the two folders."""
    parser.add_argument('checkpoint', metavar='CHECKPOINT', help='a checkpoint or final folder of a LoRA stage')
    parser.add_argument('out', metavar='OUT', help='the folder to write, from which the next stage can start')


def run(args: argparse.Namespace) -> int:
    """Merge and return exit code 0."""
    from instructsam.train.weights.merge import merge

    merge(args.checkpoint, args.out)
    print(f'the merged model is in {args.out}')
    return 0

"""`instructsam bench`: times of every stage of a model on this machine, as a table and optionally as JSON."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from instructsam.core import exit_codes
from instructsam.core.commands.arguments import count, seconds
from instructsam.core.commands.options import add_model_options, load_model, option

if TYPE_CHECKING:
    from instructsam.core.engine import InstructSAM


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `instructsam bench`."""
    parser.epilog = (
        "Each stage is run in turn with matrix products and reads that show the machine's limits, and its operations "
        'are counted. Nothing else should run at the same time. Please report the JSON of machines that the '
        'documents do not have, such as a Jetson.'
    )
    add_model_options(parser)
    parser.add_argument(
        '--random',
        action='store_true',
        help='instead of --model, random weights of the published size (2.62 B parameters): 11 GB in float32, 5.3 GB '
        'in bfloat16',
    )
    option(
        parser,
        '--size',
        'size of the image, px',
        (640, 480),
        type=count,
        nargs=2,
        metavar=('WIDTH', 'HEIGHT'),
    )
    option(
        parser, '--seconds', 'time of the measurement; it has at least three rounds', 30.0, type=seconds, metavar='S'
    )
    option(parser, '--threads', "threads of the CPU (default: torch's choice)", type=count, metavar='N')
    option(parser, '--json', 'write the figures as JSON; - is stdout, instead of the table', metavar='FILE')


def run(args: argparse.Namespace) -> int:
    """Print and write the figures."""
    from instructsam.core.files.json_file import check_json_path, write_json

    check_json_path(args.json)

    import torch

    from instructsam.core.benchmark.run import run_benchmark
    from instructsam.core.device import resolve_compile

    if args.threads:
        torch.set_num_threads(args.threads)
    engine = _load(args)
    width, height = args.size
    document = run_benchmark(
        engine,
        size=(width, height),
        seconds=args.seconds,
        compiled=resolve_compile(args.compile, engine.device),
    )
    if args.json is not None:
        write_json(args.json, document)
    if args.json != '-':
        from instructsam.core.benchmark.report import notes, table
        from instructsam.core.display.table import print_table

        print_table(table(document), notes(document))
    return exit_codes.DONE


def _load(args: argparse.Namespace) -> InstructSAM:
    if not args.random:
        return load_model(args)
    from instructsam.core.benchmark.random_weights import builtin_tokens, published_config, random_engine
    from instructsam.core.device import resolve_device

    return random_engine(
        published_config(builtin_tokens()), resolve_device(args.device), args.dtype, args.mode, args.compile
    )

"""Options that several commands share, so that they read and behave alike."""

import argparse
from collections.abc import Mapping
from typing import Any

from instructsam.core import DEFAULT_MODEL
from instructsam.core.modes import DTYPES, INFERENCE_MODES


def option(parser: argparse._ActionsContainer, name: str, description: str, default: Any = None, **kwargs: Any) -> None:
    """Add an option whose help text ends with its default, if it has one."""
    shown = '' if default is None else ' (default: %(default)s)'
    parser.add_argument(name, default=default, help=description + shown, **kwargs)


def add_model_options(parser: argparse._ActionsContainer) -> None:
    """Add --model, --mode, --device and --dtype."""
    option(parser, '--model', 'built-in model, folder or hub id', DEFAULT_MODEL)
    option(
        parser,
        '--mode',
        "consistent: as trained; reference: bit-faithful to the authors' inference",
        'consistent',
        choices=INFERENCE_MODES,
    )
    option(parser, '--device', 'auto, cpu, cuda, cuda:1, ...', 'auto')
    option(parser, '--dtype', 'precision of the weights', 'auto', choices=DTYPES)


def sentence(summary: str) -> str:
    """Return a one-line help text as a sentence, for the description at the top of --help."""
    return summary[0].upper() + summary[1:] + '.'


def add_commands(parser: argparse.ArgumentParser, commands: Mapping[str, tuple[Any, str]], dest: str) -> None:
    """Add one subparser per command: name -> (module with add_arguments(parser) and run(args), one-line summary).

    The chosen module's `run` is left in `args.run_command`, so that a command with subcommands is
    `def run(args): return args.run_command(args)`.
    """
    subparsers = parser.add_subparsers(dest=dest, metavar='COMMAND', required=True)
    for name, (module, summary) in commands.items():
        subparser = subparsers.add_parser(name, help=summary, description=sentence(summary))
        module.add_arguments(subparser)
        subparser.set_defaults(run_command=module.run)

"""Options that several commands share, so that they read and behave alike."""

import argparse
import importlib
from collections.abc import Mapping
from typing import Any, NoReturn

from instructsam.core import DEFAULT_MODEL
from instructsam.core.modes import DTYPES, DUPLICATE_IOU, INFERENCE_MODES

USAGE_ERROR = 2  # exit code of argparse, and of every InstructSAMError


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


def add_keep_duplicates(parser: argparse._ActionsContainer) -> None:
    """Add --keep-duplicates."""
    parser.add_argument(
        '--keep-duplicates',
        action='store_true',
        help=f'keep masks that overlap a better one by more than {DUPLICATE_IOU} IoU',
    )


def sentence(summary: str) -> str:
    """Return a one-line help text as a sentence, for the description at the top of --help."""
    return summary[0].upper() + summary[1:] + '.'


class CommandParser(argparse.ArgumentParser):
    """A parser whose errors are one line, and whose module is imported only when its command is called.

    Args:
        module: Name of a module with `add_arguments(parser)` and, unless it has subcommands itself, `run(args)`.
            `--help` of the parser above does not import it. The called module's `run` is left in `args.run_command`.
        kwargs: Those of argparse.ArgumentParser.
    """

    def __init__(self, *args: Any, module: str = '', **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._module = module
        self.hint = ''  # advice that is printed with this parser's own errors

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Import the module, let it add its arguments and parse."""
        if self._module:
            module = importlib.import_module(self._module)
            self._module = ''
            module.add_arguments(self)
            if hasattr(module, 'run'):
                self.set_defaults(run_command=module.run)
        return super().parse_known_args(args, namespace)

    def error(self, message: str) -> NoReturn:
        """Print the message in one line and exit."""
        hint = f'{self.hint}; ' if self.hint else ''
        self.exit(USAGE_ERROR, f'instructsam: error: {message} ({hint}see {self.prog} --help)\n')


def add_commands(parser: argparse.ArgumentParser, commands: Mapping[str, tuple[str, str]], dest: str) -> None:
    """Add one subparser per command: name -> (module for CommandParser, one-line summary).

    `args.run_command(args)` runs the innermost command that was called.
    """
    subparsers = parser.add_subparsers(dest=dest, metavar='COMMAND', required=True, parser_class=CommandParser)
    for name, (module, summary) in commands.items():
        subparsers.add_parser(name, help=summary, description=sentence(summary), module=module)

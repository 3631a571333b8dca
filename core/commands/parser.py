"""Argument parser of `instructsam`: subcommands that are imported only when called, and errors in one line."""

import argparse
import importlib
import shutil
import textwrap
from collections.abc import Mapping
from typing import Any, NoReturn

from instructsam.core import exit_codes


def sentence(summary: str) -> str:
    """Return a one-line help text as a sentence, for the description at the top of --help."""
    return summary[0].upper() + summary[1:] + '.'


class CommandParser(argparse.ArgumentParser):
    """A parser whose errors are one line, and whose module is imported only when its command is called.

    Args:
        module: Name of a module with `add_arguments(parser)` and, unless it has subcommands itself, `run(args)`.
            `--help` of the parent parser does not import it. The called module's `run` is left in `args.run_command`.
        kwargs: Those of argparse.ArgumentParser.
    """

    def __init__(self, *args: Any, module: str = '', **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._module = module
        self.hint = ''  # advice that is printed with this parser's own errors

    def load(self) -> None:
        """Import the module and let it add its arguments, unless that is done."""
        if self._module:
            module = importlib.import_module(self._module)
            self._module = ''
            module.add_arguments(self)
            if hasattr(module, 'run'):
                self.set_defaults(run_command=module.run)

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Load the module and parse."""
        self.load()
        return super().parse_known_args(args, namespace)

    def format_help(self) -> str:
        """Return the help with the exit codes at its end."""
        width = shutil.get_terminal_size().columns - 2  # as argparse has it
        return f'{super().format_help()}\n{textwrap.fill(exit_codes.describe(), width)}\n'

    def error(self, message: str) -> NoReturn:
        """Print the message in one line and exit."""
        hint = f'{self.hint}; ' if self.hint else ''
        self.exit(exit_codes.USAGE, f'instructsam: error: {message} ({hint}see {self.prog} --help)\n')


def add_commands(parser: argparse.ArgumentParser, commands: Mapping[str, tuple[str, str]], dest: str) -> None:
    """Add one subparser per command: name -> (module for CommandParser, one-line summary).

    `args.run_command(args)` runs the innermost command that was called.
    """
    subparsers = parser.add_subparsers(dest=dest, metavar='COMMAND', required=True, parser_class=CommandParser)
    for name, (module, summary) in commands.items():
        subparsers.add_parser(name, help=summary, description=sentence(summary), module=module)

"""`instructsam completion`: print the completion of the command line for a shell, and complete it for that shell."""

from __future__ import annotations

import argparse
import os
import sys
from typing import Any

from instructsam.core.commands.parser import CommandParser

ASKED = '_ARGCOMPLETE'
"""The environment variable by which the shell asks for completions."""

EXAMPLES = """to complete in this shell, and in all others by a line in its start-up file:
  bash (~/.bashrc):                    eval "$(instructsam completion bash)"
  zsh  (~/.zshrc):                     eval "$(instructsam completion zsh)"
  fish (~/.config/fish/config.fish):   instructsam completion fish | source"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `instructsam completion`."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = EXAMPLES
    parser.add_argument('shell', metavar='SHELL', choices=('bash', 'zsh', 'fish'), help='bash, zsh or fish')


def run(args: argparse.Namespace) -> int:
    """Print the script."""
    import argcomplete

    script = argcomplete.shellcode(['instructsam'], shell=args.shell)  # pyright: ignore[reportPrivateImportUsage]
    sys.stdout.write(script)
    return 0


def complete(parser: CommandParser) -> None:
    """Write the completions of the line that the shell has sent, and end the process.

    Only the commands that the line names are imported, as when they are called, so that it takes a moment.
    """
    import argcomplete

    line = os.environ.get('COMP_LINE', '')[: int(os.environ.get('COMP_POINT', 0) or 0) or None]
    names = [word for word in line.split()[1:] if not word.startswith('-')]
    within: Any = parser
    while isinstance(within, CommandParser):
        within.load()
        choices = next((a.choices for a in within._actions if isinstance(a, argparse._SubParsersAction)), {})
        within = choices.get(names.pop(0)) if names else None
    argcomplete.autocomplete(parser)

"""The `instructsam` command in a process of its own, and the form of its errors."""

import subprocess
import sys

COMMAND = [sys.executable, '-m', 'instructsam.core.cli']


def run(*arguments, **kwargs):
    """Run the command and return the completed process, with its output as text."""
    return subprocess.run([*COMMAND, *arguments], capture_output=True, text=True, timeout=120, **kwargs)


def is_one_error_line(stderr):
    return stderr.startswith('instructsam: error: ') and stderr.count('\n') == 1

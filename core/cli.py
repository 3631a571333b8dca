"""The `instructsam` command line: imports only the called subcommand; every error is one line and an exit code."""

from __future__ import annotations

import errno
import io
import os
import sys
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress

from instructsam.core import exit_codes
from instructsam.core.commands.completion import ASKED, complete
from instructsam.core.commands.parser import CommandParser, add_commands
from instructsam.core.errors import InstructSAMError
from instructsam.core.standard_streams import finish, open_missing
from instructsam.core.stop_signals import describe, raise_stopped
from instructsam.core.storage import storage_fault, thread_faults_raised
from instructsam.core.text import one_line, shorten
from instructsam.core.version import version

COMMANDS = {  # name -> (module with add_arguments(parser) and run(args), one-line summary for --help)
    'segment': ('instructsam.core.commands.segment', 'find what an instruction names in an image file'),
    'web': ('instructsam.core.commands.web', 'a page in the browser to try a model or a running node on your images'),
    'models': ('instructsam.core.commands.models', 'list, download and describe models'),
    'doctor': ('instructsam.core.commands.doctor', 'check the installation, and say what to do about each fault'),
    'completion': ('instructsam.core.commands.completion', 'print the completion of this command line for a shell'),
    'bench': ('instructsam.core.commands.bench', 'measure every stage of a model on this machine'),
    'demo': (
        'instructsam_ros.demo.command',
        'run the ROS 2 node on a recording or a simulated camera, from topic to masks',
    ),
    'watch': ('instructsam_ros.viewer.command', 'show the answers of a running node, as lines and in the viewer Rerun'),
    'bag': (
        'instructsam_ros.bag.command',
        'answer instructions on every image of a ROS 2 bag and write a bag with the results',
    ),
    'tabletop': (
        'instructsam.train.tabletop.command',
        'render scenes of household objects on a table, with instructions about them',
    ),
    'train': ('instructsam.train.command', 'train a model; merge, export or change its weights'),
    'engine': ('instructsam.train.data_engine.command', 'make instructions with masks from your own images'),
    'eval': ('instructsam.train.evaluation.command', 'measure a model on a benchmark'),
}
EXTRAS = {  # module that may be missing -> extra that installs it
    **dict.fromkeys(('httpx2', 'openai', 'pydantic'), 'agent'),
    'argcomplete': 'completion',
    'ray': 'engine-ray',
    'rerun': 'rerun',
    'gradio': 'web',
    **dict.fromkeys(('manifold3d', 'mujoco', 'rosbags'), 'tabletop'),
    **dict.fromkeys(('peft', 'tensorboard', 'yaml'), 'train'),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line `argv` (default: that of the process) and return the exit code."""
    open_missing()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # A phrase or path that the terminal cannot display must not end the program.
            stream.reconfigure(errors='backslashreplace')
    try:
        with raise_stopped():
            return _run_or_explain(sys.argv[1:] if argv is None else argv)
    except KeyboardInterrupt as stopped:
        line, code = describe(stopped)
        _say(one_line(line))
        return code
    finally:
        finish(sys.stderr)


def _run_or_explain(argv: Sequence[str]) -> int:
    """Run the command line and return the exit code; print errors."""
    try:
        with thread_faults_raised():
            code = _run(argv)
        sys.stdout.flush()
        return code
    except BrokenPipeError:  # the reader has closed the pipe, as in `| head`, which is not an error
        finish(sys.stdout)
        return exit_codes.BROKEN_PIPE
    except Exception as error:
        known = error if isinstance(error, InstructSAMError) else storage_fault(error) or _name_fault(error)
        if known is not None:
            _show_traceback()
            _say(f'error: {one_line(known)}')
        elif not _show_traceback():
            reason = one_line(f'{type(error).__name__}: {error}')
            _say(f'unexpected {reason} (INSTRUCTSAM_DEBUG=1 shows where)')
        finish(sys.stdout)
        return exit_codes.FAILED if known is None else known.exit_code


def _say(line: str) -> None:
    """Print a line to stderr; the exit code has to tell all if it cannot be written."""
    with suppress(OSError):
        print(f'instructsam: {line}', file=sys.stderr)


def _name_fault(error: Exception) -> InstructSAMError | None:
    """Return an error of the arguments for a name that the file system cannot have, else None."""
    if isinstance(error, OSError) and error.errno in (errno.ENAMETOOLONG, errno.ELOOP):
        return InstructSAMError(f'{shorten(error.filename or "")}: {error.strerror}; give another name')
    return None


def _run(argv: Sequence[str]) -> int:
    parser = CommandParser(prog='instructsam', description='Find the objects that an instruction names.')
    parser.add_argument('--version', action='version', version=f'instructsam {version()}')
    add_commands(parser, COMMANDS, dest='command')
    if ASKED in os.environ:
        complete(parser)
    called = next((argument for argument in argv if not argument.startswith('-')), '')
    module, _ = COMMANDS.get(called, ('', ''))
    with _explain_missing_module(called, needs_ros=module.startswith('instructsam_ros')):
        args = parser.parse_args(argv)
        return args.run_command(args)


@contextmanager
def _explain_missing_module(command: str, *, needs_ros: bool = False) -> Iterator[None]:
    """Turn ModuleNotFoundError into an InstructSAMError that says what to install.

    Args:
        command: Name of the subcommand.
        needs_ros: Attribute any missing module to a missing ROS 2, unless one of EXTRAS installs it.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        if error.name in EXTRAS:
            raise InstructSAMError(
                f'{command!r} needs {error.name}, which is not installed: '
                f'pip install "instructsam-ros[{EXTRAS[error.name]}]"'
            ) from error
        if needs_ros:
            raise InstructSAMError(
                f'{command!r} needs ROS 2, and this installation has no ROS side (no module {error.name!r}). Source a '
                'ROS 2 workspace that contains instructsam_ros, or install instructsam-ros with pip on x86-64 Linux, '
                'which installs ROS as well'
            ) from error
        raise


def _show_traceback() -> bool:
    """Print the traceback of the current error if INSTRUCTSAM_DEBUG is set; return whether it is."""
    is_wanted = bool(os.environ.get('INSTRUCTSAM_DEBUG'))
    if is_wanted:
        with suppress(OSError):
            traceback.print_exc()
    return is_wanted


if __name__ == '__main__':
    sys.exit(main())

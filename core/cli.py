"""The `instructsam` command: imports only the subcommand that is called, and ends every error in one line."""

import os
import sys
import traceback
from contextlib import contextmanager

from instructsam.core.commands.options import USAGE_ERROR, CommandParser, add_commands
from instructsam.core.errors import InstructSAMError
from instructsam.core.version import version

COMMANDS = {  # name -> module with add_arguments(parser) and run(args), and its line in --help
    'segment': ('instructsam.core.commands.segment', 'find what an instruction names in an image file'),
    'demo': (
        'instructsam_ros.demo.command',
        'run the ROS 2 node on a recording or a simulated camera, from topic to masks',
    ),
    'bag': (
        'instructsam_ros.bag.command',
        'answer instructions on every image of a ROS 2 bag, into a bag with the results',
    ),
    'tabletop': ('instructsam.train.tabletop.command', 'draw tables of household objects and instructions about them'),
    'train': ('instructsam.train.command', 'train a model; merge, export or change its weights'),
    'eval': ('instructsam.train.evaluation.command', 'measure a model on a benchmark'),
}
EXTRAS = {  # module that may be missing -> the extra that brings it
    **dict.fromkeys(('manifold3d', 'mujoco', 'rosbags'), 'tabletop'),
    **dict.fromkeys(('peft', 'tensorboard', 'yaml'), 'train'),
}
INTERRUPTED, BROKEN_PIPE = 130, 141  # as a shell reports SIGINT and SIGPIPE


def main(argv=None):
    """Runs the command line `argv` (default: the process's) and returns the exit code."""
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors='backslashreplace')  # a phrase or path the terminal cannot show must not stop us
    try:
        code = _run(sys.argv[1:] if argv is None else argv)
        sys.stdout.flush()
        return code
    except InstructSAMError as error:
        _show_traceback()
        print(f'instructsam: error: {error}', file=sys.stderr)
        return USAGE_ERROR
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:  # `| head`: nobody reads on, which is no failure of ours
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return BROKEN_PIPE
    except Exception as error:
        if not _show_traceback():
            reason = ' '.join(f'{type(error).__name__}: {error}'.split())
            print(f'instructsam: unexpected {reason} (INSTRUCTSAM_DEBUG=1 shows where)', file=sys.stderr)
        return 1


def _run(argv):
    parser = CommandParser(prog='instructsam', description='Finds the objects that an instruction names.')
    parser.add_argument('--version', action='version', version=f'instructsam {version()}')
    add_commands(parser, COMMANDS, dest='command')
    called = next((argument for argument in argv if not argument.startswith('-')), '')
    module, _ = COMMANDS.get(called, ('', ''))
    with _telling_what_is_missing(called, ros=module.startswith('instructsam_ros')):
        args = parser.parse_args(argv)
    with _telling_what_is_missing(called):
        return args.run_command(args)


@contextmanager
def _telling_what_is_missing(name, ros=False):
    """Turns a missing module into what to do about it. ros: whatever is missing, ROS brings it."""
    try:
        yield
    except ModuleNotFoundError as error:
        if error.name in EXTRAS:
            raise InstructSAMError(
                f'{name!r} needs {error.name}, which is not installed: '
                f'pip install "instructsam-ros[{EXTRAS[error.name]}]"'
            ) from error
        if ros:
            raise InstructSAMError(
                f'{name!r} needs ROS 2, and this installation has no ROS side (no module {error.name!r}). Source a '
                'ROS 2 workspace with instructsam_ros in it, or install it with pip on x86-64 Linux, which brings ROS '
                'along'
            ) from error
        raise


def _show_traceback():
    """Prints the traceback of the error being handled if that was asked for; returns whether it was."""
    wanted = bool(os.environ.get('INSTRUCTSAM_DEBUG'))
    if wanted:
        traceback.print_exc()
    return wanted


if __name__ == '__main__':
    sys.exit(main())

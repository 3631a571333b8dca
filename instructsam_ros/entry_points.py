"""Entry points of the nodes' commands.

Importing a node takes seconds. Python would end an import that Ctrl-C interrupts with a traceback, so until the node
handles signals itself, the process just ends.
"""

import importlib
import os
import signal
import sys

from instructsam.core import exit_codes
from instructsam.core.standard_streams import open_missing
from instructsam.core.text import one_line


def perception_node() -> None:
    """Run `instructsam-perception`."""
    _run('instructsam_ros.node.perception_node')


def replay() -> None:
    """Run `instructsam-replay`."""
    _run('instructsam_ros.simulation.replay_node')


def simulated_camera() -> None:
    """Run `instructsam-simulated-camera`."""
    _run('instructsam_ros.simulation.simulated_camera')


def _run(module: str) -> None:
    signal.signal(signal.SIGINT, _exit_at_once)
    open_missing()
    try:
        code = importlib.import_module(module).main()
    except (ImportError, OSError) as error:  # something is not installed, or a limit of the system is reached
        if os.environ.get('INSTRUCTSAM_DEBUG'):
            raise
        print(f'{os.path.basename(sys.argv[0])}: {one_line(error)} (INSTRUCTSAM_DEBUG=1 shows where)', file=sys.stderr)
        code = exit_codes.FAILED
    sys.exit(code)


def _exit_at_once(number: int, frame: object) -> None:
    os._exit(128 + number)  # sys.exit() would raise an exception in the import, where it could be caught

"""Entry points of the nodes' commands.

Importing a node takes seconds. Python would end an import that Ctrl-C interrupts with a traceback, so until the node
handles signals itself, the process just ends.
"""

import importlib
import os
import signal
import sys


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
    sys.exit(importlib.import_module(module).main())


def _exit_at_once(number: int, frame: object) -> None:
    os._exit(128 + number)  # sys.exit() would raise an exception in the import, where it could be caught

"""The child processes of `instructsam demo`: their own domain, an orderly end, what they printed where one fails."""

import json
import os
import random
import signal
import subprocess
import sys
import tempfile
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

STOP_S = 10  # for a process to end by itself


class NoResultError(Exception):
    """The message says why no result came."""


def isolation():
    """Environment for this process and its children: nobody else's topics, and nothing leaves this machine."""
    localhost = {'ROS_AUTOMATIC_DISCOVERY_RANGE': 'LOCALHOST'}
    if os.environ.get('ROS_DISTRO') == 'humble':  # knows only the older variable
        localhost = {'ROS_LOCALHOST_ONLY': '1'}
    return {'ROS_DOMAIN_ID': str(random.randint(1, 101)), 'PYTHONUNBUFFERED': '1', **localhost}


def node_command(module, parameters, *remappings):
    """Command line of a node of instructsam_ros with `parameters` {name: value}."""
    command = [sys.executable, '-m', f'instructsam_ros.{module}', '--ros-args']
    for name, value in parameters.items():
        command += ['-p', f'{name}:={json.dumps(value)}']  # quoted, so that YAML does not take a name for a number
    return command + [part for remapping in remappings for part in ('-r', remapping)]


@contextmanager
def running(commands):
    """Runs `commands` {name: command line} while the context lasts.

    Yields a function that raises NoResultError where one of them has ended. Where a NoResultError leaves the context,
    what they printed is shown.
    """
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix='instructsam_demo_'))
        processes = [
            stack.enter_context(_Process(name, command, Path(folder, f'{name}.log')))
            for name, command in commands.items()
        ]
        try:
            yield lambda: [process.check() for process in processes]
        except NoResultError:
            for process in processes:
                print(f'--- {process.name} printed:\n{process.output()}', file=sys.stderr)
            raise


class _Process:
    """A child process while the context lasts; its output goes to a file."""

    def __init__(self, name, command, log):
        self.name = name
        self._log = log
        with open(log, 'wb') as file:
            # a session of its own: Ctrl-C reaches only this process, which then ends its children in order
            self._process = subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT, start_new_session=True)

    def check(self):
        """Raises NoResultError if the process has ended."""
        code = self._process.poll()
        if code is not None:
            raise NoResultError(f'the {self.name} ended with exit code {code}')

    def output(self):
        return self._log.read_text(errors='replace').strip() or '(nothing)'

    def __enter__(self):
        return self

    def __exit__(self, *_):
        try:
            self._interrupt()
        finally:  # also where the user interrupts the waiting
            self._process.kill()
            self._process.wait()

    def _interrupt(self):
        for _ in range(STOP_S):
            self._process.send_signal(signal.SIGINT)  # again, as one before the process listens for it is lost
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(1)
                return

"""Child processes of the demo: isolated from other ROS systems, ended in order, with their output after a failure."""

import json
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Generator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from instructsam.core.errors import InstructSAMError

STOP_S = 10  # time for a process to end after an interrupt, before it is killed


class NoResultError(InstructSAMError):
    """There was no result; the message says why."""


def isolated_environment() -> dict[str, str]:
    """Return environment variables for a random ROS domain that no process of this machine uses.

    Its messages stay on this machine.
    """
    localhost = {'ROS_AUTOMATIC_DISCOVERY_RANGE': 'LOCALHOST'}
    if os.environ.get('ROS_DISTRO') == 'humble':  # Humble supports only the older variable
        localhost = {'ROS_LOCALHOST_ONLY': '1'}
    return {'ROS_DOMAIN_ID': str(_free_domain()), 'PYTHONUNBUFFERED': '1', **localhost}


def _free_domain() -> int:
    domains = random.sample(range(1, 102), 101)  # up to 101, their ports are not those of outgoing connections
    return next(filter(_reserve, domains), domains[0])


_reservations: list[socket.socket] = []  # open until this process ends


def _reserve(domain: int) -> bool:
    """Reserve a domain, unless a process of this machine uses it or has reserved it; return whether it is reserved.

    A domain is used if the UDP port of its first participant is (DDSI-RTPS 9.6.1.1). Two demos that start together have
    no participant yet; the TCP port of the domain, which DDS does not use, reserves it.
    """
    port, reservation = 7400 + 250 * domain, socket.socket()
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as unicast:
            unicast.bind(('', port + 10))
        reservation.bind(('127.0.0.1', port))
    except OSError:
        reservation.close()
        return False
    _reservations.append(reservation)
    return True


def node_command(module: str, parameters: Mapping[str, object], *remappings: str) -> list[str]:
    """Return the command line of a node.

    Args:
        module: Module of the node, relative to instructsam_ros.
        parameters: {name: value}.
        remappings: Such as 'image:=/camera/image'.
    """
    command = [sys.executable, '-m', f'instructsam_ros.{module}', '--ros-args']
    for name, value in parameters.items():
        command += ['-p', f'{name}:={json.dumps(value)}']  # quoted, so that YAML does not read a string as a number
    return command + [part for remapping in remappings for part in ('-r', remapping)]


@contextmanager
def run_processes(commands: Mapping[str, list[str]]) -> Generator[Callable[[], object], None, None]:
    """Run processes while the context lasts; print their output if a NoResultError leaves it.

    Args:
        commands: {name: command line}.

    Yields:
        A function that raises NoResultError if one of the processes has ended.
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
    """A child process while the context lasts; its output goes to the file `log`."""

    def __init__(self, name: str, command: list[str], log: Path) -> None:
        self.name = name
        self._log = log
        with open(log, 'wb') as file:
            # With a session of its own, Ctrl-C reaches only this process, which then ends its children in order.
            self._process = subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT, start_new_session=True)

    def check(self) -> None:
        """Raise NoResultError if the process has ended."""
        code = self._process.poll()
        if code is not None:
            raise NoResultError(f'the {self.name} ended with exit code {code}')

    def output(self) -> str:
        return self._log.read_text(errors='replace').strip() or '(nothing)'

    def __enter__(self) -> '_Process':
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self._interrupt()
        finally:  # also if the user interrupts the wait
            self._process.kill()
            self._process.wait()

    def _interrupt(self) -> None:
        for _ in range(STOP_S):
            # Sent repeatedly, because a signal that arrives before the process handles it is lost.
            self._process.send_signal(signal.SIGINT)
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(1)
                return

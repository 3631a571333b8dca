"""Processes that take turns: for benchmarks that compare programs which one process cannot import both."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import redirect_stdout, suppress
from functools import cache
from pathlib import Path
from typing import Any

MAX_ERROR = 400  # characters


class Worker:
    """A process with one thread that answers one request at a time, see `serve`."""

    def __init__(self, name: str, script: str | Path, arguments: Sequence[str], paths: Sequence[Path]):
        """Start a script whose imports come from `paths` first; `name` is that of the process in errors."""
        self._name = name
        path = os.pathsep.join(str(path.resolve()) for path in paths)
        environment = {**os.environ, 'PYTHONPATH': path, 'OMP_NUM_THREADS': '1', 'OPENBLAS_NUM_THREADS': '1'}
        command = [sys.executable, str(script), *arguments]
        self._process = subprocess.Popen(
            command, env=environment, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )

    def ask(self, request: Any) -> Any:
        """Return the reply to a request; both are JSON. Ends the program if the process fails."""
        assert self._process.stdin
        assert self._process.stdout
        with suppress(BrokenPipeError):  # of a process that has ended
            print(json.dumps(request), file=self._process.stdin, flush=True)
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit(f'{self._name} ended with exit code {self._process.wait()}')
        reply, error = json.loads(line)
        if error:
            raise SystemExit(f'{self._name} does not work: {error}')
        return reply

    def close(self) -> None:
        """End the process."""
        self._process.terminate()
        self._process.wait()


def in_turn(first: Worker, second: Worker, requests: Iterable[Any]) -> list[tuple[Any, Any]]:
    """Return the replies of both to each request; who begins alternates."""
    rounds = []
    for number, request in enumerate(requests):
        order = (second, first) if number % 2 else (first, second)
        replies = {worker: worker.ask(request) for worker in order}
        rounds.append((replies[first], replies[second]))
    return rounds


def serve(answer: Callable[[Any], Any]) -> None:
    """Answer the requests on stdin, one line of JSON each, on stdout. What else is printed goes to stderr."""
    replies = sys.stdout
    with redirect_stdout(sys.stderr):
        for line in sys.stdin:
            reply, error = None, ''
            try:
                reply = answer(json.loads(line))
            except Exception as failure:  # whatever another program raises
                where = traceback.extract_tb(failure.__traceback__)[-1]
                error = ' '.join(f'{type(failure).__name__}: {failure}'.split())[:MAX_ERROR]
                error += f' ({where.filename}, line {where.lineno})'
            print(json.dumps([reply, error]), file=replies, flush=True)


def serve_methods(systems: Mapping[str, Callable[..., Any]], arguments: Sequence[str]) -> None:
    """Answer requests, each the name of a method of one of the systems, which the first request starts.

    Args:
        systems: Classes by name.
        arguments: The name, and the arguments of the class.
    """
    name, *options = arguments
    system = cache(lambda: systems[name](*options))
    serve(lambda request: getattr(system(), request)())


def timed(function: Callable[[], Any]) -> tuple[float, Any]:
    """Return the processor time of a call in seconds, and its result."""
    start = time.process_time()
    result = function()
    return time.process_time() - start, result


def package_of(checkout: Path, folder: Path) -> Path:
    """Return `folder`, an empty one, as a path from which `instructsam` is imported as in a checkout of this one."""
    (folder / 'instructsam').mkdir(parents=True)
    for room in ('core', 'train'):
        (folder / 'instructsam' / room).symlink_to((checkout / room).resolve())
    return folder

"""Ordered parallel map over processes: `in_order`."""

import signal
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import get_context, resource_tracker
from typing import TypeVar

AHEAD = 4  # results per process that may wait to be consumed; bounds memory

Value = TypeVar('Value')
Result = TypeVar('Result')


def in_order(
    function: Callable[[Value], Result], values: Iterable[Value], workers: int
) -> Generator[Result, None, None]:
    """Yield the results of `function` for each value in their order, computed slightly ahead by several processes.

    `Executor.map` would submit all values at once and does not shield the processes from Ctrl-C: here they ignore it
    and leave it to the main process. They are spawned because OpenGL does not survive a fork; `function` is pickled.

    Args:
        function: The function.
        values: Its arguments; read as needed, so they may be infinite.
        workers: Number of processes.
    """
    resource_tracker.ensure_running()  # starting it unblocks SIGINT, so it must run before a process is started
    with ProcessPoolExecutor(workers, get_context('spawn')) as pool:
        try:
            waiting: deque[Future[Result]] = deque()
            for value in values:
                with _sigint_blocked():
                    waiting.append(pool.submit(function, value))
                if len(waiting) > AHEAD * workers:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            pool.shutdown(cancel_futures=True)


@contextmanager
def _sigint_blocked() -> Iterator[None]:
    """Postpone Ctrl-C; a process that is started meanwhile has SIGINT blocked permanently."""
    received = []
    # Another thread may receive the signal for this one, so blocking it here is not enough.
    handler = signal.signal(signal.SIGINT, lambda *_: received.append(True))
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        signal.signal(signal.SIGINT, handler)
    if received:
        signal.raise_signal(signal.SIGINT)

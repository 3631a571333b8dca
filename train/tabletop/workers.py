"""Ordered parallel map over processes: `in_order`."""

import os
import signal
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import ExitStack, contextmanager
from multiprocessing import get_context, parent_process, resource_tracker
from threading import Thread
from typing import TypeVar

from instructsam.core.stop_signals import SIGNALS

AHEAD = 4  # results per process that may wait to be consumed; bounds memory

Value = TypeVar('Value')
Result = TypeVar('Result')


def in_order(
    function: Callable[[Value], Result], values: Iterable[Value], workers: int
) -> Generator[Result, None, None]:
    """Yield the results of `function` for each value in their order, computed slightly ahead by several processes.

    `Executor.map` would submit all values at once and does not shield the processes from Ctrl-C and other signals: here
    they ignore them and end with the main process, however that ends. They are spawned because OpenGL does not survive
    a fork; `function` is pickled.

    Args:
        function: The function.
        values: Its arguments; read as needed, so they may be infinite.
        workers: Number of processes.
    """
    resource_tracker.ensure_running()  # starting it unblocks SIGINT, so it must run before a process is started
    with ExitStack() as stack:
        with _signals_blocked():  # an interrupted constructor would leave semaphores behind
            pool = stack.enter_context(ProcessPoolExecutor(workers, get_context('spawn'), _end_with_parent))
        try:
            waiting: deque[Future[Result]] = deque()
            for value in values:
                with _signals_blocked():
                    waiting.append(pool.submit(function, value))
                if len(waiting) > AHEAD * workers:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            pool.shutdown(cancel_futures=True)


def _end_with_parent() -> None:
    """Let this process end as soon as its parent is gone: a killed one cannot end it, and another run may follow."""
    parent = parent_process()

    def wait() -> None:
        assert parent is not None  # this process was started by multiprocessing
        parent.join()
        os._exit(1)

    Thread(target=wait, daemon=True).start()


@contextmanager
def _signals_blocked() -> Iterator[None]:
    """Postpone signals that end a command; in a process that is started meanwhile they are blocked permanently."""
    received = []
    # Another thread may receive the signal for this one, so blocking it here is not enough.
    handlers = {each: signal.signal(each, lambda number, _: received.append(number)) for each in SIGNALS}
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        for each, handler in handlers.items():
            signal.signal(each, handler)
    for number in received[:1]:
        signal.raise_signal(number)

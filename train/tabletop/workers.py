"""Work in processes of its own, its results in order: `in_order`. Knows nothing of what the work is."""

import signal
from collections import deque
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import get_context

AHEAD = 4  # results a process that may wait to be taken: bounds memory


def in_order(function, count, workers):
    """function(0), function(1) ... function(count - 1), from so many processes, worked out a little ahead.

    The processes are spawned, for OpenGL does not survive a fork; `function` is pickled. They leave Ctrl-C to this one.
    """
    with ProcessPoolExecutor(workers, get_context('spawn')) as pool:
        try:
            waiting = deque()
            for index in range(count):
                with _ctrl_c_held_back():
                    waiting.append(pool.submit(function, index))
                if len(waiting) > AHEAD * workers:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            pool.shutdown(cancel_futures=True)


@contextmanager
def _ctrl_c_held_back():
    """Blocks SIGINT meanwhile; a process that is started meanwhile inherits that for good."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)

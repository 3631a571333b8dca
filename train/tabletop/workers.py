"""Work in processes of its own, its results in order: `in_order`. Knows nothing of what the work is."""

import signal
from collections import deque
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import get_context, resource_tracker

AHEAD = 4  # results a process that may wait to be taken: bounds memory


def in_order(function, values, workers):
    """Function of each of `values`, in their order, from so many processes, worked out a little ahead.

    The processes are spawned, for OpenGL does not survive a fork; `function` is pickled. They leave Ctrl-C to this one.
    """
    resource_tracker.ensure_running()  # here, for it lets SIGINT through when it has started
    with ProcessPoolExecutor(workers, get_context('spawn')) as pool:
        try:
            waiting = deque()
            for value in values:
                with _ctrl_c_held_back():
                    waiting.append(pool.submit(function, value))
                if len(waiting) > AHEAD * workers:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            pool.shutdown(cancel_futures=True)


@contextmanager
def _ctrl_c_held_back():
    """Puts Ctrl-C off; a process that is started meanwhile has SIGINT blocked for good."""
    came = []
    handler = signal.signal(signal.SIGINT, lambda *_: came.append(True))  # another thread may get it for this one
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        signal.signal(signal.SIGINT, handler)
    if came:
        signal.raise_signal(signal.SIGINT)

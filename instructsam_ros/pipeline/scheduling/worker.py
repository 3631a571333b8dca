"""The thread that owns the model: it loads, runs and frees it, so that no other thread ever waits for the model."""

from __future__ import annotations

import gc
import sys
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from instructsam_ros.pipeline.scheduling.error_log import FAILURES
from instructsam_ros.pipeline.scheduling.jobs import GoalJob, JobContext, StreamJob
from instructsam_ros.pipeline.scheduling.scheduler import GoalWork, StreamWork, Work

if TYPE_CHECKING:  # importing the engine imports torch
    from instructsam.core import InstructSAM


PAUSE_S = 0.1
"""Time after a bug, so that one that recurs at once does not occupy the processor."""


class Worker(threading.Thread):
    """Runs the work that the scheduler hands out, one piece after the other.

    A daemon thread: the process may end while the model is busy.
    """

    def __init__(self, context: JobContext) -> None:
        """Create the thread without a model; start() begins to take work from `context.scheduler`."""
        super().__init__(name='model', daemon=True)
        self.engine: InstructSAM | None = None  # written in this thread only
        self._context = context

    def close(self, timeout_s: float) -> bool:
        """End the thread; return whether it has ended: it has not if the model cannot be interrupted."""
        self._context.scheduler.close()
        self.join(timeout_s)
        return not self.is_alive()

    def run(self) -> None:
        """Run until the scheduler is closed."""
        while self._run_next():
            pass

    def _run_next(self) -> bool:
        """Wait for work and do it; return whether there may be more.

        Everything that may hold device memory goes out of scope on return, before the next wait.
        """
        work: Work | None = None
        try:
            work = self._context.scheduler.wait_for_work()
            if work is None:
                return False
            self.run_work(work)
        except FAILURES as error:  # A bug in this package must not end the thread: the next image may succeed.
            text = self._context.error_log.report_bug('the thread of the model', error)
            if isinstance(work, GoalWork):
                for request in work.requests:  # nothing else would end them
                    request.abort(text)
            time.sleep(PAUSE_S)
        return True

    def run_work(self, work: Work) -> None:
        """Do one piece of work. An exception of a job is reported as its answer; any other exception is a bug."""
        if not isinstance(work, StreamWork | GoalWork):
            work()
            return
        assert self.engine is not None, 'a session begins after the model has been loaded'
        job = StreamJob(work, self._context) if isinstance(work, StreamWork) else GoalJob(work, self._context)
        if not job.run(self.engine):
            free_device_memory()  # The failure may have been a lack of memory, part of which is still held.

    # Called in this thread, as tasks of the scheduler

    def load_model(self, factory: Callable[..., InstructSAM], **arguments: str) -> InstructSAM:
        """Create the engine by `factory(**arguments)` and keep it. Raises what the factory raises."""
        try:
            self.engine = factory(**arguments)
        except FAILURES:
            self._context.scheduler.submit(free_device_memory)  # later, since the error's traceback holds the model
            raise
        return self.engine

    def unload_model(self) -> None:
        """Free the model and its memory."""
        self.engine = None
        free_device_memory()


def free_device_memory() -> None:
    """Return memory that is no longer used to the device."""
    gc.collect()  # A model has reference cycles.
    torch = sys.modules.get('torch')  # absent if no model was ever loaded
    if torch and torch.cuda.is_initialized():
        torch.cuda.empty_cache()

"""An executor that continues after an exception of a callback.

rclpy's executors raise the exception of any callback out of spin_once(), which ends the process, and an exception while
a message is taken leaves its subscription, and every other callback of its group, disabled permanently.
"""

import socket
import sys
import time
from collections.abc import Callable
from typing import Any

from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.task import Task

from instructsam.core.exit_codes import DONE, FAILED
from instructsam_ros.node import signals
from instructsam_ros.pipeline.scheduling.error_log import FAILURES, explain

PAUSE_S = 0.01
"""Time after an exception outside of callbacks, so that one that recurs does not occupy the processor."""

GIVE_UP_S = 10.0
"""Time without a single success after which an exception ends the process."""

Report = Callable[[str, BaseException], object]
"""Called with the place where an exception was raised, such as 'the callback of /image', and the exception."""


class GuardedExecutor(SingleThreadedExecutor):
    """Executes callbacks in one thread, reports their exceptions and continues.

    The guard is here, and not at the callbacks, so that none can be forgotten: subscriptions, services, timers, events,
    the action's callbacks and tasks all pass through it.

    _make_handler is not part of rclpy's interface. In a version without it, exceptions of callbacks still end in
    spin_once(), as those of 'a task', but a message that cannot be taken disables its callback group.
    """

    def __init__(self, report: Report, **kwargs: Any) -> None:
        """Report exceptions to `report`; `kwargs` are those of rclpy's SingleThreadedExecutor."""
        super().__init__(**kwargs)
        self._report = report
        self._failing_since_s: float | None = None

    def spin_once(self, timeout_sec: float | None = None) -> None:
        """Execute the next callback.

        Raises:
            ExternalShutdownException: The context was shut down.
            Exception: Nothing has succeeded for GIVE_UP_S seconds.
        """
        try:
            super().spin_once(timeout_sec)
        except ExternalShutdownException:
            raise
        except FAILURES as error:
            if not self.context.ok():  # then everything fails
                raise ExternalShutdownException from error
            now_s = time.monotonic()
            self._failing_since_s = self._failing_since_s or now_s
            if now_s - self._failing_since_s > GIVE_UP_S:
                raise
            self._report('a task', error)
            time.sleep(PAUSE_S)
        else:
            self._failing_since_s = None

    def _make_handler(self, entity: Any, node: Any, take_from_wait_list: Callable[[Any], Any], *more: Any) -> Task:
        """Wrap rclpy's method, through which it executes the callback of every entity."""
        where = _describe(entity)

        def take(entity: Any) -> Any:
            try:
                call = take_from_wait_list(entity)
            except FAILURES as error:
                self._report(where, error)
                return None
            return self._guarded(call, where) if callable(call) else call

        # Humble passes the callback's coroutine function as well.
        return super()._make_handler(entity, node, take, *(self._guarded(each, where) for each in more))

    def _guarded(self, call: Callable[..., Any], where: str) -> Callable[..., Any]:
        async def guarded(*args: Any) -> None:
            try:
                await call(*args)
            except FAILURES as error:
                self._report(where, error)

        return guarded


def run(
    program: str, executor: GuardedExecutor, caught: socket.socket, at_end: Callable[[], object] = lambda: None
) -> int:
    """Spin until a signal; return the exit code of the process, after one line of text if nothing works any more.

    Args:
        program: The name of the command.
        executor: Has the node.
        caught: The socket of signals.catch().
        at_end: Called after the signal, while the node still works.
    """
    try:
        signals.spin_until(caught, executor)
        at_end()
    except ExternalShutdownException:  # another end than a signal: the context was shut down
        pass
    except FAILURES as error:
        print(f'{program}: nothing works any more: {explain(error).text}', file=sys.stderr)
        return FAILED
    return DONE


def _describe(entity: Any) -> str:
    name = getattr(entity, 'topic_name', None) or getattr(entity, 'srv_name', None) or type(entity).__name__
    return f'the callback of {name}'

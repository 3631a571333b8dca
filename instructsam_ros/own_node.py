"""A ROS node for programs that observe other nodes: the client, the doctor, the demo and the viewers."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import rclpy
from rclpy.context import Context
from rclpy.executors import Executor, ExternalShutdownException, SingleThreadedExecutor
from rclpy.signals import SignalHandlerOptions

STEP_S = 0.05
"""Time after which `OwnNode.spin` checks its condition again if there is no message."""


class SpinThread(threading.Thread):
    """Runs the callbacks of an executor until it is stopped.

    rclpy's Executor.shutdown() destroys the guard condition that wakes the executor. Called while another thread is
    about to wait for that guard condition, that thread waits forever: stop the thread first.
    """

    def __init__(self, executor: Executor) -> None:
        """Take the executor; `start` begins."""
        super().__init__(daemon=True)
        self._executor = executor
        self._is_stopping = threading.Event()

    def run(self) -> None:
        """Run callbacks."""
        with suppress(ExternalShutdownException):
            while not self._is_stopping.is_set():
                self._executor.spin_once()

    def stop(self) -> None:
        """Wait for the running callback, and run no more."""
        if self.is_alive():
            self._executor.create_task(self._is_stopping.set)  # a task ends the wait, too
        self.join()


class OwnNode:
    """A ROS node with a separate context and executor, so that it can be used in any program.

    Ctrl-C stays Python's KeyboardInterrupt, which unwinds everything that was started.

    Args:
        name: Name of the node.

    Attributes:
        node: The node. Most methods of rclpy's Node are not annotated.
        executor: Its executor.
        thread: Runs the callbacks, once it has been started.
    """

    def __init__(self, name: str) -> None:
        self._context = Context()
        rclpy.init(context=self._context, signal_handler_options=SignalHandlerOptions.NO)
        self.node: Any = rclpy.create_node(name, context=self._context)
        self.executor = SingleThreadedExecutor(context=self._context)
        self.executor.add_node(self.node)
        self.thread: SpinThread | None = None
        self._lock = threading.Lock()  # guards _is_stopped
        self._is_stopped = False

    def spin(self, seconds: float, until: Callable[[], object] = bool) -> bool:
        """Run callbacks in this thread until `until()` is true or the time has passed; return whether it is true."""
        end_s = time.monotonic() + seconds
        while not until():
            if time.monotonic() > end_s:
                return False
            self.executor.spin_once(STEP_S)
        return True

    def start_thread(self) -> None:
        """Run the callbacks in a thread."""
        self.thread = SpinThread(self.executor)
        self.thread.start()

    def run_soon(self, call: Callable[[], object]) -> None:
        """Call `call` in the thread of the callbacks, or not at all if that is stopped first.

        Subscriptions are destroyed there: destroyed in another thread while rclpy's executor is about to wait for them,
        they raise InvalidHandle in the executor, which ends its thread.
        """
        with self._lock:
            if not self._is_stopped:
                self.executor.create_task(call)

    def stop(self) -> None:
        """Run no more callbacks."""
        with self._lock:
            self._is_stopped = True
        if self.thread is not None:
            self.thread.stop()
        self.executor.shutdown()

    def close(self) -> None:
        """Stop and leave ROS."""
        self.stop()
        self.node.destroy_node()
        self._context.try_shutdown()

    def subscriptions_of(self, base: str, namespace: str) -> list[tuple[str, list[str]]]:
        """Return the topics that a node reads, with their types; none if it has ended."""
        try:
            return self.node.get_subscriber_names_and_types_by_node(base, namespace)
        except Exception:  # rclpy raises NodeNameNonExistentError, or RuntimeError
            return []


def split_name(node: str) -> tuple[str, str]:
    """Return the base name and the namespace of a node."""
    namespace, _, base = f'/{node.strip("/")}'.rpartition('/')
    return base, namespace or '/'


def default_instruction_topic(node: str) -> str:
    """Return the topic on which a node receives instructions, unless it is remapped."""
    return f'{split_name(node)[1].rstrip("/")}/instruction'

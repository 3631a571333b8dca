"""A ROS node of this process whose callbacks run while it waits: the user of the demo."""

import time
from collections.abc import Callable
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus

from instructsam_ros.dds import check_environment
from instructsam_ros.demo.processes import NoResultError
from instructsam_ros.own_node import OwnNode

KEPT_MESSAGES = 20  # messages per topic kept until those of the same stamp arrive on other topics
Stamp = tuple[int, int]  # seconds and nanoseconds of a header


def stamp_of(message: Any) -> Stamp:
    """Return the stamp of a message with a header."""
    return message.header.stamp.sec, message.header.stamp.nanosec


class TopicListener:
    """A node with its own ROS context; a context manager.

    While it waits, diagnostics of level ERROR raise NoResultError.
    """

    def __init__(self, name: str) -> None:
        check_environment()
        self._ros = OwnNode(name)
        self._node = self._ros.node
        self._node.create_subscription(DiagnosticArray, '/diagnostics', self._on_diagnostics, 10)

    def wait_for(
        self, condition: Callable[[], object], check: Callable[[], object], deadline_s: float, reason: str
    ) -> None:
        """Wait until `condition()` is true.

        Args:
            condition: What to wait for.
            check: Called repeatedly; raises if waiting is pointless.
            deadline_s: Latest time, as of time.monotonic().
            reason: Message of the error after the deadline.

        Raises:
            NoResultError: The deadline has passed.
        """
        while not condition():
            check()
            if time.monotonic() > deadline_s:
                raise NoResultError(reason)
            self._ros.executor.spin_once(0.1)

    def _on_diagnostics(self, message: DiagnosticArray) -> None:
        for status in message.status:
            if status.level == DiagnosticStatus.ERROR:  # for example a model that cannot be loaded
                raise NoResultError(f'the node reports: {status.message}')

    def __enter__(self) -> Any:
        return self

    def __exit__(self, *_: object) -> None:
        self._ros.close()

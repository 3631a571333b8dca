"""The user of `instructsam demo`: a ROS node of this process, whose callbacks run while it waits."""

import time

import rclpy
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from rclpy.executors import SingleThreadedExecutor
from rclpy.signals import SignalHandlerOptions

from instructsam_ros.demo.processes import NoResultError

KEPT = 20  # messages that wait for what belongs to them


class Listener:
    """Has its own ROS context; a context manager. Diagnostics of level ERROR raise NoResultError while it waits."""

    def __init__(self, name):
        self._context = rclpy.Context()
        # Ctrl-C stays Python's KeyboardInterrupt, which unwinds everything that was started
        rclpy.init(context=self._context, signal_handler_options=SignalHandlerOptions.NO)
        self._node = rclpy.create_node(name, context=self._context)
        self._executor = SingleThreadedExecutor(context=self._context)
        self._executor.add_node(self._node)
        self._node.create_subscription(DiagnosticArray, '/diagnostics', self._on_diagnostics, 10)

    def wait_for(self, condition, check, deadline_s, otherwise):
        """Until `condition()`.

        check: called now and then, raises where waiting is in vain. Raises NoResultError(otherwise) where deadline_s,
        by time.monotonic(), has passed.
        """
        while not condition():
            check()
            if time.monotonic() > deadline_s:
                raise NoResultError(otherwise)
            self._executor.spin_once(0.1)

    def _on_diagnostics(self, message):
        for status in message.status:
            if status.level == DiagnosticStatus.ERROR:  # such as a model that cannot be loaded
                raise NoResultError(f'the node reports: {status.message}')

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._executor.shutdown()
        self._node.destroy_node()
        self._context.try_shutdown()


def keep(by_stamp, stamp, value):
    """Puts `value` into the dict under (sec, nanosec) of its stamp; the oldest of more than KEPT go."""
    by_stamp[stamp.sec, stamp.nanosec] = value
    if len(by_stamp) > KEPT:
        by_stamp.pop(next(iter(by_stamp)))

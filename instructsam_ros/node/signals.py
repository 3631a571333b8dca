"""SIGINT, SIGTERM and SIGHUP as an orderly end: running callbacks finish first, however many signals arrive.

rclpy's handlers would shut the context down under running callbacks. Python's own would raise in the middle of the
shutdown when the second Ctrl-C arrives, which `ros2 launch` sends.
"""

import signal
import socket
import threading
from collections.abc import Callable

from rclpy.executors import Executor

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def catch() -> socket.socket:
    """Return a socket on which a byte arrives with each signal, which has no other effect.

    Python's own handlers run in the main thread only, which is waiting in ROS. SIGHUP stays ignored if it was ignored
    at the start, as under nohup.
    """
    reader, writer = socket.socketpair()
    writer.setblocking(False)
    signal.set_wakeup_fd(writer.detach())  # stays open as long as the process
    for number in SIGNALS:
        if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, lambda *_: None)
    return reader


def event() -> threading.Event:
    """Return an Event that is set when a signal arrives.

    It is set from a thread: setting it in the signal handler could deadlock with the wait() that it interrupts.
    """
    signals, received = catch(), threading.Event()
    _call_at_signal(signals, received.set)
    return received


def spin_until(signals: socket.socket, executor: Executor) -> None:
    """Spin until a byte arrives on `signals`. Raises what the executor raises."""
    is_ending = threading.Event()

    def end() -> None:
        if not is_ending.is_set():
            executor.create_task(is_ending.set)

    _call_at_signal(signals, end)
    try:
        while not is_ending.is_set():
            executor.spin_once()
    finally:
        is_ending.set()  # A signal that comes later finds the executor destroyed.


def _call_at_signal(signals: socket.socket, function: Callable[[], object]) -> None:
    def wait() -> None:
        if signals.recv(1):
            function()
        while signals.recv(1):  # Unread, later signals would fill the socket, and Python would print an error for each.
            pass

    threading.Thread(target=wait, daemon=True).start()


def ignore() -> None:
    """Ignore signals during the last moments of the process.

    At its end Python replaces any other handler by the default one, which ends the process with an error.
    """
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)

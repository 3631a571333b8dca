"""SIGINT and SIGTERM as an orderly end: the node goes on until its callbacks have returned, however many signals come.

rclpy's handlers would end the context under running callbacks, and Python's raise, at the second Ctrl-C (`ros2 launch`
sends one) in the midst of the shutdown.
"""

import signal
import socket
import threading

SIGNALS = (signal.SIGINT, signal.SIGTERM)


def catch():
    """A socket on which a byte arrives with each signal; nothing else happens then.

    Python's own handlers wait for the main thread, and that waits for ROS.
    """
    reader, writer = socket.socketpair()
    writer.setblocking(False)
    signal.set_wakeup_fd(writer.detach())  # stays open as long as the process
    for number in SIGNALS:
        signal.signal(number, lambda *_: None)
    return reader


def event():
    """An Event that is set when a signal comes. By a thread: a handler would wait for a wait() that it interrupts."""
    signals, came = catch(), threading.Event()
    _call_at_signal(signals, came.set)
    return came


def spin_until(signals, executor):
    """Spins until a byte arrives on `signals`."""
    is_ending = threading.Event()
    _call_at_signal(signals, lambda: executor.create_task(is_ending.set))
    while not is_ending.is_set():
        executor.spin_once()


def _call_at_signal(signals, function):
    def wait():
        signals.recv(1)
        function()
        while True:  # this end stays open: Python would complain of later signals
            signals.recv(1)

    threading.Thread(target=wait, daemon=True).start()


def ignore():
    """For the last moments of the process: in place of any other handler, Python's end restores the deadly default."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)

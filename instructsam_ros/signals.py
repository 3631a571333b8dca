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


def spin_until(signals, executor):
    """Spins until a byte arrives on `signals`."""
    is_ending = threading.Event()

    def end_on_signal():
        signals.recv(1)
        executor.create_task(is_ending.set)

    threading.Thread(target=end_on_signal, daemon=True).start()
    while not is_ending.is_set():
        executor.spin_once()


def ignore():
    """For the last moments of the process: in place of any other handler, Python's end restores the deadly default."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)

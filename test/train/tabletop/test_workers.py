"""Tests for train/tabletop/workers.py."""

import subprocess
import sys

INTERRUPTED_AT_A_SEMAPHORE = """
import os
import signal
from multiprocessing import resource_tracker

from instructsam.train.tabletop.workers import in_order

register = resource_tracker.register


def register_and_interrupt(name, kind):
    register(name, kind)
    os.kill(os.getpid(), signal.SIGINT)


resource_tracker.register = register_and_interrupt
list(in_order(abs, [1], 1))
"""


def test_a_signal_while_the_pool_is_built():
    """It is handled once the pool can be closed, so nothing leaks."""
    run = subprocess.run([sys.executable, '-P', '-c', INTERRUPTED_AT_A_SEMAPHORE], capture_output=True, text=True)
    assert run.stderr.endswith('KeyboardInterrupt\n')
    assert 'leaked' not in run.stderr

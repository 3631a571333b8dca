"""Configuration of torch's thread pool on the CPU."""

from __future__ import annotations

import logging
import os
import sys

logger = logging.getLogger(__name__)

SPINS = '10000'  # rounds of the loop that waits; libgomp's default, 300,000, takes milliseconds
_LATE: list[str] = []  # why the setting has no effect in this process; empty once it has been reported


def configure_threads() -> None:
    """Let torch's worker threads sleep soon when they wait for each other, instead of spinning for milliseconds.

    Where other processes compete for the cores, as on any robot, spinning threads take time from the thread that they
    wait for, which makes answers several times slower (test/bench/bench_busy_cores.py).

    Importing `instructsam.core` calls it, since libgomp reads the variable when torch loads it: nothing can change it
    afterwards (`report_late`). Values of OMP_WAIT_POLICY and GOMP_SPINCOUNT that are set already are respected.
    """
    if 'OMP_WAIT_POLICY' in os.environ or 'GOMP_SPINCOUNT' in os.environ:
        return
    os.environ['GOMP_SPINCOUNT'] = SPINS  # also for the processes that this one starts
    if 'torch' in sys.modules:
        _LATE.append(
            'torch was imported before instructsam.core, so that its threads spin for milliseconds while they wait for '
            'each other: where other programs use the cores, answers take several times as long. Import '
            f'instructsam.core before torch, or start the program with GOMP_SPINCOUNT={SPINS}'
        )


def report_late(threads: int) -> None:
    """Warn once if torch was loaded before its threads were configured, and has several; a single one never waits."""
    if threads > 1 and _LATE:
        logger.warning(_LATE.pop())

"""Configuration of torch's thread pool on the CPU."""

import os

SPINS = '10000'  # rounds of the loop that waits; libgomp's default, 300,000, takes milliseconds


def configure_threads() -> None:
    """Let torch's worker threads sleep soon when they wait for each other, instead of spinning for milliseconds.

    Where other processes compete for the cores, as on any robot, spinning threads take time from the thread that they
    wait for, which makes answers several times slower (test/bench/bench_busy_cores.py).

    Call it before torch is imported: libgomp reads the variable when it is loaded. Importing `instructsam.core`'s
    `InstructSAM` calls it. Values of OMP_WAIT_POLICY and GOMP_SPINCOUNT that are set already are respected.
    """
    if 'OMP_WAIT_POLICY' not in os.environ:
        os.environ.setdefault('GOMP_SPINCOUNT', SPINS)

"""Facts about the machine, and the matrix products and reads that measure its rates at this moment."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F

from instructsam.core.benchmark.stages import Stage
from instructsam.core.cpu_info import cpu_name
from instructsam.core.version import version

PRODUCTS = {  # rows, width and outputs of the products whose fastest rate counts as the peak
    'cpu': ((1024, 1024, 4736), (305, 2048, 12288), (2048, 2048, 2048)),
    'cuda': ((5184, 1024, 4736), (4096, 4096, 4096), (8192, 4096, 4096)),
}
REPEATS = {'cpu': 1, 'cuda': 10}  # per measurement: a GPU needs more work than the host takes to launch it
READ_BYTES = 256 << 20  # larger than the caches
BUSY = 0.1  # share of the cores that other programs may use without a note
PACKAGES = ('torch', 'transformers', 'numpy')
STATISTICS = Path('/proc/stat')
BOARD = Path('/proc/device-tree/model')  # names the board of a Jetson, a Raspberry Pi and the like


def products(device: torch.device, dtype: torch.dtype) -> dict[Stage, int]:
    """Return matrix products, and the operations of a run of each."""
    found: dict[Stage, int] = {}
    kind = 'cuda' if device.type == 'cuda' else 'cpu'
    repeats = REPEATS[kind]
    for rows, width, outputs in PRODUCTS[kind]:
        left, right = (torch.ones(size, width, device=device, dtype=dtype) for size in (rows, outputs))
        stage = Stage(f'GEMM {rows} x {width} x {outputs}', _multiply(left, right, repeats))
        found[stage] = 2 * rows * width * outputs * repeats
    return found


def _multiply(left: torch.Tensor, right: torch.Tensor, repeats: int) -> Callable[[Any], None]:
    def run(_: Any) -> None:
        for _ in range(repeats):
            F.linear(left, right)

    return run


def reading(device: torch.device) -> Stage:
    """Return a sum over memory that no cache holds."""
    values = torch.ones(READ_BYTES // 4, device=device)
    repeats = REPEATS['cuda' if device.type == 'cuda' else 'cpu']

    def run(_: Any) -> None:
        for _ in range(repeats):
            values.sum()

    return Stage('reading memory', run, units=repeats, read_bytes=READ_BYTES)


def facts(device: torch.device) -> dict[str, Any]:
    """Return names and versions of the machine and the software."""
    found: dict[str, Any] = {'cpu': cpu_name(), 'cores': os.cpu_count(), 'threads': torch.get_num_threads()}
    if BOARD.exists():
        found['board'] = BOARD.read_text(errors='replace').strip('\0\n ')
    if device.type == 'cuda':
        found['gpu'] = torch.cuda.get_device_name(device)
        found['cuda'] = torch.version.cuda
    found['instructsam'] = version()
    found |= {package: importlib.metadata.version(package) for package in PACKAGES}
    found['python'] = platform.python_version()
    return found


class OtherPrograms:
    """Counts the processor time that others take: other processes of the machine, and other virtual machines."""

    def __init__(self, statistics: Path = STATISTICS):
        """Start to count."""
        self._statistics = statistics
        self._start = self._now()

    def cores(self) -> float | None:
        """Return how many cores others have used since the start, on average; None if the system does not report it."""
        start, now = self._start, self._now()
        if start is None or now is None or now[0] == start[0]:
            return None
        wall_s, all_s, own_s = (later - earlier for later, earlier in zip(now, start, strict=True))
        return max(all_s - own_s, 0.0) / wall_s

    def _now(self) -> tuple[float, float, float] | None:
        """Return the time, and the processor time of the whole machine and of this process, in seconds."""
        try:
            first = self._statistics.read_text().partition('\n')[0]
        except OSError:
            return None
        user, nice, system, _, _, irq, softirq, steal = map(int, first.split()[1:9])
        ticks = user + nice + system + irq + softirq + steal
        return time.perf_counter(), ticks / os.sysconf('SC_CLK_TCK'), time.process_time()


def peak_memory(device: torch.device) -> dict[str, float]:
    """Return the largest memory so far, in GB: of this process, and what torch has allocated on the GPU."""
    unit = 1 if sys.platform == 'darwin' else 1024
    found = {'process_gb': resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9}
    if device.type == 'cuda':
        found['gpu_gb'] = torch.cuda.max_memory_allocated(device) / 1e9
    return found

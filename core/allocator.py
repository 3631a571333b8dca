"""Configuration of the C library's memory allocator."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager

VARIABLES = 'MALLOC_ARENA_MAX', 'MALLOC_MMAP_MAX_', 'MALLOC_MMAP_THRESHOLD_', 'MALLOC_TRIM_THRESHOLD_', 'GLIBC_TUNABLES'
KEPT_MB = 1024  # free memory at the end of the heap that is kept
MAPPED_MB = 1  # smallest weight with separate pages

# Parameters of glibc's mallopt, from its malloc.h, and the default of M_MMAP_MAX
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_MMAP_MAX, _M_ARENA_MAX = -1, -3, -4, -8
_MMAP_MAX = 65536

_MALLOPT: list[Callable[[int, int], int]] = []  # filled when the allocator is configured


def configure_allocator() -> None:
    """Let glibc keep the memory of freed tensors for the next ones.

    By itself glibc returns large tensors to the kernel, which has to clear every page that the next layer writes to:
    three to nine percent of the time of SAM3's encoder at the published size (test/bench/bench_allocator.py). All
    threads share the main heap, since glibc's heaps for other threads hold 64 MB at most.

    Importing `instructsam.core` calls it. It changes nothing if one of VARIABLES is set, or the C library is not
    glibc. Other allocators that are loaded first (jemalloc, tcmalloc) are not affected.
    """
    if any(name in os.environ for name in VARIABLES):
        return
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):  # musl, macOS
        return
    settings = (
        (_M_MMAP_MAX, 0),
        (_M_MMAP_THRESHOLD, MAPPED_MB << 20),
        (_M_TRIM_THRESHOLD, KEPT_MB << 20),
        (_M_ARENA_MAX, 1),
    )
    if all(mallopt(parameter, value) for parameter, value in settings):
        _MALLOPT[:] = [mallopt]


@contextmanager
def own_pages() -> Iterator[None]:
    """Give each tensor that is allocated in the block separate pages: for weights.

    Weights stay allocated, or are freed one by one in another order, which would leave holes in the heap.
    """
    for mallopt in _MALLOPT:
        mallopt(_M_MMAP_MAX, _MMAP_MAX)
    try:
        yield
    finally:
        for mallopt in _MALLOPT:
            mallopt(_M_MMAP_MAX, 0)

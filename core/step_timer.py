"""Times the steps of one call of the engine and checks for cancellation between them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import torch

from instructsam.core.errors import CancelledError


class StepTimer:
    """Measures named steps in ms, and raises CancelledError once the caller no longer wants the result.

    On a GPU, a step lasts from its start to its end on the GPU, and the host waits only when the times are read.
    """

    def __init__(
        self,
        device: torch.device,
        cancelled: Callable[[], bool] | None = None,
        timings_ms: Mapping[str, float] | None = None,
    ):
        """Start from the times of earlier steps, if any.

        Args:
            device: Device that computes.
            cancelled: Returns true once the result is no longer wanted.
            timings_ms: Times to start from; they are copied.
        """
        self._device = device
        self._cancelled = cancelled
        self._timings_ms = dict(timings_ms or {})
        self._events: list[tuple[str, torch.cuda.Event, torch.cuda.Event]] = []

    @property
    def timings_ms(self) -> dict[str, float]:
        """Time per step; a step that runs several times adds up."""
        for name, start, end in self._events:
            end.synchronize()
            self._add(name, start.elapsed_time(end))
        self._events.clear()
        return self._timings_ms

    def check(self) -> None:
        """Raise CancelledError if the caller has cancelled."""
        if self._cancelled is not None and self._cancelled():
            raise CancelledError('the caller no longer wants this result')

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Add the duration of the `with` block to `timings_ms[name]`; checks for cancellation first."""
        self.check()
        if self._device.type == 'cuda':
            start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            stream = torch.cuda.current_stream(self._device)
            start.record(stream)
            yield
            end.record(stream)
            self._events.append((name, start, end))
        else:
            start_s = time.perf_counter()
            yield
            self._add(name, (time.perf_counter() - start_s) * 1e3)

    def _add(self, name: str, duration_ms: float) -> None:
        self._timings_ms[name] = self._timings_ms.get(name, 0.0) + duration_ms

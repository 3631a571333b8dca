"""Times the steps of one call of the engine and checks for cancellation between them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import torch

from instructsam.core.errors import CancelledError


class StepTimer:
    """Measures named steps in ms, and raises CancelledError once the caller no longer wants the result.

    Attributes:
        timings_ms: Time per step; a step that runs several times adds up.
    """

    def __init__(
        self,
        device: torch.device,
        cancelled: Callable[[], bool] | None = None,
        timings_ms: Mapping[str, float] | None = None,
    ):
        """Start from the times of earlier steps, if any.

        Args:
            device: Device that computes; a step ends when it has finished.
            cancelled: Returns true once the result is no longer wanted.
            timings_ms: Times to start from; they are copied.
        """
        self._device = device
        self._cancelled = cancelled
        self.timings_ms = dict(timings_ms or {})

    def check(self) -> None:
        """Raise CancelledError if the caller has cancelled."""
        if self._cancelled is not None and self._cancelled():
            raise CancelledError('the caller no longer wants this result')

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Add the duration of the `with` block to `timings_ms[name]`; checks for cancellation first."""
        self.check()
        start = time.perf_counter()
        yield
        if self._device.type == 'cuda':
            torch.cuda.synchronize(self._device)
        self.timings_ms[name] = self.timings_ms.get(name, 0.0) + (time.perf_counter() - start) * 1e3

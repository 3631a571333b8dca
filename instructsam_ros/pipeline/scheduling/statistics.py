"""Counters and step times of the pipeline, for the node's diagnostics."""

import threading
import time
from collections import deque
from typing import NamedTuple

import numpy as np

WINDOW = 500  # latest samples of a step that its percentiles are computed from


class Percentiles(NamedTuple):
    """Median and 95th percentile of a step's time, ms."""

    p50: float
    p95: float


class Statistics:
    """Totals since the start of the node.

    Each number is written by one thread only, unless noted, and may be read by any.
    """

    def __init__(self) -> None:
        self.results = 0  # published results, errors included
        self.errors = 0  # published results with STATUS_ERROR
        self.tracked_results = 0  # published on ~/tracked/instances
        self.superseded = 0  # answers that a new instruction or a stop cancelled
        self.goals = {'succeeded': 0, 'aborted': 0, 'canceled': 0}  # ended goals of the action
        self.last_error = ''  # error of the latest result; '' if it is not an error
        self.last_latency_s: float | None = None  # from the image stamp to the publication of the latest result
        self.last_result_s: float | None = None  # time.monotonic() of the latest result
        self.bugs = 0  # unhandled errors in callbacks, tasks and the model's thread
        self.last_bug = ''  # the latest of them
        self.last_bug_s = float('-inf')  # time.monotonic() of the latest of them
        self._samples_ms: dict[str, deque[float]] = {}
        self._lock = threading.Lock()

    def count_result(self, error: str, latency_s: float | None) -> None:
        """Count one published result.

        Args:
            error: '' if it is not an error.
            latency_s: Time from the image's stamp to the publication; None if the stamp is not set.
        """
        self.results += 1
        self.errors += bool(error)
        self.last_error = error
        self.last_latency_s = latency_s
        self.last_result_s = time.monotonic()

    def count_goal(self, state: str) -> None:
        """Count one ended goal; `state` is succeeded, aborted or canceled."""
        self.goals[state] += 1

    def count_bug(self, text: str) -> None:
        """Count one unhandled error; may be called by any thread."""
        with self._lock:
            self.bugs += 1
            self.last_bug = text
            self.last_bug_s = time.monotonic()

    def add_time(self, step: str, ms: float) -> None:
        """Add one sample of the time that `step` took."""
        with self._lock:
            self._samples_ms.setdefault(step, deque(maxlen=WINDOW)).append(ms)

    def percentiles(self) -> dict[str, Percentiles]:
        """Return the percentiles of every step over its latest WINDOW samples."""
        with self._lock:
            samples_ms = {step: list(values) for step, values in self._samples_ms.items()}
        return {step: Percentiles(*np.percentile(values, (50, 95))) for step, values in samples_ms.items()}

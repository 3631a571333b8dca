"""The default runner: rows of one stage in one process, with bounded concurrency, in order, resumable at any instant.

asyncio waits for the VLM; functions that compute run in threads. Rows are written in the order of the input, whatever
finishes first, so that one worker and eight write the same file.
"""

from __future__ import annotations

import asyncio
import inspect
import threading
import time
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from instructsam.core.errors import InstructSAMError, StorageError
from instructsam.core.text import shorten
from instructsam.train.data_engine.rows import Row
from instructsam.train.data_engine.runners.store import StageFile
from instructsam.train.vlm.budget import BudgetSpent

AHEAD = 4
"""Rows that may be under way or done for each worker while the oldest one is awaited."""

LEAST_RESULTS = 20
"""Results in the window below which no share of errors is computed."""


class TooManyErrors(InstructSAMError):  # noqa: N818
    """Most of the last rows failed; the run can be resumed."""


@dataclass(frozen=True)
class RunSettings:
    """Settings of a run that do not change its rows."""

    workers: int = 8  # rows at the same time in a stage that reads images or asks a VLM (see also vlm.concurrency)
    error_share: float = 0.5  # share of failed rows within the window above which the run stops
    error_window_s: float = 180.0

    def __post_init__(self) -> None:
        if not 1 <= self.workers <= 1024:
            raise ValueError(f'workers must be from 1 to 1024, got {self.workers}')
        if not 0 < self.error_share <= 1 or not 1 <= self.error_window_s <= 86400:
            raise ValueError(
                f'error_share must be above 0 and at most 1, error_window_s from 1 to 86400, got {self.error_share} '
                f'and {self.error_window_s}'
            )


class ErrorWindow:
    """Share of errors among the results of the last seconds.

    Args:
        share: Share above which `add` raises.
        window_s: Length of the window.
        clock: Monotonic time, s.
    """

    def __init__(self, share: float, window_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._share = share
        self._window_s = window_s
        self._clock = clock
        self._results: deque[tuple[float, bool]] = deque()
        self._failed = 0

    def add(self, *, failed: bool, reason: object = '') -> None:
        """Count a result. Raises TooManyErrors if it is an error and the share is exceeded."""
        now = self._clock()
        self._results.append((now, failed))
        self._failed += failed
        while self._results[0][0] < now - self._window_s:
            self._failed -= self._results.popleft()[1]
        count = len(self._results)
        if failed and count >= LEAST_RESULTS and self._failed > self._share * count:
            raise TooManyErrors(
                f'{self._failed} of the last {count} rows failed, the last one because {shorten(reason)}: correct the '
                f'cause and run the same command again, which resumes'
            )


Function = Callable[[Any], Row] | Callable[[Any], Awaitable[Row]]
Close = Callable[[], Awaitable[None]]


def run_stage(
    function: Function,
    rows: Iterable[Any],
    file: StageFile,
    settings: RunSettings,
    *,
    workers: int | None = None,
    in_order: Callable[[Row], Row] | None = None,
    close: Close | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> Iterator[Row | InstructSAMError]:
    """Put rows through a stage and append the results to its file; yield each result, or the error of a row.

    A row that fails is not written, so that the next run tries it again.

    Args:
        function: The stage, blocking or async. Blocking ones are called in threads.
        rows: Its inputs (rows, or candidates of stage images) that the file does not have yet, in their order.
        file: File of the stage.
        settings: Settings of the run.
        workers: Rows at the same time; None: those of the settings.
        in_order: Last step of the stage, which is called on one row after the other.
        close: Called at the end in the event loop of the stage, to close connections.
        clock: Monotonic time, s.

    Raises:
        BudgetSpent: The budget is used up; the rows that were under way are finished and written.
        TooManyErrors: The share of errors is too high.
        VlmError: Every further row would fail.
        StorageError: The file cannot be written.
    """
    stop = threading.Event()
    results = _mapped(function, rows, workers or settings.workers, stop.is_set)
    with _Loop(results, close) as loop:
        yield from write_results(loop, file, settings, in_order=in_order, stop=stop.set, clock=clock)


def write_results(
    results: Iterable[Row | BaseException],
    file: StageFile,
    settings: RunSettings,
    *,
    in_order: Callable[[Row], Row] | None = None,
    stop: Callable[[], None] = lambda: None,
    clock: Callable[[], float] = time.monotonic,
) -> Iterator[Row | InstructSAMError]:
    """Append the results of a stage to its file, whatever ran it; yield them, and raise, as `run_stage` does.

    Args:
        results: Rows and exceptions, in the order of the inputs.
        file: File of the stage.
        settings: Settings of the run.
        in_order: Last step of the stage, which is called on one row after the other.
        stop: Called when the budget is used up: no further input is to be taken.
        clock: Monotonic time, s.
    """
    window = ErrorWindow(settings.error_share, settings.error_window_s, clock)
    spent: BudgetSpent | None = None
    for result in results:
        if isinstance(result, Row):
            row = result if in_order is None else in_order(result)
            file.add(row)
            window.add(failed=False)
            yield row
        elif isinstance(result, BudgetSpent):
            spent = spent or result
            stop()
        elif isinstance(result, InstructSAMError) and not isinstance(result, StorageError):
            if getattr(result, 'is_final', False):
                raise result
            yield result
            window.add(failed=True, reason=result)
        else:
            raise result
    if spent is not None:
        raise spent


async def _mapped(
    function: Function, rows: Iterable[Any], workers: int, is_stopped: Callable[[], bool]
) -> AsyncGenerator[Row | BaseException, None]:
    """Yield function(row), or its exception, for every row, in the order of `rows`."""
    source = iter(rows)
    slots = asyncio.Semaphore(workers)
    waiting: deque[asyncio.Task[Row]] = deque()
    with ThreadPoolExecutor(workers) as pool:
        loop = asyncio.get_running_loop()

        async def call(row: Any) -> Row:
            async with slots:
                if is_async(function):
                    return await function(row)  # type: ignore[misc]
                return await loop.run_in_executor(pool, function, row)  # type: ignore[arg-type]

        try:
            while True:
                while len(waiting) < AHEAD * workers and not is_stopped():
                    row = next(source, None)
                    if row is None:
                        break
                    waiting.append(loop.create_task(call(row)))
                if not waiting:
                    return
                (result,) = await asyncio.gather(waiting[0], return_exceptions=True)
                waiting.popleft()
                yield result
        finally:
            for task in waiting:
                task.cancel()
            await asyncio.gather(*waiting, return_exceptions=True)


def is_async(function: Function) -> bool:
    """Return whether a stage is a coroutine function."""
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(getattr(function, '__call__', None))  # noqa: B004


class _Loop:
    """An event loop as a plain iterator: the results of an asynchronous generator, one at a time.

    Between two of them the loop stands still for as long as the caller takes, which is the writing of a line.
    """

    def __init__(self, generator: AsyncGenerator[Row | BaseException, None], close: Close | None) -> None:
        self._generator = generator
        self._close = close
        self._loop = asyncio.new_event_loop()

    def __enter__(self) -> _Loop:
        return self

    def __iter__(self) -> Iterator[Row | BaseException]:
        while True:
            task = self._loop.create_task(self._next())
            try:
                result = self._loop.run_until_complete(task)
            finally:
                if not task.done():  # a signal's exception ended the wait
                    task.cancel()
                    self._loop.run_until_complete(asyncio.gather(task, return_exceptions=True))
            if result is None:
                return
            yield result

    async def _next(self) -> Row | BaseException | None:
        return await anext(self._generator, None)

    def __exit__(self, *_: object) -> None:
        try:
            self._loop.run_until_complete(self._generator.aclose())
            if self._close is not None:
                self._loop.run_until_complete(self._close())
            self._loop.run_until_complete(self._loop.shutdown_default_executor())
        finally:
            self._loop.close()

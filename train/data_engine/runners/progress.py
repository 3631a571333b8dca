"""Progress of a stage: rows, rate, time left and failures, as a bar on a terminal and as lines elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Iterator

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from instructsam.core.errors import InstructSAMError
from instructsam.train.data_engine.rows import Row

LINE_S = 15.0
"""Time between two lines where stderr is not a terminal."""

Result = Row | InstructSAMError


def with_progress(
    results: Iterable[Result],
    total: int,
    title: str,
    *,
    is_terminal: bool | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> Iterator[Result]:
    """Yield the results of a stage unchanged while their number is shown on stderr.

    Args:
        results: Rows and errors.
        total: Number of results to come.
        title: Name of the stage.
        is_terminal: Draw a bar; None: if stderr is a terminal.
        clock: Monotonic time, s.
    """
    if is_terminal if is_terminal is not None else sys.stderr.isatty():
        yield from _with_bar(results, total, title)
        return
    start = shown = clock()
    failed = number = 0
    for number, result in enumerate(results, start=1):
        failed += not isinstance(result, Row)
        now = clock()
        if now - shown >= LINE_S:
            shown = now
            print(progress_line(title, number, total, failed, now - start), file=sys.stderr)
        yield result
    if number:
        print(progress_line(title, number, total, failed, clock() - start), file=sys.stderr)


def progress_line(title: str, number: int, total: int, failed: int, seconds: float) -> str:
    """Return one line: rows, rate, time left and failures."""
    rate = number / max(seconds, 1e-9)
    text = f'{title}: {number:,} of {total:,} rows, {rate:,.3g}/s'
    if number < total:
        minutes, left = divmod(round((total - number) / max(rate, 1e-9)), 60)
        hours, minutes = divmod(minutes, 60)
        text += f', {hours}:{minutes:02}:{left:02} left'
    return text + (f', {failed:,} failed' if failed else '')


def _with_bar(results: Iterable[Result], total: int, title: str) -> Iterator[Result]:
    columns = (
        TextColumn('{task.description}'),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn('{task.fields[rate]}'),
        TimeRemainingColumn(),
    )
    failed, start = 0, time.monotonic()
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task(title, total=total, rate='')
        for number, result in enumerate(results, start=1):
            failed += not isinstance(result, Row)
            rate = f'{number / max(time.monotonic() - start, 1e-9):,.3g}/s' + (f' failed {failed}' if failed else '')
            bar.update(task, advance=1, rate=rate)
            yield result

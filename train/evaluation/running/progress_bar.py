"""Shows how far a run is: a bar with the figures so far, on a terminal."""

import sys

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from instructsam.train.evaluation.figures.summary import compare


def watch(title, threshold, empty):
    """A function that yields outcomes on and shows a bar meanwhile, for running.answer."""

    def track(outcomes, scenes):
        if not sys.stderr.isatty():
            yield from outcomes
            return
        ious, failed = [], 0
        columns = (TextColumn('{task.description}'), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        with Progress(*columns, console=Console(stderr=True)) as progress:
            bar = progress.add_task(title, total=scenes)
            for outcome in outcomes:
                failed += bool(outcome.error)
                if not outcome.error:
                    ious.append(compare(outcome, threshold).iou(empty))
                text = f'{title} n {len(ious)} gIoU {100 * np.mean(ious or [np.nan]):.1f}'
                _, number, of = outcome.order
                progress.update(
                    bar, advance=number == of - 1, description=text + (f' failed {failed}' if failed else '')
                )
                yield outcome

    return track

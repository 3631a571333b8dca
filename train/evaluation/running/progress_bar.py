"""Progress bar of a run on a terminal, with the figures so far."""

import sys
from collections.abc import Iterable, Iterator

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from instructsam.train.evaluation.figures.summary import match_outcome
from instructsam.train.evaluation.query import Outcome


def with_progress_bar(
    outcomes: Iterable[Outcome], num_images: int, *, title: str, threshold: float, empty: float
) -> Iterator[Outcome]:
    """Yield `outcomes` unchanged while a bar shows the images done and the mean IoU so far.

    Args:
        outcomes: Outcomes in the order of their images.
        num_images: Number of images to come.
        title: Text before the bar.
        threshold: Instances that score above it count as predictions.
        empty: IoU of a query with neither a target nor a prediction.
    """
    if not sys.stderr.isatty():
        yield from outcomes
        return
    ious: list[float] = []
    num_failed = 0
    columns = (TextColumn('{task.description}'), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as progress:
        task = progress.add_task(title, total=num_images)
        for outcome in outcomes:
            if outcome.error:
                num_failed += 1
            else:
                ious.append(match_outcome(outcome, threshold).union_iou(empty))
            description = f'{title} n {len(ious)} gIoU {100 * np.mean(ious or [np.nan]):.1f}'
            if num_failed:
                description += f' failed {num_failed}'
            is_last_of_image = outcome.order.query == outcome.order.queries - 1
            progress.update(task, advance=is_last_of_image, description=description)
            yield outcome

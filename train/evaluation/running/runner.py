"""Runs a benchmark into a run's folder, alone or as one of torchrun's processes; a second call resumes a stopped run.

Process R of W takes every W-th image, starting with the R-th: each query is asked once, and which images a process
takes does not depend on earlier results. Each process handles one image at a time on one thread (or GPU), so that the
figures do not depend on the number of processes.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from instructsam.core.stop_signals import resume_hint
from instructsam.train.evaluation.query import Outcome
from instructsam.train.evaluation.running.prompting import PromptOptions, QueryEngine, answer_image
from instructsam.train.evaluation.running.run_folder import ResultWriter, read_run
from instructsam.train.evaluation.running.sources import FileSource, Source
from instructsam.train.vlm.budget import BudgetSpent

BARRIER_TIMEOUT = timedelta(days=7)  # longest time that the fastest process waits for the slowest one


@dataclass(frozen=True)
class Process:
    """The rank of this process among those that torchrun started."""

    rank: int = 0
    world_size: int = 1
    local_rank: int = 0

    @classmethod
    def from_environment(cls) -> Process:
        """Read torchrun's environment variables; without them this is the only process."""
        environ = os.environ
        return cls(int(environ.get('RANK', 0)), int(environ.get('WORLD_SIZE', 1)), int(environ.get('LOCAL_RANK', 0)))

    def sum_of_all(self, number: int) -> int:
        """Return the sum of the numbers with which all processes call this, once the last one has called it."""
        if self.world_size == 1:
            return number
        dist.init_process_group('gloo', timeout=BARRIER_TIMEOUT)
        total = torch.tensor(number)
        dist.all_reduce(total)
        dist.destroy_process_group()
        return int(total)


def run_benchmark(
    load_engine: Callable[[], QueryEngine],
    source: Source,
    options: PromptOptions,
    folder: Path,
    header: dict[str, Any],
    process: Process,
    track: Callable[[Iterable[Outcome], int], Iterable[Outcome]],
) -> int:
    """Answer all queries that have no result in `folder` yet, and wait until all processes are done.

    Queries that failed in an earlier call are asked again. If an agent's budget is used up, the rest is left.

    Args:
        load_engine: Loads the engine; called only if there is a query to ask.
        source: The images with their queries.
        options: How the queries are put.
        folder: The run's folder.
        header: The settings of the run, which must be those of the results in `folder`.
        process: This process.
        track: Passes the outcomes on as they arrive, e.g. to show the progress; gets the number of images, too.

    Returns:
        The number of images that all processes have left.

    Raises:
        OtherSettingsError: The folder holds another run, or one of other images.
        FolderInUseError: Another process writes the run.
        StorageError: The folder cannot be written.
    """
    hint = resume_hint(lambda: f'the same command resumes (see {folder})')
    with ResultWriter(folder, process.rank, header) as writer, hint:
        outcomes = read_run(folder, header).outcomes
        if isinstance(source, FileSource):
            source.check_images(outcomes)
        answered = _answered_queries(outcomes)
        own = range(process.rank, len(source), process.world_size)
        pending = [index for index in own if index not in answered or not answered[index].is_complete]
        if answered:
            print(f'{folder} has results on {len(own) - len(pending)} of {len(own)} images already', file=sys.stderr)
        left, last = len(pending), None
        if pending:
            try:
                for outcome in track(_outcomes(load_engine, source, pending, options, answered), len(pending)):
                    writer.add(outcome)
                    last = outcome
                left = 0
            except BudgetSpent as error:
                if last is not None:
                    is_done = last.order.query == last.order.queries - 1
                    left -= pending.index(last.order.image) + is_done
                print(f'stopped: {error}. The same command then resumes the run', file=sys.stderr)
    return process.sum_of_all(left)


@dataclass
class _AnsweredQueries:
    """The queries about one image that have a result."""

    indices: set[int]
    total: int  # number of queries about the image

    @property
    def is_complete(self) -> bool:
        return len(self.indices) == self.total


def _answered_queries(outcomes: Iterable[Outcome]) -> dict[int, _AnsweredQueries]:
    """Return the answered queries by the index of their image."""
    answered = {}
    for outcome in outcomes:
        if not outcome.error:
            entry = answered.setdefault(outcome.order.image, _AnsweredQueries(set(), outcome.order.queries))
            entry.indices.add(outcome.order.query)
    return answered


def _outcomes(
    load_engine: Callable[[], QueryEngine],
    source: Source,
    indices: Collection[int],
    options: PromptOptions,
    answered: dict[int, _AnsweredQueries],
) -> Iterator[Outcome]:
    engine = None
    for index, image in source.open(indices):
        if not image.queries:  # such a scene has no results: it is drawn again when the run is
            continue
        engine = engine or options.engine_for(load_engine())
        skip = answered[index].indices if index in answered else frozenset()
        yield from answer_image(engine, index, image, options, skip)

"""The runner on Ray Data: the same functions in actors, for clusters and mixed pools of CPUs and GPUs.

The data set holds the orders of rows alone: actors read the rows from the file of the stage before, and the process
that started the run appends the results to the file of the stage. So the folder of the run, and the images, have to be
seen by all machines under the same paths. Rows, their order and resuming are those of the local runner.
"""

from __future__ import annotations

import asyncio
import pickle
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import ray.data  # pyright: ignore[reportMissingImports]  # of the extra engine-ray

from instructsam.core.errors import InstructSAMError
from instructsam.core.ray_session import find_gpus, start_ray
from instructsam.train.data_engine.images.sources import list_candidates
from instructsam.train.data_engine.recipe import EngineRecipe
from instructsam.train.data_engine.rows import STAGES, Row, from_json, to_json
from instructsam.train.data_engine.runners.local import is_async, write_results
from instructsam.train.data_engine.runners.store import StageFile
from instructsam.train.data_engine.stages import make_stage
from instructsam.train.vlm.budget import Budget, BudgetSpent

BATCH = 16
"""Rows of a batch: of a VLM they are asked at the same time, as far as `vlm.concurrency` allows."""


def run_stage_on_ray(
    recipe: EngineRecipe,
    stage: str,
    orders: Sequence[int],
    file: StageFile,
    budget: Budget,
    *,
    in_order: Callable[[Row], Row] | None = None,
) -> Iterator[Row | InstructSAMError]:
    """Put rows through a stage on Ray and append the results to its file; as `runners.local.run_stage` does.

    The budget is counted when rows come back: the batches under way when it is used up exceed it, and calls whose reply
    was not usable are not counted.

    Args:
        recipe: The recipe.
        stage: One of STAGES.
        orders: Orders of the rows that the file lacks.
        file: File of the stage.
        budget: Spent by the rows that come back.
        in_order: Last step of the stage, which is called on one row after the other.

    Raises:
        InstructSAMError: There are too few GPUs; and as `runners.local.run_stage` does.
    """
    settings = recipe.ray
    start_ray(settings.address)
    context = ray.data.DataContext.get_current()
    context.execution_options.preserve_order = True
    context.enable_progress_bars = False
    uses_model = stage == 'masks' or (stage == 'filter' and recipe.verify.opinion_model)
    actors = settings.model_actors if uses_model else settings.actors
    if uses_model:
        find_gpus(settings.gpus_per_actor, 'ray.gpus_per_actor')
    data = ray.data.from_items([{'order': order} for order in orders], override_num_blocks=-(-len(orders) // BATCH))
    results = data.map_batches(
        StageActor,
        fn_constructor_args=(_with_whole_paths(recipe), stage),
        batch_size=BATCH,
        compute=ray.data.ActorPoolStrategy(size=min(actors, -(-len(orders) // BATCH))),
        num_cpus=settings.cpus_per_actor,
        num_gpus=settings.gpus_per_actor if uses_model else 0,
    )
    yield from write_results(_paid(results.iter_rows(), stage, budget), file, recipe.run, in_order=in_order)


class StageActor:
    """A stage in a process of Ray: a batch of orders in, a batch of rows or errors out."""

    def __init__(self, recipe: EngineRecipe, stage: str) -> None:
        self._stage = make_stage(recipe, stage, None, None)
        self._loop = asyncio.new_event_loop()
        if stage == STAGES[0]:
            self._read: Callable[[int], Any] = list_candidates(recipe.sources).__getitem__
        else:
            before = STAGES[STAGES.index(stage) - 1]
            self._read = StageFile(Path(recipe.output) / f'{before}.jsonl').read

    def __call__(self, batch: dict[str, Any]) -> dict[str, list[bytes]]:
        """Return `row`, the row as JSON, or `error`, the exception, of each order of a batch."""
        inputs = [self._read(int(order)) for order in batch['order']]
        results = self._loop.run_until_complete(self._call_all(inputs))
        return {
            'row': [to_json(each) if isinstance(each, Row) else b'' for each in results],
            'error': [b'' if isinstance(each, Row) else pickle.dumps(each) for each in results],
        }

    async def _call_all(self, inputs: Sequence[Any]) -> list[Row | BaseException]:
        function: Any = self._stage.function
        if is_async(function):
            calls = (function(each) for each in inputs)
        else:
            calls = (asyncio.to_thread(function, each) for each in inputs)
        return await asyncio.gather(*calls, return_exceptions=True)


def _paid(rows: Iterable[dict[str, Any]], stage: str, budget: Budget) -> Iterator[Row | BaseException]:
    """Yield rows and errors, and spend the budget on the calls of the stage; end when it is used up."""
    for each in rows:
        if each['error']:
            yield pickle.loads(each['error'])
            continue
        row = from_json(each['row'])
        yield row
        for record in (each for each in row.stages if each.stage == stage):
            try:
                for _ in range(record.calls):
                    budget.take_call()
            except BudgetSpent as error:
                yield error
                return
            budget.add(record.prompt_tokens, record.completion_tokens)


def _with_whole_paths(recipe: EngineRecipe) -> EngineRecipe:
    """Return the recipe with whole paths, as processes of Ray have another working folder."""

    def whole(path: str) -> str:
        return str(Path(path).absolute()) if path else ''

    sources = tuple(
        replace(each, images=whole(each.images), videos=whole(each.videos), coco=whole(each.coco))
        for each in recipe.sources
    )
    model, opinion = (
        whole(name) if name and Path(name).is_dir() else name
        for name in (recipe.masks.model, recipe.verify.opinion_model)
    )
    return replace(
        recipe,
        output=whole(recipe.output),
        sources=sources,
        masks=replace(recipe.masks, model=model),
        verify=replace(recipe.verify, opinion_model=opinion),
    )

"""A run of the data engine: the stages of a recipe over the files in its folder, by the local runner."""

from __future__ import annotations

import asyncio
import hashlib
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from instructsam.core import builtin, exit_codes
from instructsam.core.errors import InstructSAMError
from instructsam.core.folder_lock import FolderLock
from instructsam.core.run_settings import model_fingerprint
from instructsam.core.stop_signals import resume_hint
from instructsam.core.storage import explained_storage_faults
from instructsam.core.text import one_line
from instructsam.train.data_engine import objects, questions, verify
from instructsam.train.data_engine.filters.rules import rejections_by_rule
from instructsam.train.data_engine.images.inspection import NearDuplicates
from instructsam.train.data_engine.images.sources import Candidate, list_candidates
from instructsam.train.data_engine.probe import probe_convention
from instructsam.train.data_engine.recipe import EngineRecipe, stage_settings
from instructsam.train.data_engine.rows import STAGES, Row
from instructsam.train.data_engine.runners.local import run_stage
from instructsam.train.data_engine.runners.progress import with_progress
from instructsam.train.data_engine.runners.store import StageFile
from instructsam.train.data_engine.stages import make_stage
from instructsam.train.vlm.budget import Budget, BudgetSpent
from instructsam.train.vlm.cache import ReplyCache
from instructsam.train.vlm.client import VlmClient
from instructsam.train.vlm.spending import SpendingFile

CACHE = 'replies.sqlite'
SPENDING = 'spending.json'
SHOWN_FAILURES = 20


@dataclass
class Outcome:
    """Counts of the stages of one call.

    Attributes:
        done: Rows that were written.
        failed: Rows that failed; the next call tries them again.
        left: Rows that were not tried.
    """

    done: int = 0
    failed: int = 0
    left: int = 0

    @property
    def exit_code(self) -> int:
        """The exit code of the command."""
        if self.failed and not self.done:
            return exit_codes.FAILED
        return exit_codes.SOME_FAILED if self.failed or self.left else exit_codes.DONE


def run_stages(recipe: EngineRecipe, stages: Sequence[str], *, redo: bool = False, ray: bool = False) -> Outcome:
    """Run some stages in their order; a budget that is used up ends them.

    Args:
        recipe: The recipe.
        stages: Some of STAGES.
        redo: Recompute the rows of the first stage, and so of all later ones.
        ray: Run them on Ray Data instead of in this process.

    Raises:
        InstructSAMError: The sources, the models, the endpoint or the folder cannot be used.
        StorageError: A file cannot be written.
        FolderInUseError: Another process is running in the folder.
    """
    folder = Path(recipe.output)
    _check_models(recipe, stages)
    with FolderLock(folder), resume_hint(lambda: f'the same command resumes the run in {folder}'):
        if redo:
            with explained_storage_faults(folder):
                for stage in STAGES[STAGES.index(stages[0]) :]:
                    (folder / f'{stage}.jsonl').unlink(missing_ok=True)
        with _Run(recipe, folder, ray) as run:
            run.run(stages)
            return run.outcome


def _check_models(recipe: EngineRecipe, stages: Sequence[str]) -> None:
    """Raise ModelError if a model of a later stage is not there: before the calls of the stages before are paid."""
    if 'masks' in stages:
        builtin.folder(recipe.masks.model_name, recipe.masks.revision)
    if 'filter' in stages and recipe.verify.opinion_model:
        builtin.folder(recipe.verify.opinion_model)


@dataclass
class _Run:
    """One call of the command, which holds the folder's lock."""

    recipe: EngineRecipe
    folder: Path
    ray: bool
    outcome: Outcome = field(default_factory=Outcome)

    def __enter__(self) -> _Run:
        self.spending = SpendingFile(self.folder / SPENDING)
        self.budget = Budget(self.recipe.budget, self.spending.read())
        self.cache = ReplyCache(self.folder / CACHE)
        return self

    def __exit__(self, *_: object) -> None:
        self.cache.close()
        self.spending.save(self.budget, now=True)

    def run(self, stages: Sequence[str]) -> None:
        """Run the stages."""
        try:
            for stage in stages:
                self.run_stage(stage)
        except BudgetSpent as error:
            print(f'stopped: {error}. The same command then resumes the run', file=sys.stderr)
        if (spent := self.budget.spent).calls:
            price = f', {self.budget.money:,.2f} in money' if self.budget.money else ''
            print(f'spent on the run so far: {spent.calls:,} calls, {spent.tokens:,} tokens{price}', file=sys.stderr)

    def run_stage(self, stage: str) -> None:
        """Run one stage on the rows that its file lacks."""
        with self._inputs(stage) as (inputs, header), StageFile(self.folder / f'{stage}.jsonl', header) as file:
            missing = [number for number in inputs if number not in file]
            if not missing:
                print(f'{stage}: all {len(file):,} rows are there', file=sys.stderr)
                return
            done = failed = 0
            try:
                results = self._results(stage, inputs, missing, file)
                for result in with_progress(results, len(missing), stage):
                    self.spending.save(self.budget)
                    if isinstance(result, Row):
                        done += 1
                        continue
                    failed += 1
                    if failed <= SHOWN_FAILURES:
                        more = ' (further failures are only counted)' if failed == SHOWN_FAILURES else ''
                        print(f'{stage}: a row failed: {one_line(result)}{more}', file=sys.stderr)
            finally:
                self.outcome.done += done
                self.outcome.failed += failed
                self.outcome.left += len(missing) - done - failed
                if failed:
                    print(f'{stage}: {failed:,} rows failed; the same command tries them again', file=sys.stderr)
            if stage == 'filter':
                _print_rejections(file)

    def _results(
        self, stage: str, inputs: _Inputs, missing: Sequence[int], file: StageFile
    ) -> Iterator[Row | InstructSAMError]:
        """Run a stage on the inputs that its file lacks, by the runner that was asked for."""
        recipe, in_order = self.recipe, None
        if stage == 'images':
            in_order = NearDuplicates(recipe.images.duplicate_bits)
            for row in file:
                in_order.add(row)
        if stage == 'objects' and recipe.objects.probe:
            asyncio.run(self._probe())
        if self.ray:
            from instructsam.train.data_engine.runners.ray_data import run_stage_on_ray  # noqa: PLC0415

            return run_stage_on_ray(recipe, stage, missing, file, self.budget, in_order=in_order)
        made = make_stage(recipe, stage, self.cache, self.budget)
        rows = (inputs[number] for number in missing)
        return run_stage(
            made.function, rows, file, recipe.run, workers=made.workers, in_order=in_order, close=made.close
        )

    @contextmanager
    def _inputs(self, stage: str) -> Iterator[tuple[_Inputs, dict[str, Any]]]:
        """Yield the inputs of a stage by order, and the header of its file: that of the stage before and its own."""
        own = {stage: {**stage_settings(self.recipe, stage), **self._hashes(stage)}}
        if stage == STAGES[0]:
            candidates = list_candidates(self.recipe.sources)
            names = json.dumps([(each.source.name, each.origin) for each in candidates])
            own[stage]['names'] = hashlib.sha256(names.encode()).hexdigest()[:16]
            yield _Inputs({each.order: each for each in candidates}.__getitem__, range(len(candidates))), own
            return
        before = STAGES[STAGES.index(stage) - 1]
        with StageFile(self.folder / f'{before}.jsonl') as file:
            yield _Inputs(file.read, file.orders()), {**(file.header or {}), **own}

    def _hashes(self, stage: str) -> dict[str, Any]:
        """Return the hashes of a stage's prompts and model, for the header of its file."""
        recipe = self.recipe
        if stage == 'questions':
            return {'prompts': questions.PROMPTS}
        if stage == 'objects':
            return {'prompts': objects.prompts(objects.CONVENTIONS[recipe.objects.convention])}
        if stage == 'masks':
            return {
                'model_hash': model_fingerprint(Path(builtin.folder(recipe.masks.model_name, recipe.masks.revision)))
            }
        if stage == 'filter':
            asks, name = recipe.verify.round_trip or recipe.verify.exhaustive, recipe.verify.opinion_model
            model = {'opinion_hash': model_fingerprint(Path(builtin.folder(name)))} if name else {}
            return {**({'prompts': verify.PROMPTS} if asks else {}), **model}
        return {}

    async def _probe(self) -> None:
        """Check the convention of the VLM's boxes; replies do not come from the cache, as the server may be another."""
        client = VlmClient(self.recipe.vlm, None, self.budget)
        try:
            iou = await probe_convention(client, self.recipe.objects)
        finally:
            await client.aclose()
        name = self.recipe.objects.convention
        print(f'objects: the boxes fit the convention {name!r} (mean IoU {iou:.2f} on drawn shapes)', file=sys.stderr)


@dataclass(frozen=True)
class _Inputs:
    """Inputs of a stage by their order, read when they are needed."""

    read: Callable[[int], Row | Candidate]
    orders: Sequence[int]

    def __iter__(self) -> Iterator[int]:
        return iter(self.orders)

    def __getitem__(self, order: int) -> Any:
        return self.read(order)


def _print_rejections(file: StageFile) -> None:
    """Print the table of rejections by rule."""
    counts = rejections_by_rule(file)
    for rule, count in counts.items():
        print(f'{count:10,}  {rule}', file=sys.stderr)

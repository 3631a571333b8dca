"""The stages of a recipe as functions that are ready to run, with their clients and models."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from instructsam.core.engine import InstructSAM
from instructsam.train.data_engine import filtering, objects, questions, verify
from instructsam.train.data_engine.images.files import ImageFiles
from instructsam.train.data_engine.images.inspection import InspectImages
from instructsam.train.data_engine.masks.concept import ConceptMasks
from instructsam.train.data_engine.masks.prompted import PromptedMasks
from instructsam.train.data_engine.masks.stage import SegmentObjects
from instructsam.train.data_engine.recipe import EngineRecipe
from instructsam.train.data_engine.runners.local import Close, Function
from instructsam.train.engines.concept import ConceptEngine
from instructsam.train.vlm.budget import Budget
from instructsam.train.vlm.cache import ReplyCache
from instructsam.train.vlm.client import VlmClient

MASK_WORKERS = 2
"""Rows at the same time in stage masks: one uses the model, the other one reads its picture."""


@dataclass(frozen=True)
class Stage:
    """A stage that is ready to run.

    Attributes:
        function: The stage, see runners.local.
        workers: Rows at the same time; None: those of the recipe.
        close: Closes connections, in the event loop of the stage.
    """

    function: Function
    workers: int | None = None
    close: Close | None = None


def make_stage(recipe: EngineRecipe, stage: str, cache: ReplyCache | None, budget: Budget | None) -> Stage:
    """Return a stage of a recipe, with its model loaded.

    Args:
        recipe: The recipe.
        stage: One of rows.STAGES.
        cache: Replies of the VLM that are known.
        budget: Spent by its calls.

    Raises:
        ModelError: A model cannot be loaded.
    """
    folder = Path(recipe.output)
    read = ImageFiles(folder, recipe.sources, recipe.images.max_megapixels).read
    if stage == 'images':
        return Stage(InspectImages(folder, recipe.images))
    if stage == 'masks':
        settings = recipe.masks
        where = (settings.model_name, settings.device, settings.dtype, settings.revision)
        backend = ConceptMasks(*where) if settings.backend == 'concept' else PromptedMasks(settings.backend, *where)
        return Stage(SegmentObjects(backend, settings.model_name, read), workers=MASK_WORKERS)
    if stage == 'filter':
        checks = recipe.verify
        vlm = checks.vlm or recipe.vlm
        client = VlmClient(vlm, cache, budget) if checks.round_trip or checks.exhaustive else None
        finder = _load_finder(recipe) if checks.opinion_model else None
        rules = filtering.FilterSettings(recipe.filter, finder is not None, checks.round_trip, checks.exhaustive)
        function = filtering.FilterAnswers(rules, client, vlm.model, finder, read)
        return Stage(function, close=None if client is None else client.aclose)
    client = VlmClient(recipe.vlm, cache, budget)
    if stage == 'questions':
        return Stage(questions.AskQuestions(client, recipe.vlm.model, recipe.questions, read), close=client.aclose)
    return Stage(objects.AskObjects(client, recipe.vlm.model, recipe.objects, read), close=client.aclose)


def _load_finder(recipe: EngineRecipe) -> verify.EngineFinder:
    engine = InstructSAM.from_pretrained(recipe.verify.opinion_model, recipe.verify.opinion_device)
    return verify.EngineFinder(ConceptEngine.from_engine(engine))

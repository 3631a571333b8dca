"""Recipes of the data engine: one YAML file whose keys are all known; the dataclasses document them.

API keys are not part of a recipe: `vlm.key_variable` names the environment variable that holds one.
"""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from instructsam.core.errors import InstructSAMError
from instructsam.core.text import shorten
from instructsam.train.data_engine.filters.thresholds import Thresholds
from instructsam.train.data_engine.images.inspection import ImageSettings
from instructsam.train.data_engine.images.sources import Source
from instructsam.train.data_engine.objects import ObjectSettings
from instructsam.train.data_engine.questions import QuestionSettings
from instructsam.train.data_engine.runners.local import RunSettings
from instructsam.train.loop.recipe import build, read_yaml
from instructsam.train.vlm.budget import BudgetSettings
from instructsam.train.vlm.settings import VlmSettings

BACKENDS = {  # name of a backend of masks -> default model
    'sam2': 'facebook/sam2.1-hiera-large',
    'sam3-tracker': 'facebook/sam3',
    'concept': 'tabletop',
}


@dataclass(frozen=True)
class MaskSettings:
    """Settings of stage masks."""

    backend: str = 'sam2'  # sam2 (as in the paper), sam3-tracker, or concept: the phrase's mask that fits the box best
    model: str = ''  # model folder, hub id or built-in model; empty: the backend's default
    revision: str = ''  # commit, tag or branch of a hub id; empty: its main branch
    device: str = 'auto'
    dtype: str = 'auto'

    def __post_init__(self) -> None:
        if self.backend not in BACKENDS:
            raise ValueError(f'backend must be one of {", ".join(BACKENDS)}, got {shorten(repr(self.backend))}')

    @property
    def model_name(self) -> str:
        """The model, or the backend's default."""
        return self.model or BACKENDS[self.backend]


@dataclass(frozen=True)
class VerifySettings:
    """Checks of stage filter by other models; without them, the rules on their findings have nothing to reject."""

    opinion_model: str = ''  # model whose concept prompting gives a second opinion; empty: none
    opinion_device: str = 'auto'
    round_trip: bool = False  # the VLM answers the question with the numbers of the masks
    exhaustive: bool = False  # the VLM says whether a target lacks a mask
    vlm: VlmSettings | None = None  # another VLM than the one that annotates; None: the same


@dataclass(frozen=True)
class ExportSettings:
    """Settings of the export."""

    negatives: bool = False  # questions about something absent are training samples, too (the paper has none)
    max_targets: int = 10  # most targets of a question: the number of slots K
    validation_share: float = 0.02  # share of the images, and videos, that become validation.json
    leave_out: tuple[str, ...] = ()  # names of sources or licence tags that are not exported
    copy_images: bool = False  # copy pictures instead of linking to them
    samples: int = 60  # pictures on the page of samples

    def __post_init__(self) -> None:
        if not 0 <= self.validation_share <= 1 or not 1 <= self.max_targets <= 1000 or not 0 <= self.samples <= 10_000:
            raise ValueError(
                f'validation_share must be from 0 to 1, max_targets from 1 to 1000, samples from 0 to 10000, got '
                f'{self.validation_share}, {self.max_targets} and {self.samples}'
            )


@dataclass(frozen=True)
class RaySettings:
    """Settings of `--ray`, which do not change the rows."""

    address: str = ''  # of a cluster, such as ray://HOST:10001; empty: that of RAY_ADDRESS, or this machine
    actors: int = 4  # processes that read images or ask the VLM
    cpus_per_actor: float = 0.5  # CPUs of each process, as Ray counts them: most of the time it waits
    model_actors: int = 1  # processes that use a model: stage masks, and filter with an opinion_model
    gpus_per_actor: float = 1.0  # GPUs of each of them; 0: none

    def __post_init__(self) -> None:
        if not 1 <= self.actors <= 10_000 or not 1 <= self.model_actors <= 10_000:
            raise ValueError(f'actors must be from 1 to 10000, got {self.actors} and {self.model_actors}')
        for name in ('cpus_per_actor', 'gpus_per_actor'):
            if not 0 <= getattr(self, name) <= 64:
                raise ValueError(f'{name} must be from 0 to 64, got {getattr(self, name)}')


@dataclass(frozen=True)
class EngineRecipe:
    """A run of the data engine. Paths are relative to the folder that the command runs in."""

    output: str  # folder of the run: rows of every stage, cache of replies, export
    sources: tuple[Source, ...]
    vlm: VlmSettings  # the annotator
    images: ImageSettings = field(default_factory=ImageSettings)
    questions: QuestionSettings = field(default_factory=QuestionSettings)
    objects: ObjectSettings = field(default_factory=ObjectSettings)
    masks: MaskSettings = field(default_factory=MaskSettings)
    filter: Thresholds = field(default_factory=Thresholds)
    verify: VerifySettings = field(default_factory=VerifySettings)
    export: ExportSettings = field(default_factory=ExportSettings)
    budget: BudgetSettings = field(default_factory=BudgetSettings)
    run: RunSettings = field(default_factory=RunSettings)
    ray: RaySettings = field(default_factory=RaySettings)

    def __post_init__(self) -> None:
        if not self.sources:
            raise ValueError('sources is empty: give at least one folder of images or videos')
        names = [source.name for source in self.sources]
        if repeated := {name for name in names if names.count(name) > 1}:
            raise ValueError(f'two sources have the name {shorten(sorted(repeated)[0])!r}: names are unique')
        if not self.output.strip():
            raise ValueError('output is empty: give the folder of the run')
        for source in self.sources:
            if not source.images or source.coco:
                continue
            if Path(os.path.realpath(self.output)).is_relative_to(os.path.realpath(source.images)):
                raise ValueError(
                    f'output {shorten(self.output)!r} is in the folder of the source {source.name!r}, which would list '
                    f'the images of the run as its own: give a folder elsewhere'
                )


def read_recipe(path: str | Path) -> EngineRecipe:
    """Return the recipe in a YAML file.

    Raises:
        RecipeError: The file, a key or a value cannot be used; the message names it.
    """
    return build(EngineRecipe, read_yaml(path), str(path))


def stage_settings(recipe: EngineRecipe, stage: str) -> dict[str, Any]:
    """Return the settings that decide the rows of a stage, apart from those of earlier stages, hashes and models.

    Addresses, devices and limits of time are not among them.
    """
    if stage == 'images':
        kept = ('name', 'every_s', 'licence')
        sources = [{name: value for name, value in asdict(each).items() if name in kept} for each in recipe.sources]
        return {'sources': sources, **asdict(recipe.images)}
    if stage == 'questions':
        return {**asdict(recipe.questions), 'vlm': recipe.vlm.header()}
    if stage == 'objects':
        settings = recipe.objects
        return {'convention': settings.convention, 'max_side': settings.max_side, 'vlm': recipe.vlm.header()}
    if stage == 'masks':
        return {'backend': recipe.masks.backend, 'model': recipe.masks.model_name, 'dtype': recipe.masks.dtype}
    verify = recipe.verify
    checks = {'opinion_model': verify.opinion_model, 'round_trip': verify.round_trip, 'exhaustive': verify.exhaustive}
    asks = verify.round_trip or verify.exhaustive
    return {**asdict(recipe.filter), **checks, 'vlm': (verify.vlm or recipe.vlm).header() if asks else {}}


def check_names(recipe: EngineRecipe) -> None:
    """Raise InstructSAMError if `export.leave_out` names neither a source nor a licence tag of the recipe."""
    known = {value for source in recipe.sources for value in (source.name, source.licence)}
    has_coco = any(source.coco and not source.licence for source in recipe.sources)  # whose file states licences
    if not has_coco and (unknown := [name for name in recipe.export.leave_out if name not in known]):
        raise InstructSAMError(
            f'export.leave_out names {shorten(unknown[0])!r}, which is neither a source nor a licence of the recipe'
        )

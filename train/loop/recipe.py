"""Training recipes: one YAML file whose keys are all known; the command line changes values as key=value.

The dataclasses below document all keys. They are read here rather than with OmegaConf or draccus so that
every error is one line that names the file and the key, and so that a recipe can be checked without importing torch.
"""

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

from instructsam.core.errors import InstructSAMError
from instructsam.core.files import yaml_file
from instructsam.core.files.yaml_file import YamlError, parse_yaml
from instructsam.core.text import shorten
from instructsam.train.data.augmentation import Augmentation
from instructsam.train.stages.settings import STAGE_NAMES, BaseSettings, InstructSettings, PixelsSettings
from instructsam.train.weights.lora_limits import MAX_RANK, MODULE

TRAINING_DTYPES = ('float32', 'bfloat16')

LARGEST = 2**31 - 1
"""Largest whole number of a recipe."""

RANGES = {  # names -> smallest and largest value
    ('batch_size', 'accumulation', 'phrases_per_call', 'log_every', 'save_every', 'keep'): (1, LARGEST),
    ('validation_samples',): (1, LARGEST),
    ('seed', 'steps', 'max_phrases', 'max_pixels', 'evaluate_every'): (0, LARGEST),
    ('workers',): (0, 1024),
    ('epochs', 'muon', 'weight_decay', 'clip_norm'): (0, 10**9),
    ('warmup_ratio',): (0, 0.999),  # transformers takes 1 for a number of steps
    ('max_broken_share',): (0, 1),
    ('ema',): (0, 0.99999),
}

T = TypeVar('T')


class RecipeError(InstructSAMError, ValueError):
    """A recipe that cannot be used; the message names the key."""


@dataclass(frozen=True)
class LearningRates:
    """Learning rate of each part of the model; 0 freezes it."""

    language: float = 0.0  # language model, or its LoRA matrices
    vision: float = 0.0  # Qwen's vision blocks
    projector: float = 0.0  # Qwen's mergers
    decoder: float = 0.0  # bridge, query bank, reference boxes, and SAM3 except for its image encoder
    image_encoder: float = 0.0  # SAM3's image encoder
    trunk: float = 0.0  # the pretrained trunk of both encoders, in a model that has one
    heads: float = 0.0  # auxiliary heads, which only training uses
    slots: float = 0.0  # query bank and reference boxes, if not that of decoder

    def __post_init__(self) -> None:
        _check_ranges(self, {tuple(each.name for each in fields(self)): (0, 1000)})


@dataclass(frozen=True)
class Lora:
    """Low-rank matrices on the language model's attention, trained instead of its own weights (peft's LoraConfig)."""

    rank: int = 64
    alpha: int = 16
    dropout: float = 0.05
    targets: tuple[str, ...] = ('q_proj', 'k_proj', 'v_proj', 'o_proj')
    embeddings: bool = True  # also train the token embeddings, and so the tied head
    merge: bool = False  # add the matrices to the final model's weights; false: store them apart, for `train merge`

    def __post_init__(self) -> None:
        _check_ranges(self, {('rank',): (1, MAX_RANK), ('alpha',): (1, 2**16), ('dropout',): (0, 0.99)})
        if wrong := [name for name in self.targets if not MODULE.fullmatch(name)]:
            raise RecipeError(f'targets must be names of modules such as q_proj, got {shorten(repr(wrong[0]))}')


@dataclass(frozen=True)
class Recipe:
    """One stage of training. Paths are relative to the folder that the command runs in."""

    stage: str  # one of pixels, base, instruct
    model: str  # model folder or built-in model to start from
    output: str  # folder of the run: checkpoints, logs, and the final model in `final`
    data: tuple[dict[str, Any], ...]  # mixing list: annotations, images, repeat

    pixels: PixelsSettings | None = None  # settings of stage pixels only
    base: BaseSettings | None = None  # settings of stage base only
    instruct: InstructSettings | None = None  # settings of stage instruct only

    revision: str = ''  # commit, tag or branch of a model from the hub; empty: its main branch
    augmentation: Augmentation | None = None  # random changes of the images of `data`, not of `validation`
    validation: tuple[dict[str, Any], ...] = ()  # mixing list of held-out samples
    validation_samples: int = 64  # largest number of held-out samples used, evenly spaced
    initialise: bool = False  # draw all weights from the seed, except for those of a pretrained trunk
    seed: int = 0

    steps: int = 0  # number of optimizer steps; 0: given by `epochs`
    epochs: float = 1.0
    batch_size: int = 1  # samples per process and forward pass
    accumulation: int = 1  # forward passes per optimizer step
    learning_rates: LearningRates = field(default_factory=LearningRates)
    weight_decay: float = 0.0
    muon: float = 0.0  # train matrices of layers with Muon, at this multiple of their part's learning rate; 0: AdamW
    betas: tuple[float, float] = (0.9, 0.999)
    warmup_ratio: float = 0.03
    schedule: str = 'cosine'  # learning rate schedule, any of transformers' SchedulerType
    clip_norm: float = 1.0
    ema: float = 0.0  # decay of the average of the weights that becomes the final model; 0: the last weights
    lora: Lora | None = None
    dtype: str = 'float32'  # float32, or bfloat16 for autocast

    branches: bool = False  # the turns of a sample do not see each other, as if each were alone with the image
    max_phrases: int = 0  # phrases of a sample that reach the detector, chosen at random; 0: all
    max_pixels: int = 0  # largest image in Qwen's encoder, if less than the model folder's limit; 0: the folder's
    phrases_per_call: int = 5  # phrases that share one detector call; bounds memory
    max_broken_share: float = 0.01  # share of broken records above which the run stops

    workers: int = 0  # number of processes that read data
    log_every: int = 10  # steps between log entries
    save_every: int = 500  # steps between checkpoints
    keep: int = 2  # number of latest checkpoints to keep
    evaluate_every: int = 0  # steps between evaluations; 0: only at the end
    # Any other transformers.TrainingArguments, such as fsdp and deepspeed.
    trainer: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.stage not in STAGE_NAMES:
            raise RecipeError(f'stage must be one of {", ".join(STAGE_NAMES)}, got {shorten(repr(self.stage))}')
        for name in STAGE_NAMES:
            if name != self.stage and getattr(self, name) is not None:
                raise RecipeError(f'the section {name} is for stage {name}, and this recipe is for stage {self.stage}')
        if not self.data:
            raise RecipeError('data is empty: give a mixing list of annotations, images and repeat')
        _check_ranges(self, RANGES)
        if not self.steps and not self.epochs:
            raise RecipeError('steps and epochs are both 0: give one of them')
        if self.dtype not in TRAINING_DTYPES:
            raise RecipeError(f'dtype must be one of {", ".join(TRAINING_DTYPES)}, got {shorten(repr(self.dtype))}')
        if not all(0 <= beta < 1 for beta in self.betas):
            raise RecipeError(f'betas must be from 0 to less than 1, got {list(self.betas)}')
        if self.lora is not None and not self.learning_rates.language:
            raise RecipeError('lora needs a learning rate under learning_rates.language')
        if self.ema and (self.trainer.get('fsdp') or self.trainer.get('deepspeed')):
            raise RecipeError('ema needs whole weights in every process: set it to 0 with trainer.fsdp or deepspeed')
        if self.muon and (self.trainer.get('fsdp') or self.trainer.get('deepspeed')):
            raise RecipeError('muon needs whole matrices in every process: set it to 0 with trainer.fsdp or deepspeed')
        if 'save_total_limit' in self.trainer:
            raise RecipeError('trainer.save_total_limit has no effect: set keep, the number of checkpoints')
        try:
            json.dumps(self.trainer, allow_nan=False)  # as the run's record needs it
        except (TypeError, ValueError) as error:
            raise RecipeError(f'trainer has a value that JSON lacks ({error}): put quotes around a date') from error


def _check_ranges(section: object, ranges: Mapping[tuple[str, ...], tuple[float, float]]) -> None:
    """Raise RecipeError if a number of a section is outside its range; both ends are included."""
    for names, (low, high) in ranges.items():
        for name in names:
            if not low <= getattr(section, name) <= high:
                raise RecipeError(f'{name} must be from {low} to {high}, got {getattr(section, name)}')


def read_recipe(path: str | Path, overrides: Iterable[str] = ()) -> Recipe:
    """Return the recipe in a YAML file.

    Args:
        path: The file.
        overrides: Values to change, such as "learning_rates.decoder=1e-4".

    Raises:
        RecipeError: If the file or a value cannot be used.
    """
    raw = read_yaml(path)
    for override in overrides:
        key, separator, value = override.partition('=')
        if not separator:
            raise RecipeError(f'{shorten(repr(override))} is not of the form key=value')
        try:
            _set(raw, key, parse_yaml(value, shorten(repr(override))))
        except YamlError as error:
            raise RecipeError(str(error)) from error
    return build(Recipe, raw, str(path))


def read_yaml(path: str | Path) -> dict[str, Any]:
    """Return the mapping in a YAML file.

    Raises:
        RecipeError: If the file cannot be read or is not a mapping.
    """
    try:
        raw = yaml_file.read_yaml(path)
    except YamlError as error:
        raise RecipeError(str(error)) from error
    if not isinstance(raw, dict):
        raise RecipeError(f'{path} is not a mapping of keys')
    return raw


def _set(raw: dict[str, Any], path: str, value: Any) -> None:
    """Set the value under a dotted key."""
    *parents, last = path.split('.')
    for key in parents:
        if raw.get(key) is None:
            raw[key] = {}
        raw = raw[key]
        if not isinstance(raw, dict):
            raise RecipeError(f'{path}: {key} is not a mapping of keys')
    raw[last] = value


def build(cls: type[T], raw: Mapping[str, Any], where: str) -> T:
    """Return an instance of a dataclass from a mapping.

    Numbers such as 1e-4, which YAML reads as text, are converted.

    Args:
        cls: The dataclass.
        raw: Values by field name.
        where: Description of the mapping, for error messages.

    Raises:
        RecipeError: If a key is unknown or a value does not fit.
    """
    types = get_type_hints(cls)
    known = [each.name for each in fields(cls)]  # pyright: ignore[reportArgumentType]  # cls is a dataclass
    unknown = sorted(str(name) for name in raw if name not in known)
    if unknown:
        raise RecipeError(f'{where} has unknown keys: {shorten(", ".join(unknown))}. Known: {", ".join(known)}')
    values = {name: _converted(types[name], value, f'{where}: {name}') for name, value in raw.items()}
    try:
        return cls(**values)
    except RecipeError:
        raise
    except (TypeError, ValueError) as error:
        raise RecipeError(f'{where}: {error}') from error


def _converted(annotation: Any, value: Any, where: str) -> Any:
    """Return `value` as the annotated type of its field."""
    options = get_args(annotation) if isinstance(annotation, UnionType) else (annotation,)
    if value is None and NoneType in options:
        return None
    cls = options[0]
    if is_dataclass(cls):
        if not isinstance(value, dict):
            raise RecipeError(f'{where} must be a mapping of keys, got {shorten(repr(value))}')
        return build(cls, value, where)  # pyright: ignore[reportArgumentType]  # is_dataclass: a class, not an instance
    if get_origin(cls) is tuple:
        item, *more = get_args(cls)
        if not isinstance(value, list) or (more != [Ellipsis] and len(value) != 1 + len(more)):
            count = '' if more == [Ellipsis] else f' of {1 + len(more)}'
            raise RecipeError(f'{where} must be a list{count}, got {shorten(repr(value))}')
        return tuple(_converted(item, each, f'{where}[{number}]') for number, each in enumerate(value))
    return _scalar(cls, value, where)


def _scalar(annotation: Any, value: Any, where: str) -> Any:
    cls = get_origin(annotation) or annotation  # dict[str, Any] -> dict
    if cls is float and not isinstance(value, bool):
        try:
            number = float(value)
        except (TypeError, ValueError, OverflowError):
            pass
        else:
            if math.isfinite(number):
                return number
    elif type(value) is cls:
        return value
    expected = 'a finite number' if cls is float else f'of type {cls.__name__}'
    raise RecipeError(f'{where} must be {expected}, got {shorten(repr(value))}')

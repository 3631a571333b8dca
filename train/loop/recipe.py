"""A training recipe: one YAML file, every key of it known, values changed on the command line as key=value."""

from dataclasses import dataclass, field, fields, is_dataclass, replace
from pathlib import Path
from types import NoneType, UnionType
from typing import get_args, get_origin

import yaml

from instructsam.core.errors import InstructSAMError
from instructsam.train.losses.mask_losses import Objective

STAGES = ('pixels', 'base', 'instruct')
DTYPES = ('float32', 'bfloat16')
PRESENCE = ('one', 'soft_dice')
MODES = ('consistent', 'causal', 'autoregressive')


class RecipeError(InstructSAMError, ValueError):
    """A recipe that cannot be used; the message names the key."""


@dataclass(frozen=True)
class Rates:
    """Learning rate of each part; 0 freezes it."""

    language: float = 0.0  # the language model, or its LoRA matrices
    vision: float = 0.0  # Qwen's vision blocks
    projector: float = 0.0  # Qwen's mergers
    decoder: float = 0.0  # bridge, query bank, SAM3 but for its image encoder
    image_encoder: float = 0.0  # SAM3's
    heads: float = 0.0  # what only training uses


@dataclass(frozen=True)
class Lora:
    """Low-rank matrices on the language model's attention, in the place of its own weights (peft's LoraConfig)."""

    rank: int = 64
    alpha: int = 16
    dropout: float = 0.05
    targets: tuple[str, ...] = ('q_proj', 'k_proj', 'v_proj', 'o_proj')
    embeddings: bool = True  # the token embeddings (and so the tied head) are trained beside it
    merge: bool = False  # the final model gets them added to its weights; else they lie beside, for `train merge`


@dataclass(frozen=True)
class Heads:
    """What training adds to the model and an earlier run left, where the run right before this one did not train it."""

    folder: str  # final folder of the earlier run
    names: tuple[str, ...]  # what the parameters' names start with


@dataclass(frozen=True)
class Recipe:
    """One stage of training. Paths are relative to where the command runs."""

    stage: str  # pixels | base | instruct
    model: str  # folder or built-in model to start from
    output: str  # folder of the run: checkpoints, logs, the final model in `final`
    data: tuple[dict, ...]  # mixing list: annotations, images, repeat
    scenes: tuple[dict, ...] = ()  # stage base: the same, of *_scenes.jsonl files; what the pixels of `data` show
    validation: tuple[dict, ...] = ()  # the same as `data`, for evaluations
    validation_samples: int = 64  # of them, spread evenly, at most
    heads: Heads | None = None  # beside those in the folder of `model`
    initialise: bool = False  # draw all weights anew from the seed
    seed: int = 0
    steps: int = 0  # optimizer steps; 0: `epochs` decides
    epochs: float = 1.0
    batch_size: int = 1  # samples of one process in one forward pass
    accumulation: int = 1  # forward passes a step
    rates: Rates = field(default_factory=Rates)
    weight_decay: float = 0.0
    muon: float = 0.0  # rate of matrices in layers, in the rates above, which then learn by Muon; 0: all by AdamW
    betas: tuple[float, float] = (0.9, 0.999)
    warmup_ratio: float = 0.03
    schedule: str = 'cosine'  # any of transformers' SchedulerType
    clip_norm: float = 1.0
    lora: Lora | None = None
    objective: Objective = field(default_factory=Objective)
    mode: str = 'consistent'  # of the queries; for ablation: causal, or autoregressive (no query bank)
    layers: bool = False  # stages 1 and 2: losses on every detector layer, as in the base stage
    prepare: bool = False  # stage base: make a detector that has learned nothing ready for it, see initialise
    masks: bool = True  # stage base; false: the detector learns boxes alone, at a fraction of the cost
    pointing: float = 0.0  # stages base and instruct with layers: weight of the language model's own grounding
    zoom: float = 0.0  # stage pixels: share of the pictures that are shown in part, around an object
    branches: bool = False  # the turns of a sample do not see each other, as if each were alone with the image
    max_phrases: int = 0  # phrases of a sample that reach the detector, chosen at random; 0: all
    max_pixels: int = 0  # of an image in Qwen's encoder, where that is less than the model folder's; 0: the folder's
    phrases_per_call: int = 5  # phrases that share one detector call; bounds memory
    dtype: str = 'float32'  # or bfloat16: autocast
    workers: int = 0  # processes that read data
    log_every: int = 10
    save_every: int = 500
    keep: int = 2  # checkpoints
    evaluate_every: int = 0  # 0: only at the end
    max_broken_share: float = 0.01  # of records, before the run stops
    trainer: dict = field(default_factory=dict)  # any other transformers.TrainingArguments (fsdp, deepspeed, ...)

    def __post_init__(self):
        if self.stage not in STAGES:
            raise RecipeError(f'stage is one of {", ".join(STAGES)}, got {self.stage!r}')
        if not self.data:
            raise RecipeError('data is empty: give a mixing list of annotations, images and repeat')
        for name in ('batch_size', 'accumulation', 'phrases_per_call', 'log_every', 'save_every', 'keep'):
            if getattr(self, name) < 1:
                raise RecipeError(f'{name} is 1 or more, got {getattr(self, name)}')
        if self.dtype not in DTYPES:
            raise RecipeError(f'dtype is one of {", ".join(DTYPES)}, got {self.dtype!r}')
        if self.objective.presence_target not in PRESENCE:
            known = ', '.join(PRESENCE)
            raise RecipeError(f'objective.presence_target is one of {known}, got {self.objective.presence_target!r}')
        counted = replace(self.objective, presence_loss=1.0, presence_target='one')
        if self.layers and counted != Objective():
            raise RecipeError('with layers, of objective only presence_loss and presence_target count: drop the rest')
        if self.mode not in MODES:
            raise RecipeError(f'mode is one of {", ".join(MODES)}, got {self.mode!r}')
        if self.mode != 'consistent' and self.stage != 'instruct':
            raise RecipeError(f'mode {self.mode} is for stage instruct, not for {self.stage}')
        if self.pointing and not (self.stage == 'base' or self.layers):
            raise RecipeError('pointing is for stage base, or for stage instruct with layers')
        if self.prepare and self.stage != 'base':
            raise RecipeError('prepare is for stage base')
        if not self.masks and self.stage != 'base':
            raise RecipeError('masks is for stage base: without it the detector learns boxes alone')
        if self.lora is not None and (self.lora.rank < 1 or not self.rates.language):
            raise RecipeError('lora wants a rank of 1 or more and a rate under rates.language')


def read_recipe(path, overrides=()):
    """The Recipe in the YAML file `path`, with `overrides` ("rates.decoder=1e-4") applied. Raises RecipeError."""
    raw = read_yaml(path)
    for override in overrides:
        key, found, value = override.partition('=')
        if not found:
            raise RecipeError(f'{override!r} is not of the form key=value')
        try:
            _put(raw, key.split('.'), yaml.safe_load(value), key)
        except yaml.YAMLError as error:
            raise RecipeError(f'{override!r}: {" ".join(str(error).split())}') from error
    return build(Recipe, raw, str(path))


def read_yaml(path):
    """The keys in a YAML file. Raises RecipeError."""
    try:
        raw = yaml.safe_load(Path(path).read_text(encoding='utf-8'))
    except OSError as error:
        raise RecipeError(f'{path} cannot be read: {error.strerror}') from error
    except yaml.YAMLError as error:
        raise RecipeError(f'{path} is no YAML: {" ".join(str(error).split())}') from error
    except UnicodeDecodeError as error:
        raise RecipeError(f'{path} is no text: {error}') from error
    if not isinstance(raw, dict):
        raise RecipeError(f'{path} holds no keys')
    return raw


def _put(raw, keys, value, name):
    for key in keys[:-1]:
        raw = raw.setdefault(key, {})
        if not isinstance(raw, dict):
            raise RecipeError(f'{name}: {key} holds no keys')
    raw[keys[-1]] = value


def build(kind, raw, where):
    """An instance of the dataclass `kind` from a mapping; numbers like 1e-4, which YAML reads as text, are numbers."""
    known = {each.name: each for each in fields(kind)}
    unknown = sorted(str(name) for name in raw if name not in known)
    if unknown:
        raise RecipeError(f'{where} has unknown keys: {", ".join(unknown)}. Known: {", ".join(known)}')
    values = {}
    for name, value in raw.items():
        values[name] = _value(known[name], value, f'{where}: {name}')
    try:
        return kind(**values)
    except TypeError as error:
        raise RecipeError(f'{where}: {error}') from error


def _value(spec, value, where):
    kinds = get_args(spec.type) if isinstance(spec.type, UnionType) else (spec.type,)
    if value is None and NoneType in kinds:
        return None
    kind = kinds[0]
    if is_dataclass(kind):
        if not isinstance(value, dict):
            raise RecipeError(f'{where} holds keys, got {value!r}')
        return build(kind, value, where)
    if get_origin(kind) is tuple:
        of, *more = get_args(kind)
        if not isinstance(value, list) or (more != [Ellipsis] and len(value) != 1 + len(more)):
            count = '' if more == [Ellipsis] else f' of {1 + len(more)}'
            raise RecipeError(f'{where} is a list{count}, got {value!r}')
        return tuple(_scalar(of, each, f'{where}[{number}]') for number, each in enumerate(value))
    return _scalar(kind, value, where)


def _scalar(kind, value, where):
    if kind is float and not isinstance(value, bool):
        try:
            return float(value)
        except (TypeError, ValueError):
            pass
    elif type(value) is kind:
        return value
    raise RecipeError(f'{where} is {"a number" if kind is float else f"of type {kind.__name__}"}, got {value!r}')

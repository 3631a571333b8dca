"""The recipe's sections that belong to one stage each, importable without torch."""

from dataclasses import dataclass, field
from typing import Any

from instructsam.train.losses.objective import Objective
from instructsam.train.modes import AUTOREGRESSIVE

STAGE_NAMES = ('pixels', 'base', 'instruct')
"""Names of the stages in recipes, and of their sections; stage.STAGES implements them."""

TRAINING_MODES = ('consistent', 'causal', AUTOREGRESSIVE)
"""Modes that a model can be trained in; all but the first are ablations."""


@dataclass(frozen=True)
class PixelsSettings:
    """Stage pixels: dense pretraining of both image encoders."""

    random_crop: float = 0.0  # share of the images that are cropped around an object


@dataclass(frozen=True)
class BaseSettings:
    """Stage base: pretraining of the language model and the detector of a small model."""

    scenes: tuple[dict[str, Any], ...] = ()  # mixing list of *_scenes.jsonl files: dense labels of the images in `data`
    prepare: bool = False  # make an untrained detector ready to learn from trained features, see prepare_detector
    masks: bool = True  # false: the detector learns boxes alone, at a fraction of the cost
    pointing: float = 0.0  # weight of the language model's own grounding, see losses.pointing
    short_phrases: float = 0.0  # as in InstructSettings; such phrases train the slots of the language model alone
    dummy_phrases: float = 0.0  # as in InstructSettings
    concise: bool = False  # as in InstructSettings

    def __post_init__(self) -> None:
        _check_shares(self)


@dataclass(frozen=True)
class InstructSettings:
    """Stage instruct: stages 1 and 2 of the paper."""

    objective: Objective = field(default_factory=Objective)
    mode: str = 'consistent'  # one of TRAINING_MODES
    deep_supervision: bool = False  # losses on every detector layer, as in stage base, instead of the published ones
    pointing: float = 0.0  # weight of losses.pointing, the language model's own grounding; needs deep_supervision
    short_phrases: float = 0.0  # probability of each shorter form of a phrase in SAM3; needs deep_supervision
    dummy_phrases: float = 0.0  # share of the answers that are given, each of their phrases as "object"
    concise: bool = False  # the answers have the concise form of each phrase, for records that have one

    def __post_init__(self) -> None:
        if self.mode not in TRAINING_MODES:
            raise ValueError(f'mode must be one of {", ".join(TRAINING_MODES)}, got {self.mode!r}')
        used = Objective(presence_loss=self.objective.presence_loss, presence_target=self.objective.presence_target)
        if self.deep_supervision and self.objective != used:
            raise ValueError(
                'with deep_supervision, only presence_loss and presence_target of objective have an effect: '
                'remove its other keys'
            )
        for name in ('pointing', 'short_phrases'):
            if getattr(self, name) and not self.deep_supervision:
                raise ValueError(f'{name} needs deep_supervision')
        _check_shares(self)


def _check_shares(settings: BaseSettings | InstructSettings) -> None:
    for name in ('short_phrases', 'dummy_phrases'):
        value = getattr(settings, name)
        if not 0 <= value <= 1:
            raise ValueError(f'{name} must be from 0 to 1, got {value}')

"""State of one conversation of the agent: immutable, and complete without the image's pixels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from instructsam.core.errors import InstructSAMError
from instructsam.core.rle import Rle

MAX_MARKS = 100
"""Most masks that are shown and can be selected."""

FINISH_REASONS = ('stop', 'round_budget', 'repair_budget', 'time_budget')
"""`Answer.finish_reason`: by a tool, or by one of the limits."""


@dataclass(frozen=True, eq=False)
class Mark:
    """A mask with its score; its number is its place in `AgentState.marks`, from 1."""

    mask: Rle
    score: float  # 0 to 1


@dataclass(frozen=True, eq=False)
class MarkSet:
    """The masks of one phrase, best score first."""

    phrase: str
    marks: tuple[Mark, ...]


@dataclass(frozen=True)
class Limits:
    """Limits of one query. The paper's agent has 100 rounds and no others."""

    rounds: int = 12  # replies of the model, checks of single masks not counted
    repairs: int = 3  # replies that cannot be used
    seconds: float = 300.0

    def __post_init__(self) -> None:
        """Raise InstructSAMError if a limit is out of range."""
        if not (self.rounds >= 1 and self.repairs >= 0 and 0 < self.seconds < float('inf')):
            raise InstructSAMError(f'limits of the agent are at least one round, no repair and more than 0 s: {self}')


DEFAULT_LIMITS = Limits()


@dataclass(frozen=True, eq=False)
class Turn:
    """A message after the first one: a reply of the model, or a result."""

    role: Literal['assistant', 'user']
    text: str
    marks: tuple[Mark, ...] = ()  # shown in the image of the message, if there are any
    is_repair: bool = False  # about a reply that cannot be used


@dataclass(frozen=True, eq=False)
class AgentState:
    """All that the next message depends on."""

    query: str
    height: int  # px
    width: int  # px
    limits: Limits = DEFAULT_LIMITS
    marks: tuple[Mark, ...] = ()  # that can be selected, as numbered in the newest image; best score first
    sets: tuple[MarkSet, ...] = ()  # masks of all phrases that found some, without rejected ones; newest last
    phrases: tuple[str, ...] = ()  # used until now, in order
    turns: tuple[Turn, ...] = ()  # after the first message, as far as they are still sent
    rounds: int = 0
    repairs: int = 0


@dataclass(frozen=True)
class ToolCall:
    """A call that was parsed, but not checked against the state."""

    name: str
    parameters: Mapping[str, Any]
    text: str  # the reply up to the end of the call, as it stays in the conversation


@dataclass(frozen=True)
class Fault:
    """A reply that cannot be used: its kind, for statistics, and the message to the model."""

    kind: str
    message: str


@dataclass(frozen=True)
class SegmentRequest:
    """The masks of this phrase are needed; `tools.add_masks` continues."""

    state: AgentState
    phrase: str


@dataclass(frozen=True)
class CheckRequest:
    """A verdict on each mark is needed; `tools.keep_accepted` continues."""

    state: AgentState


@dataclass(frozen=True, eq=False)
class Answer:
    """The end of a conversation."""

    marks: tuple[Mark, ...]
    finish_reason: str  # one of FINISH_REASONS
    phrase: str = ''  # of the masks; empty if there are none

"""Result of one instruction on one image: instances with masks, and the same as JSON."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from instructsam.core.rle import Rle

if TYPE_CHECKING:
    from instructsam.core.spatial.geometry import Geometry

UNTRACKED = -1
STEPS = ('image_encoders', 'prefill', 'generation', 'detector', 'masks')
"""Keys of `Result.timings_ms`, in the order in which the engine runs them."""


@dataclass(frozen=True)
class Instance:
    """One object. Immutable; the full-resolution mask is kept as run lengths only."""

    mask: Rle  # at the source image's size; mask.decode() returns [H, W] bool
    score: float  # sigmoid of SAM3's dot-product scoring logit, 0 to 1
    phrase: str  # noun phrase of the answer that the object belongs to
    slot: int | None  # index of the query in the bank, 0 to K - 1; None in a result that was read from a message
    group: int = 0  # index of the phrase in the answer
    geometry: Geometry | None = None  # position and size, if the object was located in a depth image
    geometry_message: str = ''  # human-readable reason why it could not be located, if there was a depth image
    track_id: int = UNTRACKED  # stays the same for one object over time, see spatial.tracking.Tracker

    @property
    def box(self) -> tuple[int, int, int, int]:
        """Tight box of the mask, (x0, y0, x1, y1) px of the source image, x1 and y1 exclusive."""
        return self.mask.box

    def to_json(self) -> dict[str, Any]:
        """Return a dict of plain types; the mask as COCO's compressed RLE, the box as [x0, y0, x1, y1] px."""
        document: dict[str, Any] = {
            'score': round(self.score, 6),
            'box': list(self.box),
            'phrase': self.phrase,
            'slot': self.slot,
            'group': self.group,
            'segmentation': self.mask.to_coco(),
        }
        if self.geometry is not None:
            document['geometry'] = self.geometry.to_json()
        return document


@dataclass(frozen=True)
class Result:
    """The answer to one instruction on one image."""

    instruction: str
    answer: str  # the language model's text without tags
    height: int  # source image, px
    width: int  # source image, px
    instances: tuple[Instance, ...]  # highest score first
    phrases: tuple[str, ...] = ()  # one per group, in the order of the answer
    # stop | token_budget | time_budget | forced; the agent's: round_budget, repair_budget; of a failed message: error
    finish_reason: str = 'stop'
    warning: str = ''  # human-readable limits of the model
    model: str = ''  # name of the model, as it was loaded
    revision: str = ''  # commit of a model from the hub
    timings_ms: dict[str, float] = field(default_factory=dict[str, float])  # keys: STEPS
    usage: dict[str, int] = field(default_factory=dict[str, int])  # calls and tokens of a model behind an endpoint

    @property
    def status(self) -> str:
        """'ok' if an object was found, 'no_target' if nothing matches, 'error' if it failed or a limit ended it."""
        if self.instances:
            return 'ok'
        if self.finish_reason == 'error':
            return 'error'
        return 'error' if self.ended_by and not self.phrases else 'no_target'

    @property
    def ended_by(self) -> str:
        """Human-readable limit that ended the answer, such as 'ended by the time budget'; '' if none did."""
        if self.finish_reason in ('stop', 'forced', 'error'):
            return ''
        return f'ended by the {self.finish_reason.replace("_", " ")}'

    def to_json(self) -> dict[str, Any]:
        """Return a dict of plain types; see `Instance.to_json`."""
        document = {
            'status': self.status,
            'instruction': self.instruction,
            'answer': self.answer,
            'phrases': list(self.phrases),
            'finish_reason': self.finish_reason,
            'warning': self.warning,
            'model': self.model,
            'revision': self.revision,
            'height': self.height,
            'width': self.width,
            'instances': [instance.to_json() for instance in self.instances],
            'timings_ms': {step: round(ms, 3) for step, ms in self.timings_ms.items()},
        }
        return document | {'usage': self.usage} if self.usage else document

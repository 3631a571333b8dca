"""What a caller gets back: a `Result` with its instances, and the same as JSON."""

from dataclasses import dataclass, field

from instructsam.core.rle import Rle

UNTRACKED = -1
STAGES = ('image_encoders', 'prefill', 'generation', 'detector', 'masks')


@dataclass(frozen=True)
class Instance:
    """One object. Immutable; the full-resolution mask is kept as run lengths only."""

    mask: Rle  # at the source image's size; mask.decode() gives [H, W] bool
    score: float  # sigmoid of SAM3's dot-product scoring logit, 0 to 1
    phrase: str  # the noun phrase of the answer that this object belongs to
    slot: int  # index of the query in the bank, 0 to K - 1
    group: int = 0  # index of the phrase in the answer
    geometry: object = None  # a geometry.Geometry where depth was measured
    geometry_message: str = ''  # for a person: why it could not be, though there was a depth image
    track_id: int = UNTRACKED  # the same for the same object over time, see tracking.Tracker

    @property
    def box(self):
        """Tight box of the mask, (x0, y0, x1, y1) px of the source image, x1 and y1 exclusive."""
        return self.mask.box


@dataclass(frozen=True)
class Result:
    """The answer to one instruction on one image."""

    instruction: str
    answer: str  # the language model's text, tags removed
    height: int  # source image, px
    width: int  # source image, px
    instances: tuple[Instance, ...]  # highest score first
    phrases: tuple[str, ...] = ()  # one a group, in the order of the answer
    finish_reason: str = 'stop'  # stop | token_budget | time_budget | forced
    warning: str = ''  # for a person; what the model is not made for
    timings_ms: dict[str, float] = field(default_factory=dict)  # keys: STAGES

    @property
    def status(self):
        """'ok' where an object was found, 'no_target' where nothing matches."""
        return 'ok' if self.instances else 'no_target'

    def to_json(self):
        """A dict of plain types; masks as COCO's compressed RLE, boxes as [x0, y0, x1, y1] px."""
        return {
            'status': self.status,
            'instruction': self.instruction,
            'answer': self.answer,
            'phrases': list(self.phrases),
            'finish_reason': self.finish_reason,
            'warning': self.warning,
            'height': self.height,
            'width': self.width,
            'instances': [
                {
                    'score': round(instance.score, 6),
                    'box': list(instance.box),
                    'phrase': instance.phrase,
                    'slot': instance.slot,
                    'group': instance.group,
                    'segmentation': instance.mask.to_coco(),
                    **({'geometry': instance.geometry.to_json()} if instance.geometry is not None else {}),
                }
                for instance in self.instances
            ],
            'timings_ms': {stage: round(ms, 3) for stage, ms in self.timings_ms.items()},
        }

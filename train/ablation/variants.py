"""The variants: what is taken away of the full model, and what that cost the paper's 2 B model."""

from dataclasses import dataclass, field

from instructsam.train.modes import AUTOREGRESSIVE


@dataclass(frozen=True)
class Variant:
    """One row of the ablation. Figures of the paper are differences to its full model, None where it gives none."""

    summary: str
    of: str = ''  # the variant whose trained model is measured; '': its own
    mode: str = 'consistent'  # in training and evaluation
    slots: int = 0  # K; 0: that of the base model
    has_stage1: bool = True
    asked: dict = field(default_factory=dict)  # evaluation: phrase, own_queries
    paper_map: float | None = None  # Inst2Seg, mAP
    paper_ciou: float | None = None  # ReasonSeg, cIoU


VARIANTS = {
    'full': Variant('as the paper describes it'),
    'no_bank': Variant('no query bank: the model writes a [SEG] an instance', mode=AUTOREGRESSIVE,
                       paper_map=20.1 - 31.5, paper_ciou=56.0 - 65.0),
    'causal': Variant('no hybrid attention: queries see only what is before', mode='causal',
                      paper_map=29.5 - 31.5, paper_ciou=52.4 - 65.0),
    'no_stage1': Variant("stage 2 from the base model, with stage 1's samples added to it", has_stage1=False,
                         paper_map=-23.4),
    'dummy_phrase': Variant('the phrase is "object", whatever is asked', of='full', asked={'phrase': 'dummy'},
                            paper_map=-2.4),
    'no_llm_queries': Variant("SAM3's own queries with the model's phrase", of='full', asked={'own_queries': True},
                              paper_map=-14.8),
    'k4': Variant('K = 4 slots', slots=4),
    'k10': Variant('K = 10 slots, which is the full model', of='full'),
    'k50': Variant('K = 50 slots', slots=50),
}  # fmt: skip
REFERENCE = 'full'  # what all others are compared with


def trained(names):
    """The variants that must be trained for `names`, each once."""
    return list(dict.fromkeys(VARIANTS[name].of or name for name in names))

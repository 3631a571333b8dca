"""The variants of the ablation: what each one lacks, and how the paper's 2 B model differs without it."""

from collections.abc import Iterable
from dataclasses import dataclass

from instructsam.train.modes import AUTOREGRESSIVE


@dataclass(frozen=True)
class Variant:
    """One row of the ablation. The paper's figures are differences from its full model, None if it reports none."""

    summary: str
    of: str = ''  # variant whose trained model is measured; '': this one
    mode: str = 'consistent'  # mode of training and evaluation, one of train.modes.ENGINE_MODES
    slots: int = 0  # number of slots K; 0: as in the base model
    has_stage1: bool = True
    phrase: str = 'generated'  # source of the phrases in evaluation, see evaluation.running.prompting
    own_queries: bool = False  # evaluate with SAM3's own queries instead of the language model's
    paper_map: float | None = None  # difference in mAP on Inst2Seg, percent
    paper_ciou: float | None = None  # difference in cIoU on ReasonSeg, percent


VARIANTS = {
    'full': Variant('as the paper describes it'),
    'no_bank': Variant(
        'no query bank: the model writes one [SEG] per instance',
        mode=AUTOREGRESSIVE,
        paper_map=20.1 - 31.5,
        paper_ciou=56.0 - 65.0,
    ),
    'causal': Variant(
        'no hybrid attention: queries attend only to what precedes them',
        mode='causal',
        paper_map=29.5 - 31.5,
        paper_ciou=52.4 - 65.0,
    ),
    'no_stage1': Variant(
        "stage 2 from the base model, with stage 1's samples added to it", has_stage1=False, paper_map=-23.4
    ),
    'dummy_phrase': Variant('the phrase is always "object"', of='full', phrase='dummy', paper_map=-2.4),
    'no_llm_queries': Variant(
        "SAM3's own queries with the model's phrase", of='full', own_queries=True, paper_map=-14.8
    ),
    'k4': Variant('K = 4 slots', slots=4),
    'k10': Variant('K = 10 slots, which is the full model', of='full'),
    'k50': Variant('K = 50 slots', slots=50),
}
REFERENCE = 'full'  # the variant that all others are compared with


def trained_variants(names: Iterable[str]) -> list[str]:
    """Return the variants that must be trained to measure `names`, each once."""
    return list(dict.fromkeys(VARIANTS[name].of or name for name in names))

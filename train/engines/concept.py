"""Concept prompting: SAM3 finds what a phrase names with its own learned queries, without the language model's.

The base stage trains this, and stage 1 is compared with it.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from instructsam.core.engine import InstructSAM, SlotMasks
from instructsam.core.model.grounding import PreparedFeatures
from instructsam.core.model.instructsam import InstructSAMModel
from instructsam.core.model.sequence import Group


def concept_detections(
    model: InstructSAMModel, features: PreparedFeatures, phrase_ids: Sequence[Sequence[int]]
) -> tuple[torch.Tensor, torch.Tensor]:
    """Detect with SAM3's own queries.

    Args:
        model: The network.
        features: Features of one image, or of one image per phrase.
        phrase_ids: Token ids of G phrases, without tags.

    Returns:
        Mask logits [G, K, h, w] and scores [G, K], 0 to 1.
    """
    text, mask = model.phrase_conditioning(phrase_ids, 'consistent')
    queries = model.grounding.detr_decoder.query_embed.weight.expand(len(phrase_ids), -1, -1)
    detections = model.grounding(features, queries, text, mask)
    return detections.mask_logits, detections.logits.float().sigmoid()


class ConceptEngine(InstructSAM):
    """An engine whose answers are the language model's (or forced) and whose masks come from concept prompting."""

    @classmethod
    def from_engine(cls, engine: InstructSAM) -> ConceptEngine:
        """Return an engine that prompts the same model with concepts."""
        return cls(
            engine.model,
            engine.prompter,
            engine.preprocessor,
            engine.stop_ids,
            name=engine.name,
            mode=engine.mode,
            folder=engine.folder,
            warning=engine.warning,
            stages=engine.stages,
        )

    def _detect_groups(self, features: PreparedFeatures, groups: Sequence[Group]) -> list[SlotMasks]:
        masks, scores = concept_detections(self.model, features, [group.text_ids for group in groups])
        return [SlotMasks(*slots) for slots in zip(masks, scores, strict=True)]

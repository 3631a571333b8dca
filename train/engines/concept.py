"""Concept prompting: SAM3 finds what a phrase says with learned queries of its own, whatever the language model thinks.

This is what the base stage teaches, and what stage 1 is measured against.
"""

from instructsam.core.engine import InstructSAM, SlotMasks


def concept_detections(model, features, phrase_ids):
    """What SAM3's own queries find.

    features: core.grounding.ImageFeatures of one image, or of an image for each phrase; phrase_ids: token ids of G
    phrases, without tags. Returns mask logits [G, K, h, w] and scores [G, K], 0 to 1.
    """
    text, mask = model.phrase_conditioning(phrase_ids, 'consistent')
    queries = model.grounding.detr_decoder.query_embed.weight.expand(len(phrase_ids), -1, -1)
    found = model.grounding(features, queries, text, mask)
    return found.mask_logits, found.logits.float().sigmoid()


class ConceptEngine(InstructSAM):
    """An engine whose answers are the language model's (or forced) and whose masks come from concept prompting."""

    @classmethod
    def of(cls, engine):
        """The same model as that of `engine`, an InstructSAM, prompted the other way."""
        return cls(
            engine.model,
            engine.prompter,
            engine.preprocessor,
            engine.stop_ids,
            name=engine.name,
            mode=engine.mode,
            folder=engine.folder,
            warning=engine.warning,
        )

    def _detect_groups(self, features, groups):
        masks, scores = concept_detections(self.model, features, [group.text_ids for group in groups])
        return [SlotMasks(*slots) for slots in zip(masks, scores, strict=True)]

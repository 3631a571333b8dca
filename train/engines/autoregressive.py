"""Engine without a query bank: after a phrase, the model writes one `[SEG]` per instance (LISA++, arXiv 2312.17240).

The answer is plain text with causal attention, `phrase<|object_ref_end|><|mask_start|>[SEG][SEG]<|mask_end|>`, with no
`[SEG]` if nothing matches. Every `[SEG]` is a token with one common embedding, and its last hidden state is a query of
the detector. This is the ablation's variant `no_bank`; train.data.dialogue writes its training sequences.
"""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any, NamedTuple, NoReturn

import torch

from instructsam.core.engine import InstructSAM, SlotMasks
from instructsam.core.errors import InstructionError
from instructsam.core.model.grounding import PreparedFeatures
from instructsam.core.model.instructsam import InstructSAMModel
from instructsam.core.model.sequence import ForwardPass, Group, Prefix, TokenSequence
from instructsam.train.modes import AUTOREGRESSIVE


class AutoregressiveSequence(TokenSequence):
    """A sequence whose groups grow by one slot with every mask token, to at most K slots."""

    can_run_ahead = False  # because a mask token may become another one

    def __init__(self, model: InstructSAMModel, prefix: Prefix) -> None:
        super().__init__(model, prefix)
        self._free_slots = 0  # mask tokens that may still follow the last phrase

    def add_answer(self, ids: Sequence[int], prompt: Sequence[int] = ()) -> ForwardPass:
        """Write answer tokens after `prompt`; a mask token without a free slot becomes `<|mask_end|>`."""
        tokens = self.model.config.tokens
        start = len(self.layout)
        self.layout.add_text(prompt)
        mask_tokens = []  # (index of the group, row in this forward pass)
        for token in ids:
            if token == tokens.query and not self._free_slots:
                token = tokens.mask_end
            if token == tokens.query:
                self._free_slots -= 1
                mask_tokens.append((len(self.groups) - 1, len(self.layout) - start))
            elif token == tokens.phrase_end:
                self._open_group()
            elif token in (tokens.phrase_start, tokens.mask_end):
                self._free_slots = 0
                self._open_phrase = [] if token == tokens.phrase_start else None
            elif self._open_phrase is not None:
                self._open_phrase.append(token)
            self.layout.add_text([token])
            self.answer_ids.append(token)
        output = self._run(start)
        for group, row in mask_tokens:
            hidden = torch.cat([self.groups[group].hidden, output.hidden[0, row][None]])
            self.groups[group] = replace(self.groups[group], hidden=hidden)
        return output

    def _open_group(self) -> None:
        phrase = self._close_phrase()
        if phrase is None:
            return
        self._free_slots = self.model.config.num_queries
        width = self.model.config.text.hidden_size
        no_slots = torch.zeros(0, width, device=self.model.device, dtype=self.model.dtype)
        self.groups.append(Group(phrase.conditioning, phrase.text, no_slots))


class AutoregressiveEngine(InstructSAM):
    """An engine for a model that was trained in mode autoregressive."""

    def answer_for(self, phrases: Iterable[str]) -> NoReturn:
        """Raise InstructionError: only the model knows how many mask tokens follow a phrase."""
        raise InstructionError(
            'a model without a query bank cannot be given phrases: it generates phrase and mask tokens together'
        )

    def _new_sequence(self, prefix: Prefix) -> AutoregressiveSequence:
        return AutoregressiveSequence(self.model, prefix)

    def _detect_groups(self, features: PreparedFeatures, groups: Sequence[Group]) -> list[SlotMasks]:
        """Run the detector once per group, because the groups differ in size."""
        return [self._detect_group(features, group) for group in groups]

    def _detect_group(self, features: PreparedFeatures, group: Group) -> SlotMasks:
        if not len(group.hidden):
            return SlotMasks(torch.zeros(0, 1, 1, device=self.device), torch.zeros(0, device=self.device))
        (masks,) = super()._detect_groups(features, [group])
        return masks


class EngineType(NamedTuple):
    """The way to query a model that was trained in a given mode."""

    engine_class: type[InstructSAM]
    mode: str  # mode of the queries, one of core.modes.MODES


def engine_type(mode: str) -> EngineType:
    """Return the engine for models trained in `mode`, one of train.modes.ENGINE_MODES."""
    return EngineType(AutoregressiveEngine, 'consistent') if mode == AUTOREGRESSIVE else EngineType(InstructSAM, mode)


def load_engine(name: str, mode: str, **options: Any) -> InstructSAM:
    """Load an engine for a model that was trained in `mode`; options as in InstructSAM.from_pretrained."""
    kind = engine_type(mode)
    return kind.engine_class.from_pretrained(name, mode=kind.mode, **options)

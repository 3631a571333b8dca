"""A model without query bank: behind a phrase it writes a `[SEG]` for each instance, as LISA++ does (arXiv 2312.17240).

The answer is plain text with causal attention, `phrase<|object_ref_end|><|mask_start|>[SEG][SEG]<|mask_end|>`, with no
`[SEG]` where nothing is there. Each is a token with its own embedding, its last hidden state a query of the detector.
This is the ablation's `no_bank`; train.conversation writes what it learns from.
"""

from dataclasses import replace

import torch

from instructsam.core.engine import InstructSAM, SlotMasks
from instructsam.core.errors import InstructionError
from instructsam.core.model import checkpoint
from instructsam.core.model.sequence import Group, TokenSequence
from instructsam.train.modes import AUTOREGRESSIVE


class AutoregressiveSequence(TokenSequence):
    """A sequence whose groups grow with every mask token, to at most K slots."""

    def __init__(self, model, prefix):
        super().__init__(model, prefix)
        self._room = 0  # mask tokens that may still come behind the last phrase

    def add_answer(self, ids):
        """Writes answer tokens; a mask token where there is room for none becomes `<|mask_end|>`. Returns the Step."""
        tokens = self.model.config.tokens
        start = len(self.layout)
        found = []  # (group, row) of the mask tokens
        for token in ids:
            if token == tokens.query and not self._room:
                token = tokens.mask_end
            if token == tokens.query:
                self._room -= 1
                found.append((len(self.groups) - 1, len(self.layout) - start))
            elif token == tokens.phrase_end:
                self._open_group()
            elif token in (tokens.phrase_start, tokens.mask_end):
                self._room = 0
                self._open_phrase = [] if token == tokens.phrase_start else None
            elif self._open_phrase is not None:
                self._open_phrase.append(token)
            self.layout.add_text([token])
            self.answer_ids.append(token)
        step = self._run(start)
        for group, row in found:
            grown = torch.cat([self.groups[group].hidden, step.hidden[0, row][None]])
            self.groups[group] = replace(self.groups[group], hidden=grown)
        return step

    def _open_group(self):
        phrase = self._close_phrase()
        if phrase is None:
            return
        self._room = self.model.config.num_queries
        width = self.model.config.qwen.text_config.hidden_size
        self.groups.append(Group(*phrase, torch.zeros(0, width, device=self.model.device, dtype=self.model.dtype)))


class AutoregressiveEngine(InstructSAM):
    """An engine for a model that was trained in mode autoregressive."""

    def answer_for(self, phrases):
        """Raises InstructionError: how many mask tokens follow a phrase is for the model to say."""
        raise InstructionError('a model without query bank takes no given phrases: it writes phrase and masks as one')

    def _new_sequence(self, prefix):
        return AutoregressiveSequence(self.model, prefix)

    def _detect_groups(self, features, groups):
        """Return the SlotMasks of each group; the groups differ in size, so each is a detector call of its own."""
        return [self._detect_group(features, group) for group in groups]

    def _detect_group(self, features, group):
        if not len(group.hidden):
            return SlotMasks(torch.zeros(0, 1, 1, device=self.device), torch.zeros(0, device=self.device))
        (masks,) = super()._detect_groups(features, [group])
        return masks


def engine_class(mode):
    """The class of engine for a recipe's `mode`, and its core.modes mode."""
    return (AutoregressiveEngine, 'consistent') if mode == AUTOREGRESSIVE else (InstructSAM, mode)


def load_engine(name, mode, **options):
    """An engine for a model that was trained in `mode`; options as from_pretrained's."""
    kind, core_mode = engine_class(mode)
    return kind.from_pretrained(name, mode=core_mode, **options)


def teach_first_query(source, out):
    """Writes the model folder `out`: `source` with the query bank's first row as the embedding of `[SEG]`.

    Our base stage has brought the bank, but no token, near the detector's queries: from here, neither is ahead.
    """
    model = checkpoint.load(source, torch.device('cpu'), None)
    token = model.config.tokens.query
    model.model.language_model.embed_tokens.weight[token] = model.model.mask_queries[0]
    checkpoint.save(model, out, source)

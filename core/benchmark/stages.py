"""The stages of one image and one instruction, each of which can be run alone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from instructsam.core.engine import EncodedImage, InstructSAM, SlotMasks
from instructsam.core.model.graphs.stages import Stages
from instructsam.core.model.preprocess import to_chw
from instructsam.core.model.sequence import ForwardPass, Group, Prefix, TokenSequence
from instructsam.core.step_timer import StepTimer

INSTRUCTION = 'the mugs left of the kettle'
PHRASE = 'red mug'
TOKENS = 8  # tokens decoded per measurement
ANSWER_TOKENS = 9  # tokens of a typical answer, one phrase with its tags

NEW_IMAGE = ('image input', 'SAM3 encoder', 'Qwen vision', 'prefill')
NEXT_INSTRUCTION = ('instruction', 'query block', 'detector', 'masks')
TOKEN = 'decoded token'


@dataclass(frozen=True)
class Stage:
    """A piece of work whose time is measured."""

    name: str
    run: Callable[[Any], Any]  # takes what `prepare` returned
    prepare: Callable[[], Any] = lambda: None  # not measured
    units: int = 1  # pieces in one run, such as tokens
    read_bytes: int = 0  # per unit, if reading memory and not computing bounds it


def network_stages(engine: InstructSAM, image: np.ndarray, stages: Stages | None = None) -> list[Stage]:
    """Return the stages of an engine on an image; those before it run once for the inputs of each.

    Args:
        engine: The engine.
        image: [H, W, 3] uint8 RGB.
        stages: Runs them; None: the engine's own.
    """
    stages = stages or engine.stages
    chw = to_chw(image)
    inputs = engine.encoder_inputs(chw)
    (grid,) = inputs.grids
    features = stages.image_features(inputs)
    visual = stages.visual_features(inputs)
    prefix = stages.prefix(visual, grid, engine.prompter)
    encoded = EncodedImage(chw.shape[1], chw.shape[2], features, prefix, {}, engine)
    decoding = _Decoding(engine, stages, prefix)
    groups = decoding.groups()
    slots = [_disc_masks(stages.detect(features, groups)[0][0])]

    def masks(_: Any) -> Any:
        return engine.instances(slots, [PHRASE], encoded, 0.0, StepTimer(engine.device))

    return [
        Stage('image input', lambda _: engine.encoder_inputs(chw)),
        Stage('SAM3 encoder', lambda _: stages.image_features(inputs)),
        Stage('Qwen vision', lambda _: stages.visual_features(inputs)),
        Stage('prefill', lambda _: stages.prefix(visual, grid, engine.prompter)),
        Stage('instruction', decoding.read_instruction, decoding.start),
        Stage(TOKEN, decoding.decode, decoding.start_answer, TOKENS, decoding.bytes_per_token()),
        Stage('query block', decoding.add_block, decoding.start_phrase),
        Stage('detector', lambda _: stages.detect(features, groups)),
        Stage('masks', masks),
    ]


class _Decoding:
    """Steps of an answer about an image. The tokens are given, so that random weights take the same steps as others."""

    def __init__(self, engine: InstructSAM, stages: Stages, prefix: Prefix):
        self._engine, self._stages, self._prefix = engine, stages, prefix
        self._tokens = engine.model.config.tokens
        self._prompt = engine.prompter.instruction_ids(INSTRUCTION)
        self._word = engine.prompter.instruction_ids('object')[0]

    def start(self) -> TokenSequence:
        """Return a sequence that continues the image's prefix."""
        return self._stages.sequence(self._prefix)

    def read_instruction(self, sequence: TokenSequence) -> ForwardPass:
        """Read the instruction."""
        return sequence.add_text(self._prompt)

    def start_answer(self) -> tuple[TokenSequence, ForwardPass]:
        """Return a sequence that has read the instruction, and its last pass."""
        sequence = self.start()
        return sequence, self.read_instruction(sequence)

    def decode(self, started: tuple[TokenSequence, ForwardPass]) -> None:
        """Decode TOKENS tokens as the engine does, but append plain words instead of them."""
        sequence, output = started
        for _ in range(TOKENS):
            pick = sequence.pick(output)
            if self._engine.runs_ahead and sequence.can_run_ahead:
                sequence.run_ahead(pick)
            pick.read()
            output = sequence.accept(self._word)

    def start_phrase(self) -> TokenSequence:
        """Return a sequence whose next token ends a phrase."""
        sequence, _ = self.start_answer()
        sequence.add_answer([self._tokens.phrase_start, self._word])
        return sequence

    def add_block(self, sequence: TokenSequence) -> TokenSequence:
        """End the phrase and run its query block."""
        sequence.add_answer([self._tokens.phrase_end])
        return sequence

    def groups(self) -> list[Group]:
        """Return the group of one phrase."""
        return self.add_block(self.start_phrase()).groups

    def bytes_per_token(self) -> int:
        """Return what the memory must deliver for a token: the language model's weights and the cache."""
        language = self._engine.model.model.language_model
        weights = sum(parameter.nbytes for parameter in language.parameters())  # the head is tied to the embeddings
        return weights + sum(rows.nbytes for rows in self._prefix.cache.rows())


def _disc_masks(logits: torch.Tensor) -> SlotMasks:
    """Return discs in the form of mask logits [K, h, w], because random weights give no masks with outlines."""
    count, height, width = logits.shape
    y, x = torch.arange(height)[:, None], torch.arange(width)
    centers = [((slot + 0.5) * height / count, (slot + 0.5) * width / count) for slot in range(count)]
    discs = torch.stack([(height / 8) ** 2 - (y - row) ** 2 - (x - column) ** 2 for row, column in centers])
    return SlotMasks(discs.to(logits), torch.ones(count, device=logits.device))

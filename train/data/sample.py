"""A training sample: one image, and turns of questions and answers with their ground truth."""

from __future__ import annotations

import operator
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch

from instructsam.core.errors import ImageError
from instructsam.core.files.image_file import read_image
from instructsam.core.model.preprocess import to_chw
from instructsam.train.data.augmentation import Augmentation
from instructsam.train.data.record_fields import RecordError, Target
from instructsam.train.modes import DUMMY_PHRASE


@dataclass(frozen=True)
class Turn:
    """One question, the phrases of its answer and their targets."""

    question: str
    phrases: tuple[str, ...]
    targets: tuple[Target, ...]  # ground truth, one per phrase
    text: str = ''  # the answer, if it names no phrases
    concise: tuple[str, ...] = ()
    """The concise form of each phrase, which may describe more objects than the targets; (): the phrases."""
    shorter: tuple[tuple[str, ...], ...] = ()
    """Shorter forms of each phrase, the longest first, that training may condition SAM3 on instead; (): unknown."""
    partial: tuple[bool, ...] = ()
    """For each phrase, whether it may describe more objects than its targets; (): none does."""
    anchors: tuple[Target, ...] = ()
    """For each phrase, the other objects that the question names; (): unknown."""
    is_supervised: bool = True
    """The language model learns to write the answer; False: it is given."""

    def shorter_forms(self, index: int) -> tuple[str, ...]:
        """Return the shorter forms of the phrase `index`."""
        return self.shorter[index] if self.shorter else ()

    def is_partial(self, index: int) -> bool:
        """Return whether the phrase `index` may describe more objects than its targets."""
        return bool(self.partial) and self.partial[index]

    def anchors_of(self, index: int) -> Target:
        """Return the other objects that the question names for the phrase `index`."""
        return self.anchors[index] if self.anchors else Target()

    def concisely(self) -> Turn:
        """Return the turn with the concise form of each phrase, and the shorter forms of that."""
        if not self.concise:
            return self
        partial = tuple(map(operator.ne, self.concise, self.phrases))
        shorter = []
        for index, phrase in enumerate(self.concise):
            forms = self.shorter_forms(index)
            shorter.append(forms[forms.index(phrase) + 1 :] if phrase in forms else forms)
        return replace(self, phrases=self.concise, shorter=tuple(shorter), partial=partial)

    def with_dummy_phrases(self) -> Turn:
        """Return the turn with `DUMMY_PHRASE` as each phrase, if it has any, of an answer that is given."""
        if not self.phrases:
            return self
        partial = tuple(phrase != DUMMY_PHRASE for phrase in self.phrases)
        phrases = (DUMMY_PHRASE,) * len(self.phrases)
        return replace(self, phrases=phrases, concise=(), shorter=(), partial=partial, is_supervised=False)


@dataclass(frozen=True)
class Sample:
    """One image with its turns."""

    image: Path
    height: int  # height of the image, px
    width: int  # width of the image, px
    turns: tuple[Turn, ...]
    pixels: torch.Tensor | None = field(default=None, compare=False, repr=False)  # [3, H, W] uint8; None: not read
    detected: tuple[int, ...] | None = None
    """Indices of the phrases that reach the detector, counted over the turns; None: all."""

    @property
    def num_phrases(self) -> int:
        """Number of phrases of all turns."""
        return sum(len(turn.phrases) for turn in self.turns)

    def limit_detected(self, max_phrases: int, rng: np.random.Generator) -> Sample:
        """Return the sample with at most `max_phrases` (0: all) of its phrases, drawn by `rng`, for the detector."""
        if not max_phrases or self.num_phrases <= max_phrases:
            return self
        drawn = rng.permutation(self.num_phrases)[:max_phrases]
        return replace(self, detected=tuple(sorted(drawn.tolist())))

    def concisely(self) -> Sample:
        """Return the sample with the concise form of each phrase."""
        return replace(self, turns=tuple(turn.concisely() for turn in self.turns))

    def with_dummy_phrases(self, share: float, rng: np.random.Generator) -> Sample:
        """Return the sample with dummy phrases in that share of its turns, drawn by `rng`."""
        is_dummy = rng.random(len(self.turns)) < share
        turns = zip(self.turns, is_dummy, strict=True)
        return replace(self, turns=tuple(turn.with_dummy_phrases() if drawn else turn for turn, drawn in turns))

    def augmented(self, augmentation: Augmentation, rng: np.random.Generator) -> Sample:
        """Return the sample with its image, which must have been read, changed at random."""
        assert self.pixels is not None
        image = np.ascontiguousarray(self.pixels.permute(1, 2, 0).numpy())
        return replace(self, pixels=to_chw(augmentation.apply(image, rng)))

    def with_pixels(self) -> Sample:
        """Return the sample with its image read.

        Raises:
            RecordError: If the image cannot be read, or its size is not the record's.
        """
        if self.pixels is not None:
            return self
        try:
            pixels = to_chw(read_image(self.image))
        except ImageError as error:
            raise RecordError(str(error)) from error
        height, width = pixels.shape[1:]
        if (height, width) != (self.height, self.width):
            raise RecordError(
                f'{self.image} is {width} x {height} px, the record says width {self.width} and height {self.height}'
            )
        return replace(self, pixels=pixels)

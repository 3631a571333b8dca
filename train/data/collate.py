"""Collates samples to a batch: token sequences, the inputs of both encoders, masks and boxes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol, cast

import numpy as np
import torch

from instructsam.core.model.config import ModelConfig
from instructsam.core.model.preprocess import Preprocessor, load_preprocessor, sam_pixels
from instructsam.core.model.prompt import Prompter
from instructsam.core.model.tokenizer import load_tokenizer
from instructsam.train.data.batch import Batch, batch_scripts
from instructsam.train.data.dialogue import Dialogue, Script
from instructsam.train.data.record_fields import Target
from instructsam.train.data.sample import Sample


class ScriptWriter(Protocol):
    """Writes a sample as a token sequence, see Dialogue."""

    def write(self, sample: Sample, num_queries: int, rows: int, columns: int, *, branches: bool = False) -> Script:
        """Return the token sequence of a sample."""
        ...


class Collator:
    """A DataLoader's `collate_fn`: its workers prepare the images, on the CPU in float32."""

    def __init__(
        self,
        dialogue: ScriptWriter,
        preprocessor: Preprocessor,
        num_queries: int,
        image_size: int,
        merge: int,
        pad_id: int,
        *,
        branches: bool = False,
        concise: bool = False,
    ):
        """Keep what the batches are made with.

        Args:
            dialogue: Writes the token sequences.
            preprocessor: The preprocessor of Qwen's vision tower.
            num_queries: K, the number of query tokens of a phrase.
            image_size: Side of the input of SAM3 or of the trunk in px.
            merge: Patches per language-model token along each axis.
            pad_id: Token id of padding.
            branches: The turns of a sample do not see each other.
            concise: Answers have the concise form of each phrase.
        """
        self.dialogue = dialogue
        self.preprocessor = preprocessor
        self.num_queries = num_queries
        self.image_size = image_size
        self.merge = merge
        self.pad_id = pad_id
        self.branches = branches
        self.concise = concise

    @classmethod
    def from_folder(
        cls,
        folder: str | Path,
        config: ModelConfig,
        *,
        branches: bool = False,
        concise: bool = False,
        max_pixels: int = 0,
        mode: str = 'consistent',
    ) -> Collator:
        """Make the collator of a model folder.

        Args:
            folder: The model folder.
            config: Its configuration.
            branches: The turns of a sample do not see each other.
            concise: Answers have the concise form of each phrase.
            max_pixels: Largest image in Qwen's encoder if that is less than the folder's limit; 0: the folder's.
            mode: See Dialogue.

        Raises:
            ModelError: If the folder lacks a file.
        """
        preprocessor = load_preprocessor(folder, config)
        if max_pixels:
            preprocessor = preprocessor.limited(max_pixels)
        tokenizer = load_tokenizer(folder)
        return cls(
            Dialogue(tokenizer, Prompter(tokenizer, config.tokens), mode),
            preprocessor,
            config.num_queries,
            config.image_size,
            config.vision.spatial_merge_size,
            cast('int | None', tokenizer.pad_token_id) or 0,  # any id works, because nothing attends to padding
            branches=branches,
            concise=concise,
        )

    def __call__(self, samples: Sequence[Sample]) -> Batch:
        """Return the batch of `samples`.

        Raises:
            RecordError: If the image of a sample cannot be used.
        """
        samples = [(sample.concisely() if self.concise else sample).with_pixels() for sample in samples]
        images = [sample.pixels for sample in samples if sample.pixels is not None]
        patches, grids = zip(*(self.preprocessor(image, 'cpu', torch.float32) for image in images), strict=True)
        scripts = [self._write(sample, grid) for sample, grid in zip(samples, grids, strict=True)]
        turns = [(sample, turn) for sample in samples for turn in sample.turns]
        targets = [(sample, target) for sample, turn in turns for target in turn.targets]
        anchors = [(sample, turn.anchors_of(index)) for sample, turn in turns for index in range(len(turn.phrases))]
        return Batch(
            batch_scripts(scripts, self.pad_id),
            torch.cat(patches),
            list(grids),
            torch.cat([sam_pixels(image, self.image_size, 'cpu', torch.float32) for image in images]),
            masks=[_decoded(target, sample) for sample, target in targets],
            boxes=[torch.tensor(target.boxes, dtype=torch.float32).reshape(-1, 4) for _, target in targets],
            anchors=[_decoded(target, sample) for sample, target in anchors],
            detected=_detected(samples),
        )

    def _write(self, sample: Sample, grid: tuple[int, int, int]) -> Script:
        rows, columns = grid[1] // self.merge, grid[2] // self.merge
        return self.dialogue.write(sample, self.num_queries, rows, columns, branches=self.branches)


def _detected(samples: Sequence[Sample]) -> list[int]:
    """Return the phrases of all samples that reach the detector, counted over the batch."""
    detected, first = [], 0
    for sample in samples:
        indices = range(sample.num_phrases) if sample.detected is None else sample.detected
        detected += [first + index for index in indices]
        first += sample.num_phrases
    return detected


def _decoded(target: Target, sample: Sample) -> torch.Tensor:
    """Decode the masks of a target to [N, H, W] bool."""
    if not target.masks:
        return torch.zeros(0, sample.height, sample.width, dtype=torch.bool)
    return torch.from_numpy(np.stack([mask.decode() for mask in target.masks]))

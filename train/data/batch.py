"""The batch that a forward pass reads: padded token sequences, the inputs of both encoders, masks and boxes."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, fields, is_dataclass
from typing import Any

import torch

from instructsam.train.data.dialogue import IGNORED, Script


@dataclass
class TextBatch:
    """B scripts, padded on the right to L rows.

    A padding row sees itself and the rows before it; no other row sees it.
    """

    ids: torch.Tensor  # [B, L] token ids
    labels: torch.Tensor  # [B, L]
    positions: torch.Tensor  # [3, B, L]
    mask: torch.Tensor  # [B, 1, L, L] bool, true where a row may attend
    is_image: torch.Tensor  # [B, L] bool
    blocks: list[tuple[int, slice]]  # (sample, rows of its queries) of every phrase of the batch
    phrase_ids: list[list[int]]
    shorter_ids: list[list[list[int]]]  # shorter forms of each phrase, the longest first; [] where none are known
    partial: list[bool]  # for each phrase, whether it may describe more objects than its targets
    has_bank: bool = True  # the query bank is inserted at the blocks


def batch_scripts(scripts: Sequence[Script], pad_id: int) -> TextBatch:
    """Pad scripts to one TextBatch."""
    length = max(len(script.layout) for script in scripts)
    count = len(scripts)
    batch = TextBatch(
        ids=torch.full((count, length), pad_id),
        labels=torch.full((count, length), IGNORED),
        positions=torch.ones(3, count, length, dtype=torch.int64),
        mask=torch.zeros(count, 1, length, length, dtype=torch.bool),
        is_image=torch.zeros(count, length, dtype=torch.bool),
        blocks=[(index, rows) for index, script in enumerate(scripts) for rows in script.blocks],
        phrase_ids=[ids for script in scripts for ids in script.phrase_ids],
        shorter_ids=[forms for script in scripts for forms in script.shorter_ids],
        partial=[is_partial for script in scripts for is_partial in script.partial],
        has_bank=all(script.has_bank for script in scripts),
    )
    for index, script in enumerate(scripts):
        size = len(script.layout)
        ids = torch.tensor(script.layout.ids)
        batch.ids[index, :size] = ids
        batch.labels[index, :size] = torch.tensor(script.labels)
        batch.positions[:, index, :size] = script.layout.position_ids()
        batch.mask[index, 0, :size, :size] = script.layout.attention_mask()
        batch.mask[index, 0, size:, :size] = True  # a row that attends to nothing would be NaN
        batch.is_image[index, :size] = ids == script.layout.tokens.image
    return batch


@dataclass
class Batch:
    """B samples with P phrases in total; the images are preprocessed for both encoders, see core.model.preprocess."""

    text: TextBatch
    patches: torch.Tensor  # [patches of all images, 3 * t * p * p]; empty with a trunk
    grids: list[tuple[int, int, int]]  # (1, rows, columns) in patches, one per image
    pixels: torch.Tensor  # [B, 3, S, S] input of SAM3 or of the trunk
    masks: list[torch.Tensor]  # one [N, H, W] bool per phrase; N = 0: no object, or only boxes are known
    boxes: list[torch.Tensor]  # one [N, 4] per phrase: xyxy, 0 to 1
    anchors: list[torch.Tensor]  # one [N, H, W] bool per phrase: the other objects that the question names; N may be 0
    detected: list[int] | None = None
    """Indices of the phrases that reach the detector; None: all. Phrases without queries are removed from it."""

    def __post_init__(self) -> None:
        candidates = range(len(self.text.blocks)) if self.detected is None else self.detected
        self.detected = [index for index in candidates if self.num_queries(index)]

    @property
    def detected_phrases(self) -> list[int]:
        """Indices of the phrases that reach the detector."""
        return self.detected or []

    def num_queries(self, index: int) -> int:
        """Return the number of queries of the phrase `index`: K, except in mode autoregressive."""
        rows = self.text.blocks[index][1]
        return rows.stop - rows.start

    def detector_calls(self, phrases_per_call: int, apart: Collection[int] = ()) -> list[list[int]]:
        """Group the detected phrases into calls of at most `phrases_per_call` phrases with equally many queries.

        Phrases in `apart` are in calls of their own.
        """
        alike: dict[tuple[int, bool], list[int]] = {}
        for index in self.detected_phrases:
            alike.setdefault((self.num_queries(index), index in apart), []).append(index)
        return [
            indices[first : first + phrases_per_call]
            for indices in alike.values()
            for first in range(0, len(indices), phrases_per_call)
        ]

    def counts(self) -> dict[str, int]:
        """Return the count of each unit that loss sums are divided by."""
        return {
            'tokens': int((self.text.labels[:, 1:] != IGNORED).sum()),
            'blocks': len(self.text.blocks),
            'all_masks': sum(map(len, self.masks)),
            'anchored': sum(len(anchors) > 0 for anchors in self.anchors),
            'phrases': len(self.detected_phrases),
            'masks': sum(len(self.masks[index]) + len(self.boxes[index]) for index in self.detected_phrases),
        }


def token_grid(grid: tuple[int, int, int], tokens: int) -> tuple[int, int]:
    """Return the rows and columns of an image's `tokens` tokens in the language model.

    grid: (1, rows, columns) of the image in patches.
    """
    _, rows, columns = grid
    merge = round((rows * columns / tokens) ** 0.5)
    return rows // merge, columns // merge


def move_to_device(value: Any, device: torch.device) -> Any:
    """Return `value` with all its tensors on `device`; dataclasses, lists, tuples and dictionaries are walked."""
    if isinstance(value, torch.Tensor):
        return value.to(device, non_blocking=True)
    if is_dataclass(value) and not isinstance(value, type):
        return type(value)(**{each.name: move_to_device(getattr(value, each.name), device) for each in fields(value)})
    if isinstance(value, (list, tuple)):
        return type(value)(move_to_device(each, device) for each in value)
    if isinstance(value, dict):
        return {name: move_to_device(each, device) for name, each in value.items()}
    return value

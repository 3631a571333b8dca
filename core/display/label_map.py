"""Results as label maps: one image in which each pixel names its instance."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from instructsam.core.result import Instance


def label_map(instances: Sequence[Instance], height: int, width: int) -> np.ndarray:
    """Return [height, width] uint16 with 0 for background and i + 1 for the pixels of `instances[i]`.

    Args:
        instances: Sorted by score, highest first; where masks overlap, the earlier instance is on top.
        height: Height of the source image, px.
        width: Width of the source image, px.
    """
    labels = np.zeros((width, height), np.uint16)  # column by column, like the run lengths
    flat = labels.reshape(-1)
    for index in reversed(range(len(instances))):
        counts = instances[index].mask.counts
        is_foreground = np.arange(len(counts)) % 2 == 1
        flat[np.repeat(is_foreground, counts)] = index + 1
    return labels.T

"""The result of every loss: a sum and its unit, so that the caller can divide it by the count of a whole step."""

from collections.abc import Mapping
from typing import NamedTuple

import torch


class LossSum(NamedTuple):
    """A loss summed over `unit`; the mean is the value divided by the count of that unit, see Batch.counts."""

    value: torch.Tensor  # scalar sum
    unit: str  # one of tokens, phrases, masks, blocks, all_masks, anchored or images

    def scaled(self, factor: float) -> 'LossSum':
        """Return the loss with a weight."""
        return LossSum(factor * self.value, self.unit)


def accumulate(totals: dict[str, LossSum], more: Mapping[str, LossSum]) -> None:
    """Add the sums in `more` to those in `totals`, in place."""
    for name, loss in more.items():
        totals[name] = LossSum(totals[name].value + loss.value, loss.unit) if name in totals else loss

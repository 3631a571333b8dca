"""Weights and choices of the losses, importable without torch."""

from dataclasses import dataclass

PRESENCE_TARGETS = ('one', 'soft_dice')
"""Presence targets of a matched slot: 1, or the soft dice of its mask, at least mask_losses.SOFT_FLOOR."""


@dataclass(frozen=True)
class Objective:
    """The published objective (paper, section 3.4); the defaults are the paper's.

    The authors' code multiplies the mask terms by their weights twice, which corresponds to bce_loss = 4 and dice_loss
    = 0.25 with the matching costs below; its presence target is 'soft_dice'. Deep supervision has weights of its own
    (LayerWeights): it uses presence_loss, as a factor, and presence_target only.
    """

    bce_loss: float = 2.0
    dice_loss: float = 0.5
    presence_loss: float = 1.0
    bce_cost: float = 2.0  # matching cost, like the next two
    dice_cost: float = 0.5
    presence_cost: float = 1.0
    presence_target: str = 'one'  # target of a matched slot, one of PRESENCE_TARGETS
    sample_points: int = 0  # points of a mask that the mask terms are computed on, most where it is uncertain; 0: all

    def __post_init__(self) -> None:
        if self.presence_target not in PRESENCE_TARGETS:
            known = ', '.join(PRESENCE_TARGETS)
            raise ValueError(f'presence_target must be one of {known}, got {self.presence_target!r}')


@dataclass(frozen=True)
class LayerWeights:
    """Weights of deep supervision; they are its matching costs too, except that matching by masks ignores box_giou."""

    mask_bce: float = 5.0
    mask_dice: float = 2.0
    box_l1: float = 2.0
    box_giou: float = 1.0
    presence: float = 2.0
    semantic: float = 1.0

"""The thresholds of all rules of the filter, part of the recipe."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Thresholds:
    """Limits beyond which a question is rejected; shares and IoUs from 0 to 1.

    Attributes:
        answer_tokens: Most tokens of an answer; the model cuts longer phrases off.
        targets: Most targets of a question: the number of slots K.
        box_side_px: Least side of a box, px.
        box_share_low: Least area of a box, as a share of the picture.
        box_share_high: Largest area of a box, as a share of the picture.
        box_margin_px: Length by which a box may exceed the picture, px: coordinates are rounded.
        duplicate_iou: Two boxes of one answer with a larger IoU are the same thing.
        predicted_iou: Least IoU that the mask's model predicts, SAM's default for automatic masks.
        stability: Least stability of the mask, SAM's default for automatic masks.
        object_score: The logit of the object being there must be above it.
        mask_box_iou: Least IoU of the mask's tight box with the box that prompted it.
        outside_box: Largest share of the mask that lies outside its box.
        largest_piece: Least share of the mask in its largest connected piece.
        overlap: Largest overlap of two masks of one answer, as a share of the smaller one.
        opinion_iou: Least IoU of the union of the masks with what a concept prompt finds.
        opinion_cover: Least share of the masks that a concept prompt with the concept of the answer covers.
        opinion_count: Largest difference in the number of instances from what a concept prompt finds.
    """

    answer_tokens: int = 32
    targets: int = 10
    box_side_px: float = 8.0
    box_share_low: float = 0.0005
    box_share_high: float = 0.9
    box_margin_px: float = 1.0
    duplicate_iou: float = 0.8
    predicted_iou: float = 0.88
    stability: float = 0.95
    object_score: float = 0.0
    mask_box_iou: float = 0.7
    outside_box: float = 0.1
    largest_piece: float = 0.9
    overlap: float = 0.3
    opinion_iou: float = 0.5
    opinion_cover: float = 0.5
    opinion_count: int = 0

    def __post_init__(self) -> None:
        shares = ('box_share_low', 'box_share_high', 'duplicate_iou', 'predicted_iou', 'stability', 'mask_box_iou')
        for name in (*shares, 'outside_box', 'largest_piece', 'overlap', 'opinion_iou', 'opinion_cover'):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f'threshold {name} is a share from 0 to 1, got {getattr(self, name)}')
        for name in ('answer_tokens', 'targets'):
            if getattr(self, name) < 1:
                raise ValueError(f'threshold {name} is 1 or more, got {getattr(self, name)}')

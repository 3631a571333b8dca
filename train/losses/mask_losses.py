"""What training minimises: next tokens, masks of matched slots, presence of every slot (paper, section 3.4).

A *target* is what one phrase of a sample means: N masks [N, H, W] (or boxes; N = 0 for "nothing there"). The K slots of
the phrase are matched to it one to one; matched slots learn masks, and all K learn their presence.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from scipy.optimize import linear_sum_assignment

OVERSAMPLE, IMPORTANT = 3, 0.75  # points: candidates per point kept, share taken where the mask is least certain
DICE_EPS = 1.0  # of the loss
MATCH_EPS = 1e-3  # of the matching cost
SOFT_FLOOR = 0.1  # least presence target of a matched slot where targets are soft


@dataclass(frozen=True)
class Objective:
    """Weights and choices; the defaults are the paper's.

    The authors' code multiplies the mask terms by their weights twice: bce_loss = 4 and dice_loss = 0.25 there, with
    the matching costs below; its presence target is 'soft_dice'. Losses on every layer have weights of their own
    (layers.LayerWeights): there only presence_loss, as a factor, and presence_target count.
    """

    bce_loss: float = 2.0
    dice_loss: float = 0.5
    presence_loss: float = 1.0
    bce_cost: float = 2.0
    dice_cost: float = 0.5
    presence_cost: float = 1.0
    presence_target: str = 'one'  # of a matched slot: one | soft_dice (soft dice of its mask, at least 0.1)
    sample_points: int = 0  # mask terms on so many points of a mask, most where it is uncertain; 0: on all pixels


@dataclass
class Terms:
    """Sums over phrases, so that samples, batches and processes can be added up before they are divided."""

    bce: torch.Tensor  # over matched masks
    dice: torch.Tensor  # over matched masks
    masks: int
    presence: torch.Tensor  # over phrases, each the mean of its slots
    phrases: int

    def __add__(self, other):
        return Terms(
            self.bce + other.bce,
            self.dice + other.dice,
            self.masks + other.masks,
            self.presence + other.presence,
            self.phrases + other.phrases,
        )

    def losses(self, objective, masks=None, phrases=None):
        """Weighted means {mask_bce, mask_dice, presence}; `masks`, `phrases`: the divisors, if a larger batch's."""
        masks, phrases = max(1, masks or self.masks), max(1, phrases or self.phrases)
        return {
            'mask_bce': objective.bce_loss * self.bce / masks,
            'mask_dice': objective.dice_loss * self.dice / masks,
            'presence': objective.presence_loss * self.presence / phrases,
        }


def answer_loss(logits, labels):
    """Cross-entropy summed over supervised tokens: logits [n, vocabulary] of the rows that predict `labels` [n]."""
    return F.cross_entropy(logits.float(), labels, reduction='sum')


def resize_targets(masks, size):
    """Truth masks [N, H, W] bool or uint8 -> [N, h, w] float32 on the grid of the predictions (nearest)."""
    return F.interpolate(masks[:, None].float(), size=size, mode='nearest')[:, 0]


@torch.no_grad()
def match(mask_logits, logits, truth, objective):
    """Hungarian matching of K slots to N truth masks: [K] int64, the mask's index or -1.

    mask_logits [K, h, w]; logits [K]; truth [N, h, w] float. N may not exceed K.
    """
    assigned = torch.full((len(logits),), -1, dtype=torch.int64)
    if len(truth) == 0:
        return assigned
    flat, target = mask_logits.float().flatten(1), truth.flatten(1)
    probability = flat.sigmoid()
    overlap = 2 * probability @ target.T
    dice = 1 - (overlap + MATCH_EPS) / (probability.sum(1)[:, None] + target.sum(1)[None] + MATCH_EPS)
    bce = (F.softplus(-flat) @ target.T + F.softplus(flat) @ (1 - target).T) / flat.shape[1]
    presence = F.softplus(-logits.float())[:, None]
    cost = objective.dice_cost * dice + objective.bce_cost * bce + objective.presence_cost * presence
    slots, masks = linear_sum_assignment(cost.cpu().numpy())
    assigned[torch.from_numpy(slots)] = torch.from_numpy(masks)
    return assigned


def phrase_terms(mask_logits, logits, truth, objective):
    """The Terms of one phrase, and its assignment. Shapes as in `match`; an empty truth teaches absence only."""
    assigned = match(mask_logits, logits, truth, objective)
    slots = (assigned >= 0).nonzero().flatten().to(logits.device)
    presence_target = torch.zeros_like(logits, dtype=torch.float32)
    bce = dice = mask_logits.sum() * 0.0  # keeps the graph whole where nothing is matched
    if len(slots):
        predicted, target = mask_logits[slots].float(), truth[assigned[slots.cpu()].to(truth.device)]
        presence_target[slots] = matched_presence(predicted, target, objective.presence_target)
        if objective.sample_points:
            predicted, target = _at_points(predicted, target, objective)
        else:
            predicted, target = predicted.flatten(1), target.flatten(1)
        bce = F.binary_cross_entropy_with_logits(predicted, target, reduction='none').mean(1).sum()
        probability = predicted.sigmoid()
        dice = dice_loss(probability, target).sum()
    presence = F.binary_cross_entropy_with_logits(logits.float(), presence_target)
    return Terms(bce, dice, len(slots), presence, 1), assigned


def dice_loss(probability, truth):
    """Naive dice loss [N] of probabilities and truth [N, n]."""
    overlap = 2 * (probability * truth).sum(1)
    return 1 - (overlap + DICE_EPS) / (probability.sum(1) + truth.sum(1) + DICE_EPS)


def box_terms(mask_logits, logits, boxes, objective):
    """The Terms of a phrase whose truth is boxes [N, 4] xyxy in 0 to 1: each mask's projections onto both axes must be
    the box's (BoxInst's projection loss). The slots are matched with the filled boxes.
    """
    height, width = mask_logits.shape[-2:]
    truth = _fill(boxes, height, width)
    assigned = match(mask_logits, logits, truth, objective)
    slots = (assigned >= 0).nonzero().flatten().to(logits.device)
    presence_target = torch.zeros_like(logits, dtype=torch.float32)
    dice = mask_logits.sum() * 0.0
    if len(slots):
        presence_target[slots] = 1.0
        probability, target = mask_logits[slots].float().sigmoid(), truth[assigned[slots.cpu()]]
        for axis in (1, 2):  # over rows: the extent in x; over columns: in y
            predicted, filled = probability.amax(axis), target.amax(axis)
            overlap = 2 * (predicted * filled).sum(1)
            sizes = predicted.square().sum(1) + filled.square().sum(1)
            dice = dice + (1 - (overlap + DICE_EPS) / (sizes + DICE_EPS)).sum() / 2
    presence = F.binary_cross_entropy_with_logits(logits.float(), presence_target)
    return Terms(mask_logits.sum() * 0.0, dice, len(slots), presence, 1), assigned


@torch.no_grad()
def matched_presence(mask_logits, target, presence_target):
    """Presence targets [N] of matched masks: 1, or with 'soft_dice' their overlap with the truth, SOFT_FLOOR to 1."""
    if presence_target == 'one':
        return mask_logits.new_ones(len(mask_logits))
    probability, target = mask_logits.sigmoid().flatten(1), target.flatten(1)
    overlap = 2 * (probability * target).sum(1) / (probability.sum(1) + target.sum(1) + 1e-6)
    return overlap.clamp(min=SOFT_FLOOR)


def _fill(boxes, height, width):
    """Boxes [N, 4] xyxy in 0 to 1 as masks [N, height, width] float32; a box always fills a pixel."""
    x = (torch.arange(width, device=boxes.device) + 0.5) / width
    y = (torch.arange(height, device=boxes.device) + 0.5) / height
    half = boxes.new_tensor([0.5 / width, 0.5 / height])
    centre, extent = (boxes[:, :2] + boxes[:, 2:]) / 2, torch.maximum((boxes[:, 2:] - boxes[:, :2]) / 2, half)
    inside_x = (x[None] - centre[:, :1]).abs() <= extent[:, :1]
    inside_y = (y[None] - centre[:, 1:]).abs() <= extent[:, 1:]
    return (inside_y[:, :, None] & inside_x[:, None, :]).float()


def _at_points(mask_logits, truth, objective):
    """Predictions and truth [N, points] at random points, most of them where the prediction is least certain
    (PointRend; the same as Mask2Former's).
    """
    count = objective.sample_points
    with torch.no_grad():
        candidates = torch.rand(len(mask_logits), OVERSAMPLE * count, 2, device=mask_logits.device)
        uncertain = -_sample(mask_logits, candidates).abs()
        important = int(IMPORTANT * count)
        best = uncertain.topk(important, dim=1).indices
        points = torch.gather(candidates, 1, best[..., None].expand(-1, -1, 2))
        rest = torch.rand(len(mask_logits), count - important, 2, device=mask_logits.device)
        points = torch.cat([points, rest], dim=1)
        target = _sample(truth, points)
    return _sample(mask_logits, points), target


def _sample(maps, points):
    """Bilinear values of maps [N, h, w] at points [N, P, 2] (x, y in 0 to 1): [N, P]."""
    return F.grid_sample(maps[:, None], 2 * points[:, :, None] - 1, align_corners=False)[:, 0, :, 0]

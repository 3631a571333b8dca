"""Losses on every detector layer, for any number of query groups: what teaches a detector that knows nothing yet.

DETR's auxiliary losses (arXiv 2005.12872), with groups of queries that do not see each other (Group DETR, 2207.13085):
more slots per object learn in one pass, and inference keeps one group. Masks of inner layers are compared at half
resolution. The semantic head learns the union of what the phrase means.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from scipy.optimize import linear_sum_assignment
from transformers.loss.loss_for_object_detection import generalized_box_iou

from instructsam.train.losses.mask_losses import DICE_EPS, dice_loss, matched_presence


@dataclass(frozen=True)
class LayerWeights:
    """Of the losses; the matching costs are the same but for the overlap of boxes."""

    mask_bce: float = 5.0
    mask_dice: float = 2.0
    box_l1: float = 2.0
    box_giou: float = 1.0
    presence: float = 2.0
    semantic: float = 1.0


TERMS = {  # of layer_losses, and what each goes over
    'mask_bce': 'masks', 'mask_dice': 'masks', 'box_l1': 'masks', 'box_giou': 'masks', 'presence': 'phrases',
    'semantic': 'phrases',
}  # fmt: skip


@dataclass
class LayerOutputs:
    """Of L layers, P phrases, G groups of K slots."""

    hidden: torch.Tensor  # [L, P, G, K, d]
    logits: torch.Tensor  # [L, P, G, K]
    boxes: torch.Tensor  # [L, P, G, K, 4] xyxy, 0 to 1
    encoded: torch.Tensor  # [P, rows, columns, d] what the phrase makes of SAM3's features
    pixels: torch.Tensor | None = None  # [P, d, h, w] to be dotted with mask embeddings; None: no masks
    semantic: torch.Tensor | None = None  # [P, h, w] logits


def detect_layers(model, features, queries, references, phrase_ids, masks=True):
    """SAM3 on P phrases.

    features: of a phrase's image each; queries [P, G, K, d]; references [P, G, K, 4] before the sigmoid; masks: False
    stops at boxes. Returns LayerOutputs.
    """
    sam = model.grounding
    phrases, groups, slots = queries.shape[:3]
    text, mask = model.phrase_conditioning(phrase_ids, 'consistent')
    encoded, position, size = sam.fuse(features, text, mask)

    def grouped(values):
        return values.repeat_interleave(groups, 0)

    hidden, references = sam.detr_decoder(
        queries.flatten(0, 1),
        grouped(encoded),
        grouped(position),
        grouped(text),
        grouped(mask),
        size,
        references.flatten(0, 1),
    )
    logits = sam.dot_product_scoring(hidden, grouped(text), grouped(mask)).squeeze(-1)
    shape = (len(hidden), phrases, groups, slots)
    outputs = LayerOutputs(
        hidden.view(*shape, -1),
        logits.view(shape),
        sam.boxes(hidden, references).view(*shape, 4),
        encoded.view(phrases, *size, -1),
    )
    if masks:
        pixels = sam.pixel_embeddings(features.pyramid, encoded, text, mask)
        outputs.pixels = sam.mask_decoder.instance_projection(pixels)
        outputs.semantic = sam.mask_decoder.semantic_projection(pixels)[:, 0]
    return outputs


def layer_losses(model, outputs, masks, weights=LayerWeights(), presence_target='one'):
    """Sums over phrases or masks, each the mean over layers and groups: {term: (sum, 'phrases' | 'masks')}; without
    those of masks where `outputs` has none.

    masks: a phrase each, [N, H, W] bool. presence_target: of a matched slot, as in objective.Objective.
    """
    if outputs.pixels is None:
        return _box_losses(outputs, masks, weights)
    layers, phrases, groups, slots = outputs.logits.shape
    height, width = outputs.pixels.shape[-2:]
    truth = [F.interpolate(each[:, None].float(), size=(height, width), mode='area')[:, 0] for each in masks]  # shares
    boxes = [tight_boxes(each).to(outputs.boxes) for each in masks]
    # all slots of a phrase side by side: [P, L * G * K, ...], the last layer's at the end
    hidden, logits, found = (
        values.transpose(0, 1).flatten(1, 3) for values in (outputs.hidden, outputs.logits, outputs.boxes)
    )
    embeddings = model.grounding.mask_decoder.mask_embedder(hidden)
    fine = outputs.pixels.permute(0, 2, 3, 1).flatten(1, 2)  # [P, hw, d]
    coarse = F.avg_pool2d(outputs.pixels, 2).permute(0, 2, 3, 1).flatten(1, 2)
    coarse = torch.bmm(embeddings, coarse.transpose(1, 2))  # [P, LGK, hw / 4]
    last = (layers - 1) * groups * slots  # first slot of the last layer

    is_present = torch.zeros_like(logits)
    pairs = []  # predicted mask logits and truth [M, n], of inner layers at half the resolution
    box_pairs = []
    # unbound, for the gradient of an index is as large as what is indexed
    each = zip(embeddings.unbind(), fine.unbind(), coarse.unbind(), logits.unbind(), found.unbind(), truth, boxes)
    for phrase, (slot, pixels, predicted, scores, placed, mask, box) in enumerate(each):
        if not len(mask):
            continue
        half = F.avg_pool2d(mask[:, None], 2).flatten(1)
        rows, columns = _match(predicted, scores, placed, half, box, slots, weights)
        is_present[phrase, rows] = matched_presence(predicted[rows], half[columns], presence_target).to(is_present)
        box_pairs.append((placed[rows], box[columns]))
        inner = rows < last
        if inner.any():
            pairs.append((predicted[rows[inner]], half[columns[inner]]))
        pairs.append((slot[rows[~inner]] @ pixels.T, mask.flatten(1)[columns[~inner]]))

    repeats = layers * groups
    zero = outputs.pixels.sum() * 0.0
    bce = dice = zero
    for predicted, target in pairs:
        bce = bce + F.binary_cross_entropy_with_logits(predicted, target, reduction='none').mean(1).sum()
        dice = dice + dice_loss(predicted.sigmoid(), target).sum()
    union = torch.stack([each.amax(0) if len(each) else each.new_zeros(height, width) for each in truth]).flatten(1)
    semantic = outputs.semantic.flatten(1)
    semantic_loss = F.binary_cross_entropy_with_logits(semantic, union, reduction='none').mean(1)
    semantic_loss = weights.mask_bce * semantic_loss + dice_loss(semantic.sigmoid(), union)
    return {
        'mask_bce': (weights.mask_bce * bce / repeats, 'masks'),
        'mask_dice': (weights.mask_dice * dice / repeats, 'masks'),
        **_placing_losses(outputs, box_pairs, logits, is_present, weights),
        'semantic': (weights.semantic * semantic_loss.sum(), 'phrases'),
    }


def _box_losses(outputs, masks, weights):
    """layer_losses of boxes and presence alone, matched by them."""
    slots = outputs.logits.shape[-1]
    boxes = [tight_boxes(each).to(outputs.boxes) for each in masks]
    logits, found = (values.transpose(0, 1).flatten(1, 3) for values in (outputs.logits, outputs.boxes))
    is_present = torch.zeros_like(logits)
    pairs = []
    for phrase, (scores, placed, box) in enumerate(zip(logits.unbind(), found.unbind(), boxes)):
        if len(box):
            with torch.no_grad():
                cost = weights.box_l1 * torch.cdist(placed, box, p=1)
                cost = cost - weights.box_giou * generalized_box_iou(placed, box)
                cost = cost + weights.presence * F.softplus(-scores)[:, None]
            rows, columns = _assign(cost, slots)
            is_present[phrase, rows] = 1.0
            pairs.append((placed[rows], box[columns]))
    return _placing_losses(outputs, pairs, logits, is_present, weights)


def _placing_losses(outputs, pairs, logits, is_present, weights):
    """The terms of boxes and presence: matched and true boxes ([N, 4], [N, 4]) of some phrases, logits and truth
    [P, LGK].
    """
    layers, _, groups, slots = outputs.logits.shape
    repeats = layers * groups
    nothing = outputs.boxes.flatten(0, -2)[:0]  # keeps the graph whole where nothing is matched
    l1, giou = box_distances(*(torch.cat([nothing, *boxes]) for boxes in (zip(*pairs) if pairs else ((), ()))))
    presence = F.binary_cross_entropy_with_logits(logits, is_present, reduction='none').sum() / slots
    return {
        'box_l1': (weights.box_l1 * l1 / repeats, 'masks'),
        'box_giou': (weights.box_giou * giou / repeats, 'masks'),
        'presence': (weights.presence * presence / repeats, 'phrases'),
    }


def box_distances(boxes, true):
    """Sums of L1 and of 1 - generalized IoU of pairs of boxes [N, 4] xyxy."""
    return (boxes - true).abs().sum(), (1 - generalized_box_iou(boxes, true).diagonal()).sum()


@torch.no_grad()
def _match(coarse, logits, boxes, truth, true_boxes, slots, weights):
    """Hungarian matching in each layer and group of a phrase: rows among all LGK slots, and the truth's columns."""
    probability = coarse.sigmoid()
    overlap = 2 * probability @ truth.T
    dice = 1 - (overlap + DICE_EPS) / (probability.sum(1)[:, None] + truth.sum(1)[None] + DICE_EPS)
    bce = F.softplus(coarse).mean(1)[:, None] - coarse @ truth.T / coarse.shape[1]
    return _assign(
        weights.mask_bce * bce
        + weights.mask_dice * dice
        + weights.box_l1 * torch.cdist(boxes, true_boxes, p=1)
        + weights.presence * F.softplus(-logits)[:, None],
        slots,
    )


def _assign(cost, slots):
    """Cheapest one to one pairs in each of the groups of `slots` rows of cost [LGK, N]: rows and columns."""
    cost = cost.cpu().numpy()
    rows, columns = [], []
    for first in range(0, len(cost), slots):
        row, column = linear_sum_assignment(cost[first : first + slots])
        rows += (first + row).tolist()
        columns += column.tolist()
    return torch.tensor(rows), torch.tensor(columns)


def tight_boxes(masks):
    """Boxes [N, 4] xyxy, 0 to 1, of masks [N, H, W] bool; an empty mask has the whole picture."""
    height, width = masks.shape[1:]
    x, y = masks.any(1), masks.any(2)
    left, top = x.int().argmax(1), y.int().argmax(1)
    right, bottom = width - x.flip(1).int().argmax(1), height - y.flip(1).int().argmax(1)
    return torch.stack([left / width, top / height, right / width, bottom / height], dim=1)


def add(losses, more):
    """Adds the sums in `more` to those in `losses`, in place."""
    for name, (value, count) in more.items():
        losses[name] = (losses[name][0] + value if name in losses else value), count

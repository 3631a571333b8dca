"""One training step's forward pass: a batch through the language model, the bridge and SAM3, to the loss terms."""
from dataclasses import dataclass

import torch

from instructsam.core.grounding import ImageFeatures
from instructsam.train.conversation import IGNORED, TextBatch
from instructsam.train.objective import Terms, answer_loss, box_terms, phrase_terms, resize_targets

GROUPS_PER_CALL = 5  # phrases that share one detector call


@dataclass
class Batch:
    """B samples. Images are inputs of the two encoders, see core.preprocess."""

    text: TextBatch
    patches: torch.Tensor  # [P, 3 * t * p * p] of all images
    grids: list[tuple[int, int, int]]  # (1, rows, columns) in patches, an image each
    pixels: torch.Tensor  # [B, 3, S, S] SAM3's input
    masks: list[torch.Tensor]  # a phrase each: [N, H, W] bool, N = 0 where nothing is there or only boxes are known
    boxes: list[torch.Tensor]  # a phrase each: [N, 4] xyxy 0 to 1


@dataclass
class Output:
    """Sums, so that the caller divides by the counts of a whole step, and what was matched."""

    answer: torch.Tensor  # cross-entropy over supervised tokens
    tokens: int
    terms: Terms
    assigned: list[torch.Tensor]  # a phrase each, [K]


def forward(model, batch, objective, groups_per_call=GROUPS_PER_CALL):
    """The loss terms of a batch, with gradients. Only supervised rows get logits."""
    text = batch.text
    hidden = read(model, batch)
    rows = (text.labels[:, 1:] != IGNORED).nonzero(as_tuple=True)
    labels = text.labels[:, 1:][rows].to(hidden.device)
    answer = answer_loss(model.token_logits(hidden[:, :-1][rows]), labels)
    if not text.blocks:
        zero = hidden.sum() * 0.0
        return Output(answer, len(labels), Terms(zero, zero, 0, zero, 0), [])

    features = model.grounding.encode(batch.pixels)
    total, assigned = None, []
    for start in range(0, len(text.blocks), groups_per_call):
        chunk = slice(start, start + groups_per_call)
        output = detect(model, features, hidden, text.blocks[chunk], text.phrase_ids[chunk])
        for group, index in enumerate(range(start, min(start + groups_per_call, len(text.blocks)))):
            masks, logits = output.mask_logits[group], output.logits[group]
            if len(batch.boxes[index]):
                terms, found = box_terms(masks, logits, batch.boxes[index].to(masks.device), objective)
            else:
                truth = resize_targets(batch.masks[index].to(masks.device), masks.shape[-2:])
                terms, found = phrase_terms(masks, logits, truth, objective)
            total = terms if total is None else total + terms
            assigned.append(found)
    return Output(answer, len(labels), total, assigned)


def read(model, batch):
    """Hidden states [B, L, h] of the whole batch: image embeddings and the query bank put in their places."""
    text = batch.text
    device = model.device
    image, deepstack = model.encode_image(batch.patches, *batch.grids)
    embeds = model.embed(text.ids.to(device))
    is_image = text.is_image.to(device)
    embeds = embeds.masked_scatter(is_image[..., None], image.to(embeds.dtype))
    is_query = torch.zeros_like(is_image)
    for sample, rows in text.blocks:
        is_query[sample, rows] = True
    queries = model.model.mask_queries.repeat(len(text.blocks), 1)
    embeds = embeds.masked_scatter(is_query[..., None], queries.to(embeds.dtype))
    return model.decode(embeds, text.positions.to(device), text.mask.to(device), None, is_image, deepstack)


def detect(model, features, hidden, blocks, phrase_ids):
    """SAM3 on some phrases of a batch, each on the image of its sample. Returns core.grounding.Detections."""
    samples = [sample for sample, _ in blocks]
    own = ImageFeatures(tuple(level[samples] for level in features.pyramid), features.position[:1])
    queries = model.slot_queries(torch.stack([hidden[sample, rows] for sample, rows in blocks]))
    text, mask = model.phrase_conditioning(phrase_ids, 'consistent')
    return model.grounding(own, queries, text, mask)

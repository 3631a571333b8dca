"""One training step's forward pass: a batch through the language model, the bridge and SAM3, to the loss terms."""

from dataclasses import dataclass

import torch

from instructsam.core.model.grounding import ImageFeatures
from instructsam.train.data.dialogue import IGNORED, TextBatch
from instructsam.train.losses.mask_losses import Terms, answer_loss, box_terms, phrase_terms, resize_targets

PHRASES_PER_CALL = 5  # phrases that share one detector call; bounds memory


@dataclass
class Batch:
    """B samples. Images are inputs of the two encoders, see core.preprocess."""

    text: TextBatch
    patches: torch.Tensor  # [P, 3 * t * p * p] of all images
    grids: list[tuple[int, int, int]]  # (1, rows, columns) in patches, an image each
    pixels: torch.Tensor  # [B, 3, S, S] SAM3's input
    masks: list[torch.Tensor]  # a phrase each: [N, H, W] bool, N = 0 where nothing is there or only boxes are known
    boxes: list[torch.Tensor]  # a phrase each: [N, 4] xyxy 0 to 1
    chosen: list[int] | None = None  # the phrases that reach the detector (of those that have queries); None: all

    def __post_init__(self):
        chosen = range(len(self.text.blocks)) if self.chosen is None else self.chosen
        self.chosen = [index for index in chosen if self.queries(index)]

    def queries(self, index):
        """How many the phrase `index` has: K, but for mode autoregressive."""
        rows = self.text.blocks[index][1]
        return rows.stop - rows.start

    def calls(self, phrases_per_call):
        """The chosen phrases, as many together as share a detector call: all of them with equally many queries."""
        alike = {}
        for index in self.chosen:
            alike.setdefault(self.queries(index), []).append(index)
        return [
            some[first : first + phrases_per_call]
            for some in alike.values()
            for first in range(0, len(some), phrases_per_call)
        ]

    def counts(self):
        """What loss sums are divided by."""
        return {
            'tokens': int((self.text.labels[:, 1:] != IGNORED).sum()),
            'blocks': len(self.text.blocks),
            'all_masks': sum(map(len, self.masks)),
            'phrases': len(self.chosen),
            'masks': sum(len(self.masks[index]) + len(self.boxes[index]) for index in self.chosen),
        }


@dataclass
class Output:
    """Sums, so that the caller divides by the counts of a whole step, and what was matched."""

    answer: torch.Tensor  # cross-entropy over supervised tokens
    tokens: int
    terms: Terms
    assigned: list[torch.Tensor]  # a phrase each, [K]


def forward(model, batch, objective, phrases_per_call=PHRASES_PER_CALL):
    """The loss terms of a batch, with gradients."""
    hidden = read(model, batch)
    answer, _ = answer_terms(model, batch, hidden)['answer']
    tokens = batch.counts()['tokens']
    zero = hidden.sum() * 0.0
    total, assigned = Terms(zero, zero, 0, zero, 0), []
    if not batch.chosen:
        return Output(answer, tokens, total, assigned)

    features = model.grounding.encode(batch.pixels)
    for chosen in batch.calls(phrases_per_call):
        output = detect(model, features, hidden, batch, chosen)
        for group, index in enumerate(chosen):
            masks, logits = output.mask_logits[group], output.logits[group]
            if len(batch.boxes[index]):
                terms, found = box_terms(masks, logits, batch.boxes[index].to(masks.device), objective)
            else:
                truth = resize_targets(batch.masks[index].to(masks.device), masks.shape[-2:])
                terms, found = phrase_terms(masks, logits, truth, objective)
            total = total + terms
            assigned.append(found)
    return Output(answer, tokens, total, assigned)


def answer_terms(model, batch, hidden):
    """The answer's loss sum, as a stage gives its losses. Only supervised rows get logits."""
    rows = (batch.text.labels[:, 1:] != IGNORED).nonzero(as_tuple=True)
    labels = batch.text.labels[:, 1:][rows].to(hidden.device)
    return {'answer': (answer_loss(model.token_logits(hidden[:, :-1][rows]), labels), 'tokens')}


def read(model, batch, visual=None):
    """Hidden states [B, L, h] of the whole batch: image embeddings and the query bank put in their places.

    visual: what `model.encode_image` returned for the batch, where the caller wants it too.
    """
    text = batch.text
    device = model.device
    image, deepstack = visual or model.encode_image(batch.patches, *batch.grids)
    embeds = model.embed(text.ids.to(device))
    is_image = text.is_image.to(device)
    embeds = embeds.masked_scatter(is_image[..., None], image.to(embeds.dtype))
    is_query = torch.zeros_like(is_image)
    blocks = text.blocks if text.has_bank else []  # else they are tokens like all others
    for sample, rows in blocks:
        is_query[sample, rows] = True
    queries = model.model.mask_queries.repeat(len(blocks), 1)
    embeds = embeds.masked_scatter(is_query[..., None], queries.to(embeds.dtype))
    return model.decode(embeds, text.positions.to(device), text.mask.to(device), None, is_image, deepstack)


def detect(model, features, hidden, batch, chosen):
    """SAM3 on the phrases `chosen`, each on the image of its sample. Returns core.grounding.Detections."""
    queries = slot_queries(model, hidden, batch, chosen)
    text, mask = model.phrase_conditioning([batch.text.phrase_ids[index] for index in chosen], 'consistent')
    return model.grounding(features_of(features, batch, chosen), queries, text, mask)


def slot_queries(model, hidden, batch, chosen):
    """The detector's queries [P, K, d] of the phrases `chosen`."""
    blocks = [batch.text.blocks[index] for index in chosen]
    return model.slot_queries(torch.stack([hidden[sample, rows] for sample, rows in blocks]))


def token_grid(grid, tokens):
    """(rows, columns) of an image's `tokens` tokens in the language model; grid: (1, rows, columns) in patches."""
    _, rows, columns = grid
    merge = round((rows * columns / tokens) ** 0.5)
    return rows // merge, columns // merge


def features_of(features, batch, chosen):
    """For each of the phrases `chosen` the ImageFeatures of its sample."""
    samples = torch.tensor([batch.text.blocks[index][0] for index in chosen], device=features.position.device)
    # not level[samples], whose gradient several threads add up in any order
    return ImageFeatures(tuple(level.index_select(0, samples) for level in features.pyramid), features.position[:1])

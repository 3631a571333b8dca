"""Forward passes that the stages share: a batch through the language model, the bridge and SAM3."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import nn

from instructsam.core.errors import DataError
from instructsam.core.model.grounding import Detections, PreparedFeatures
from instructsam.core.model.instructsam import EncoderInputs, InstructSAMModel, VisualFeatures
from instructsam.train.data.batch import Batch
from instructsam.train.data.dialogue import IGNORED
from instructsam.train.losses.boxes import box_terms
from instructsam.train.losses.deep_supervision import LayerOutputs
from instructsam.train.losses.loss_sum import LossSum
from instructsam.train.losses.mask_losses import MaskTerms, answer_loss, phrase_terms, resize_targets
from instructsam.train.losses.objective import Objective
from instructsam.train.losses.pointing import Pointing

PHRASES_PER_CALL = 5
"""Default number of phrases that share one detector call; it bounds memory."""


def published_losses(
    model: InstructSAMModel,
    batch: Batch,
    objective: Objective,
    phrases_per_call: int = PHRASES_PER_CALL,
    *,
    always_detect: bool = False,
) -> dict[str, LossSum]:
    """Return the weighted loss sums of a batch with the published objective (paper, section 3.4).

    Args:
        model: The model.
        batch: The batch.
        objective: Weights and choices of the losses.
        phrases_per_call: Phrases that share one detector call.
        always_detect: Run SAM3 on a batch without detected phrases, too, see `with_idle_phrase`.
    """
    inputs = encoder_inputs(model, batch)
    hidden = read(model, batch, model.encode_image(inputs.patches, *inputs.grids))
    losses = answer_losses(model, batch, hidden) | phrase_score_losses(model, batch, hidden)
    zero = hidden.sum() * 0.0
    total = MaskTerms(zero, zero, zero)
    is_idle = always_detect and not batch.detected_phrases
    if is_idle:
        batch = with_idle_phrase(model, batch)
    if batch.detected_phrases:
        grounding = model.grounding
        features = grounding.prepare(grounding.encode(inputs.pixels, inputs.lateral_maps))
        for phrases in batch.detector_calls(phrases_per_call):
            output = detect(model, features, hidden, batch, phrases)
            for group, index in enumerate(phrases):
                masks, logits = output.mask_logits[group], output.logits[group]
                if len(batch.boxes[index]):
                    loss = box_terms(masks, logits, batch.boxes[index].to(masks.device), objective)
                else:
                    ground_truth = resize_targets(batch.masks[index].to(masks.device), masks.shape[-2:])
                    loss = phrase_terms(masks, logits, ground_truth, objective)
                total = total + loss.terms
    terms = total.loss_sums(objective)
    if is_idle:
        terms = {name: term.scaled(0.0) for name, term in terms.items()}
    return {**losses, **terms}


def with_idle_phrase(model: InstructSAMModel, batch: Batch) -> Batch:
    """Return a batch without detected phrases with one phrase that is detected; its loss terms are to be scaled by 0.

    With FSDP, each process has to run the same modules and to have gradients of the same parameters, because the
    processes gather and reduce them together. The slots of the phrase are the first rows of the first sample.
    """
    text = batch.text
    rows = slice(0, min(model.config.num_queries, text.ids.shape[1]))
    text = replace(
        text,
        blocks=[*text.blocks, (0, rows)],
        phrase_ids=[*text.phrase_ids, [model.config.tokens.phrase_start]],
        shorter_ids=[*text.shorter_ids, []],
        partial=[*text.partial, False],
    )
    masks = [*batch.masks, torch.zeros(0, 1, 1, dtype=torch.bool, device=batch.pixels.device)]
    boxes = [*batch.boxes, torch.zeros(0, 4, device=batch.pixels.device)]
    return replace(batch, text=text, masks=masks, boxes=boxes, detected=[len(text.blocks) - 1])


def require_masks(batch: Batch, remedy: str) -> None:
    """Raise DataError, with a remedy, if a sample has boxes only."""
    if any(len(boxes) for boxes in batch.boxes):
        raise DataError(f'masks are needed, but a sample has boxes only: {remedy}')


def answer_losses(model: InstructSAMModel, batch: Batch, hidden: torch.Tensor) -> dict[str, LossSum]:
    """Return the loss sum of the answers; only supervised rows get token logits, which bounds memory and time."""
    rows = (batch.text.labels[:, 1:] != IGNORED).nonzero(as_tuple=True)
    labels = batch.text.labels[:, 1:][rows].to(hidden.device)
    return {'answer': LossSum(answer_loss(model.token_logits(hidden[:, :-1][rows]), labels), 'tokens')}


def phrase_score_losses(model: InstructSAMModel, batch: Batch, hidden: torch.Tensor) -> dict[str, LossSum]:
    """Return the loss sum of the phrase scores, the binary cross-entropy with having any target; {} without them.

    All phrases count, not only those that reach SAM3.
    """
    if not model.config.phrase_scores:
        return {}
    loss = model.phrase_scores(hidden[0, :1]) * 0.0  # with FSDP, each process needs gradients of the same parameters
    for index, (sample, rows) in enumerate(batch.text.blocks):
        if batch.num_queries(index):  # in mode autoregressive, a phrase that refers to nothing has no slots
            score = model.phrase_scores(hidden[sample, rows])
            has_target = len(batch.masks[index]) + len(batch.boxes[index]) > 0
            loss = loss + F.binary_cross_entropy_with_logits(score, torch.full_like(score, has_target))
    return {'phrase_score': LossSum(loss, 'blocks')}


def encoder_inputs(model: InstructSAMModel, batch: Batch) -> EncoderInputs:
    """Return the inputs of both image encoders for a batch."""
    return model.encoder_inputs(batch.pixels, batch.patches, batch.grids)


def read(model: InstructSAMModel, batch: Batch, visual: VisualFeatures) -> torch.Tensor:
    """Return the hidden states [B, L, h] of a batch, with its image features and the query bank inserted."""
    text = batch.text
    device = model.device
    embeds = model.embed(text.ids.to(device))
    is_image = text.is_image.to(device)
    embeds = embeds.masked_scatter(is_image[..., None], visual.embeddings.to(embeds.dtype))
    is_query = torch.zeros_like(is_image)
    blocks = text.blocks if text.has_bank else []  # without a bank, mask tokens are ordinary tokens
    for sample, rows in blocks:
        is_query[sample, rows] = True
    queries = model.model.mask_queries.repeat(len(blocks), 1)
    embeds = embeds.masked_scatter(is_query[..., None], queries.to(embeds.dtype))
    return model.decode(embeds, text.positions.to(device), text.mask.to(device), is_image, visual.deepstack)


def read_and_point(
    model: InstructSAMModel, batch: Batch, visual: VisualFeatures, pointing: Pointing | None
) -> tuple[torch.Tensor, dict[str, LossSum]]:
    """Return what `read` returns, and the losses of `pointing`, if it is given."""
    if pointing is None:
        return read(model, batch, visual), {}
    layers = model.model.language_model.layers
    kept: list[torch.Tensor] = []

    def keep(_layer: nn.Module, _arguments: object, output: torch.Tensor) -> None:
        kept.append(output)

    hook = layers[len(layers) // 2].register_forward_hook(keep)
    try:
        hidden = read(model, batch, visual)
    finally:
        hook.remove()
    (middle,) = kept
    return hidden, pointing(model, hidden, middle, batch)


def detect(
    model: InstructSAMModel, features: PreparedFeatures, hidden: torch.Tensor, batch: Batch, phrases: Sequence[int]
) -> Detections:
    """Run SAM3 on `phrases` (indices in the batch), each on the image of its sample."""
    ids, mask = model.pad_phrases([batch.text.phrase_ids[index] for index in phrases])
    image = features.of_groups(images_of(batch, phrases))
    return model.detect(image, slot_states(hidden, batch, phrases), ids, mask, 'consistent')


class PhraseCall(NamedTuple):
    """Phrases that share one detector call."""

    phrases: list[int]  # indices in the batch
    phrase_ids: list[list[int]]  # token ids that condition SAM3
    are_partial: bool  # they may describe more objects than their targets: only the slots can tell which are meant


def phrase_calls(batch: Batch, phrases_per_call: int, short_phrases: float = 0.0) -> list[PhraseCall]:
    """Group the detected phrases into calls; some are conditioned on a shorter form (phrase dropout).

    The targets stay those of the whole phrase.

    Args:
        batch: The batch.
        phrases_per_call: Largest number of phrases in a call.
        short_phrases: Probability of each shorter form; a phrase with many of them is replaced most often.
    """
    text = batch.text
    short = {}
    if short_phrases:
        for index, drawn in enumerate((torch.rand(len(text.blocks)) / short_phrases).int().tolist()):
            if drawn < len(text.shorter_ids[index]):
                short[index] = text.shorter_ids[index][drawn]
    partial = {index for index, is_partial in enumerate(text.partial) if is_partial or index in short}
    return [
        PhraseCall(phrases, [short.get(index, text.phrase_ids[index]) for index in phrases], phrases[0] in partial)
        for phrases in batch.detector_calls(phrases_per_call, partial)
    ]


def detect_layers(
    model: InstructSAMModel,
    features: PreparedFeatures,
    queries: torch.Tensor,
    references: torch.Tensor,
    phrase_ids: list[list[int]],
    scores: torch.Tensor | None = None,
) -> LayerOutputs:
    """Run SAM3 on P phrases with G groups of K slots and keep the outputs of every decoder layer.

    Args:
        model: The model.
        features: Features of the image of each phrase; those for boxes only give no pixel embeddings and semantic map.
        queries: [P, G, K, d].
        references: Reference boxes [P, G, K, 4] before the sigmoid.
        phrase_ids: Token ids of each phrase.
        scores: Logits [P, G, K] that are added to those of every layer.
    """
    sam = model.grounding
    phrases, groups, slots = queries.shape[:3]
    text, mask = model.phrase_conditioning(phrase_ids, 'consistent')
    encoded = sam.fuse(features, text, mask)

    def per_group(values: torch.Tensor) -> torch.Tensor:
        return values.repeat_interleave(groups, 0)

    hidden, references = sam.detr_decoder(
        queries.flatten(0, 1),
        per_group(encoded),
        features.position,
        per_group(text),
        per_group(mask),
        features.side,
        references.flatten(0, 1),
    )
    logits = sam.dot_product_scoring(hidden, per_group(text), per_group(mask)).squeeze(-1)
    shape = (len(hidden), phrases, groups, slots)
    outputs = LayerOutputs(
        hidden.view(*shape, -1),
        logits.view(shape) if scores is None else logits.view(shape) + scores,
        sam.boxes(hidden, references).view(*shape, 4),
        encoded.view(phrases, features.side, features.side, -1),
    )
    if features.levels:
        pixels = sam.pixel_maps(features, encoded, text, mask)
        projection = sam.mask_decoder.semantic_projection
        assert projection.bias is not None  # SAM3's has one
        outputs.pixels = pixels
        semantic = projection.weight.flatten(1) @ pixels.flatten(2) + projection.bias
        outputs.semantic = semantic.view(phrases, *pixels.shape[-2:])
    return outputs


def slot_states(hidden: torch.Tensor, batch: Batch, phrases: Sequence[int]) -> torch.Tensor:
    """Return the hidden states [P, K, h] at the queries of `phrases` (indices in the batch)."""
    blocks = [batch.text.blocks[index] for index in phrases]
    return torch.stack([hidden[sample, rows] for sample, rows in blocks])


def slot_inputs(
    model: InstructSAMModel, hidden: torch.Tensor, batch: Batch, phrases: Sequence[int]
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return the inputs of `detect_layers`: queries [P, 1, K, d], references [P, 1, K, 4] and scores [P, 1, K]."""
    slots = slot_states(hidden, batch, phrases)[:, None]
    return model.slot_queries(slots), model.slot_references(slots), model.slot_scores(slots)


def images_of(batch: Batch, phrases: Sequence[int]) -> list[int]:
    """Return the index of the image of each of `phrases` (indices in the batch)."""
    return [batch.text.blocks[index][0] for index in phrases]


def is_trainable(module: nn.Module) -> bool:
    """Return whether any parameter of `module` has a gradient."""
    return any(parameter.requires_grad for parameter in module.parameters())

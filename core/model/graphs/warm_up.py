"""Recording all stages when a model is loaded, and the check that they give the results of the plain stages."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import torch

from instructsam.core.errors import ModelError
from instructsam.core.model.graphs.stages import GROUP_BUCKETS, Stages, new_stages
from instructsam.core.model.graphs.static_sequence import TEXT_BUCKETS
from instructsam.core.model.instructsam import EncoderInputs, InstructSAMModel
from instructsam.core.model.prompt import Prompter

logger = logging.getLogger(__name__)

TOLERANCES = {torch.float32: 2e-3}
"""Largest difference to the plain stages, as a share of the largest value; other precisions: ROUGH."""

ROUGH = 0.1


def compiled_stages(
    model: InstructSAMModel, mode: str, how: str, prompter: Prompter, inputs: EncoderInputs, *, strict: bool
) -> Stages:
    """Return stages that have been recorded and checked.

    Args:
        model: The network.
        mode: One of `core.modes.MODES`.
        how: graphs or inductor, see `core.modes.COMPILE`.
        prompter: The model's tokenizer and chat template.
        inputs: The encoders' inputs for an image of the size that is expected.
        strict: Whether a fault is an error; otherwise, the plain stages are returned, and the log says why.

    Raises:
        ModelError: The stages cannot be recorded, or give other results.
    """
    try:
        stages = new_stages(model, mode, how)
        record_all(stages, prompter, inputs)
    except Exception as error:  # compilers and drivers raise exceptions of many types
        reason = str(error).strip().partition('\n')[0]
        if strict:
            raise ModelError(f'compile {how} does not work for this model on this machine: {reason}') from error
        logger.warning('the model runs without compiled stages, because %s does not work here: %s', how, reason)
        return Stages(model, mode)
    return stages


@torch.inference_mode()
def record_all(stages: Stages, prompter: Prompter, inputs: EncoderInputs) -> None:
    """Run every stage in every bucket, and compare the results with those of the plain stages.

    Raises ModelError if they differ.
    """
    steps = _compared(stages, Stages(stages.model, stages.mode), prompter, inputs)
    for number, (name, got, expected) in enumerate(steps, start=1):
        logger.info('compiled %s (%d of %d)', name, number, 3 + 1 + len(TEXT_BUCKETS) + len(GROUP_BUCKETS))
        largest = expected.float().abs().max()
        difference = float((got.float() - expected.float()).abs().max() / largest.clamp(min=1e-6))
        if not difference <= TOLERANCES.get(stages.model.dtype, ROUGH):  # also for NaN
            raise ModelError(f'the results of {name} differ by {difference:.2g} of the largest value')


def _compared(
    stages: Stages, plain: Stages, prompter: Prompter, inputs: EncoderInputs
) -> Iterator[tuple[str, torch.Tensor, torch.Tensor]]:
    """Yield the name of a stage, its result, and that of the plain one."""
    features, expected = (each.image_features(inputs) for each in (stages, plain))
    yield "SAM3's encoder", features.attended, expected.attended
    visual, plain_visual = (each.visual_features(inputs) for each in (stages, plain))
    yield "Qwen's vision tower", visual.embeddings, plain_visual.embeddings
    prefix, plain_prefix = (each.prefix(plain_visual, inputs.grids[0], prompter) for each in (stages, plain))
    yield 'the prefill of an image', prefix.cache.rows()[1], plain_prefix.cache.rows()[1]
    word = prompter.instruction_ids('object')[0]
    sequence, plain_sequence = stages.sequence(plain_prefix), plain.sequence(plain_prefix)
    for bucket in TEXT_BUCKETS:
        ids = [word] * bucket
        got, wanted = (each.add_text(ids).hidden[:, -1] for each in (sequence, plain_sequence))
        yield f'the prefill of {bucket} tokens', got.clone(), wanted
    tokens = stages.model.config.tokens
    for each in (sequence, plain_sequence):
        each.add_answer([tokens.phrase_start])
        each.add_answer([word, tokens.phrase_end])
    yield 'a query block', sequence.groups[0].hidden, plain_sequence.groups[0].hidden
    for count in GROUP_BUCKETS:
        masks, wanted = (each.detect(expected, plain_sequence.groups * count)[0] for each in (stages, plain))
        yield f'the detector on {count} phrases', masks, wanted

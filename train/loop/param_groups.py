"""The parts of the model that have learning rates of their own, and the optimizer's parameter groups."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import nn

from instructsam.train.loop.recipe import LearningRates, RecipeError
from instructsam.train.optimizers.muon import is_hidden_matrix

# Prefixes of names that all types of checkpoints share; the first match decides.
_PREFIXES = (
    ('trunk', 'model.trunk.'),
    ('image_encoder', 'model.grounding_model.model.laterals.'),
    ('image_encoder', 'model.grounding_model.model.vision_encoder.'),
    ('projector', 'model.visual.merger.'),
    ('projector', 'model.visual.deepstack_merger_list.'),
    ('vision', 'model.visual.'),
    ('language', 'model.language_model.'),
    ('slots', 'model.mask_queries'),
    ('slots', 'model.reference_fcs.'),
    ('slots', 'model.score_fc.'),
    ('decoder', 'model.'),
)
# Parameters of the published file that nothing reads: weight decay would change them, and DDP would wait for their
# gradients.
_UNUSED = (
    'model.grounding_model.model.text_projection.',
    'model.grounding_model.model.geometry_encoder.',
)


def part_of(name: str) -> str | None:
    """Return the LearningRates key of a parameter of the model, or None if nothing reads the parameter."""
    if name.startswith(_UNUSED):
        return None
    return next(part for part, prefix in _PREFIXES if name.startswith(prefix))


def parameter_groups(
    training: nn.Module, learning_rates: LearningRates, weight_decay: float, muon: float = 0.0
) -> list[dict[str, Any]]:
    """Freeze the parameters without a learning rate and return one optimizer group per part.

    1-D parameters are in groups of their own, without weight decay; so are matrices for Muon.

    Args:
        training: A stage's module, with the model in `.model`; everything else in it is auxiliary heads.
        learning_rates: Learning rate of each part.
        weight_decay: Weight decay of parameters with two or more dimensions.
        muon: Train matrices of layers with Muon, at this multiple of their part's learning rate; 0: AdamW for all.

    Raises:
        RecipeError: If every parameter is frozen.
    """
    groups: dict[tuple[str, bool, bool], dict[str, Any]] = {}
    for name, parameter in training.named_parameters():
        part = part_of(name.removeprefix('model.')) if name.startswith('model.') else 'heads'
        if part == 'slots' and not learning_rates.slots:
            part = 'decoder'
        learning_rate = getattr(learning_rates, part) if part else 0.0
        if not part or not learning_rate or not parameter.requires_grad:
            parameter.requires_grad_(False)
            continue
        decays, orthogonal = parameter.ndim > 1, bool(muon) and is_hidden_matrix(name, parameter)
        group = groups.setdefault(
            (part, decays, orthogonal),
            {
                'name': part,
                'params': [],
                'lr': learning_rate * muon if orthogonal else learning_rate,
                'orthogonal': orthogonal,
                'weight_decay': weight_decay if decays else 0.0,
            },
        )
        group['params'].append(parameter)
    if not groups:
        raise RecipeError('nothing is trained: every learning rate is 0')
    return list(groups.values())


def describe(groups: Sequence[dict[str, Any]]) -> list[str]:
    """Return one line per part and learning rate with its number of trained parameters."""
    sizes: dict[tuple[str, float], int] = {}
    for group in groups:
        key = group['name'] + (' (Muon)' if group['orthogonal'] else ''), group['lr']
        sizes[key] = sizes.get(key, 0) + sum(p.numel() for p in group['params'])
    return [f'{name}: {size / 1e6:.2f} M parameters, learning rate {lr:g}' for (name, lr), size in sizes.items()]

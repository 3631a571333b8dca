"""The parts of the model that have learning rates of their own, and which of them train at all."""

import torch

from instructsam.train.loop.muon import is_hidden_matrix
from instructsam.train.loop.recipe import RecipeError

# in every kind of checkpoint's names; the first that fits decides
_PREFIXES = (
    ('image_encoder', 'model.grounding_model.model.vision_encoder.'),
    ('projector', 'model.visual.merger.'),
    ('projector', 'model.visual.deepstack_merger_list.'),
    ('vision', 'model.visual.'),
    ('language', 'model.language_model.'),
    ('decoder', 'model.'),
)
# In the published file, but read by nothing: they would only drift (and DDP would wait for their gradients).
_UNUSED = (
    'model.grounding_model.model.text_projection.',
    'model.grounding_model.model.geometry_encoder.',
)


def part_of(name):
    """The Rates key that the parameter `name` of the model belongs to, or None where nothing reads it."""
    if name.startswith(_UNUSED):
        return None
    return next(part for part, prefix in _PREFIXES if name.startswith(prefix))


def parameter_groups(training, rates, weight_decay, muon=0.0):
    """Freezes what has no rate and returns the optimizer's groups: a part each, and those of one dimension without
    decay.

    training: a stage's module, the model in `.model`; whatever else it holds are heads; muon: how much faster matrices
    of layers learn, by Muon; 0: all by AdamW.
    """
    groups = {}
    for name, parameter in training.named_parameters():
        part = part_of(name.removeprefix('model.')) if name.startswith('model.') else 'heads'
        rate = getattr(rates, part) if part else 0.0
        if not rate or not parameter.requires_grad:
            parameter.requires_grad_(False)
            continue
        decays, orthogonal = parameter.ndim > 1, bool(muon) and is_hidden_matrix(name, parameter)
        group = groups.setdefault(
            (part, decays, orthogonal),
            {
                'name': part,
                'params': [],
                'lr': rate * muon if orthogonal else rate,
                'orthogonal': orthogonal,
                'weight_decay': weight_decay if decays else 0.0,
            },
        )
        group['params'].append(parameter)
    if not groups:
        raise RecipeError('nothing is trained: every rate is 0')
    return list(groups.values())


def learns(module):
    """Whether any of it has a rate."""
    return any(parameter.requires_grad for parameter in module.parameters())


def describe(groups):
    """Lines that say how much of each part trains, and how fast."""
    sizes = {}
    for group in groups:
        key = group['name'] + (' (Muon)' if group['orthogonal'] else ''), group['lr']
        sizes[key] = sizes.get(key, 0) + sum(p.numel() for p in group['params'])
    return [f'{name}: {size / 1e6:.2f} M parameters, rate {rate:g}' for (name, rate), size in sizes.items()]


def to(value, device):
    """`value` with every tensor in it on `device`: dataclasses, lists, tuples and dictionaries are walked."""
    if isinstance(value, torch.Tensor):
        return value.to(device, non_blocking=True)
    if hasattr(value, '__dataclass_fields__'):
        return type(value)(**{name: to(getattr(value, name), device) for name in value.__dataclass_fields__})
    if isinstance(value, (list, tuple)):
        return type(value)(to(each, device) for each in value)
    if isinstance(value, dict):
        return {name: to(each, device) for name, each in value.items()}
    return value

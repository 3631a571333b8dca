"""LoRA on the language model's attention: peft's matrices inside the model, which keeps its class and its methods."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch

from instructsam.core.model.checkpoint import ADAPTER, write_tensors
from instructsam.train.loop.recipe import Lora, RecipeError
from instructsam.train.weights.lora_limits import language_modules

if TYPE_CHECKING:
    from instructsam.core.model.instructsam import InstructSAMModel

LANGUAGE, EMBEDDINGS = 'model.language_model.', 'model.language_model.embed_tokens.weight'
NAME = 'default'
"""peft's name of the only adapter."""

_FILE_PREFIX = 'base_model.model.'
"""peft's prefix of names in adapter_model.safetensors."""


def add_lora(model: InstructSAMModel, lora: Lora) -> None:
    """Insert LoRA matrices into a model and freeze the weights that they adapt.

    In the language model, only the matrices are trained, and the token embeddings if `lora.embeddings` says so. The
    initial values come from torch's random state; the model's output is unchanged until the first step (B = 0).

    Raises:
        RecipeError: If the language model has no module of a name in `lora.targets`.
    """
    from peft import LoraConfig, inject_adapter_in_model  # noqa: PLC0415  # slow to import, and only LoRA runs need it

    was_trainable = {name: parameter.requires_grad for name, parameter in model.named_parameters()}
    config = LoraConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules=language_modules(lora.targets),
    )
    try:
        inject_adapter_in_model(config, model, NAME)
    except ValueError as error:
        raise RecipeError(f'lora.targets {", ".join(lora.targets)}: {" ".join(str(error).split())}') from error
    model.train(model.training)  # sets the mode of the new modules, for their dropout
    for name, parameter in model.named_parameters():  # peft has frozen everything else
        if name == EMBEDDINGS:
            parameter.requires_grad_(lora.embeddings)
        elif name.startswith(LANGUAGE):
            parameter.requires_grad_(is_lora(name))
        else:
            parameter.requires_grad_(was_trainable[name])


def is_lora(name: str) -> bool:
    """Return whether the parameter `name` is a LoRA matrix."""
    return f'.{NAME}.' in name


def published_name(name: str) -> str:
    """Return the name in the published layout of a parameter that is not a LoRA matrix."""
    return name.replace('.base_layer.', '.')


def adapter_name(name: str) -> str:
    """Return the name of a LoRA matrix in peft's file."""
    return _FILE_PREFIX + name.replace(f'.{NAME}.', '.')


def save_lora(model: InstructSAMModel, tensors: Mapping[str, torch.Tensor], folder: Path) -> None:
    """Write adapter_model.safetensors and adapter_config.json.

    Args:
        model: A model with LoRA matrices.
        tensors: The matrices by their names in `model`.
        folder: Folder to write to.
    """
    cast(Any, model).peft_config[NAME].save_pretrained(folder)
    named = {adapter_name(name): tensor.detach().contiguous() for name, tensor in tensors.items()}
    write_tensors(folder / ADAPTER, named)

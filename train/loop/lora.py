"""LoRA on the language model's attention: peft's matrices inside the model, which keeps its class and its methods."""

from pathlib import Path

from safetensors.torch import save_file

from instructsam.core.model.checkpoint import ADAPTER
from instructsam.train.loop.recipe import RecipeError

LANGUAGE, EMBEDDINGS = 'model.language_model.', 'model.language_model.embed_tokens.weight'
NAME = 'default'  # peft's, of the only adapter
_IN_FILE = 'base_model.model.'  # peft's prefix in adapter_model.safetensors


def add_lora(model, lora):
    """Puts the matrices that recipe.Lora `lora` describes into an InstructSAMModel, and freezes what they stand for.

    Of the language model then only they train, and the token embeddings where `lora.embeddings` says so. The first
    values come from torch's random state; nothing changes before the first step (B = 0).
    """
    from peft import LoraConfig, inject_adapter_in_model  # slow, and only LoRA stages want it

    trains = {name: parameter.requires_grad for name, parameter in model.named_parameters()}
    config = LoraConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules=rf'model\.language_model\..*\.({"|".join(lora.targets)})',
    )
    try:
        inject_adapter_in_model(config, model, NAME)
    except ValueError as error:
        raise RecipeError(f'lora.targets {", ".join(lora.targets)}: {" ".join(str(error).split())}') from error
    model.train(model.training)  # of the new modules: their dropout
    for name, parameter in model.named_parameters():  # peft froze everything else
        if name == EMBEDDINGS:
            parameter.requires_grad_(lora.embeddings)
        elif name.startswith(LANGUAGE):
            parameter.requires_grad_(is_lora(name))
        else:
            parameter.requires_grad_(trains[name])


def is_lora(name):
    """Whether the parameter `name` is a LoRA matrix."""
    return f'.{NAME}.' in name


def published_name(name):
    """The name in the published layout of a parameter that is no LoRA matrix."""
    return name.replace('.base_layer.', '.')


def adapter_name(name):
    """The name of a LoRA matrix in peft's file."""
    return _IN_FILE + name.replace(f'.{NAME}.', '.')


def save_lora(model, tensors, folder):
    """Writes adapter_model.safetensors and adapter_config.json. tensors: LoRA matrices by their names in `model`."""
    model.peft_config[NAME].save_pretrained(folder)
    named = {adapter_name(name): tensor.detach().contiguous() for name, tensor in tensors.items()}
    save_file(named, Path(folder) / ADAPTER, metadata={'format': 'pt'})

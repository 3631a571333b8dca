"""`instructsam train merge CHECKPOINT OUT`: add LoRA matrices to the weights that they belong to."""

import math
from pathlib import Path
from typing import Any, cast

import torch
from peft import LoraConfig, PeftModel

from instructsam.core.atomic_write import new_folder
from instructsam.core.device import check_finite
from instructsam.core.errors import ModelError
from instructsam.core.model import checkpoint
from instructsam.core.model.config import read_json
from instructsam.core.text import shorten
from instructsam.train.weights.heads import copy_heads
from instructsam.train.weights.lora_limits import MAX_RANK, is_target

_TAKEN = ('r', 'lora_alpha', 'lora_dropout', 'target_modules')
_ABOUT = ('base_model_name_or_path', 'revision', 'inference_mode', 'task_type', 'peft_version', 'auto_mapping')


def merge(source: str | Path, out: str | Path) -> None:
    """Merge the LoRA matrices in the folder `source` and write a model folder `out`, which must be new or empty.

    Raises ModelError.
    """
    source = Path(source)
    if not (source / checkpoint.ADAPTER).is_file():
        raise ModelError(f'{source} holds no LoRA matrices ({checkpoint.ADAPTER}): there is nothing to merge')
    config = adapter_config(source)
    shapes = checkpoint.tensor_shapes([source / checkpoint.ADAPTER])
    with new_folder(out) as part:
        model = checkpoint.load(source, torch.device('cpu'), None, base_only=True)
        try:
            adapted = PeftModel.from_pretrained(model, source, torch_device='cpu', config=config)
        except Exception as error:  # peft raises exceptions of many types
            raise ModelError(f'{source} holds LoRA matrices that do not fit its model: {shorten(error)}') from error
        expected = {name.replace('.default', '') for name, _ in adapted.named_parameters() if '.lora_' in name}
        if different := sorted(expected ^ shapes.keys()):
            raise ModelError(f'{source} lacks LoRA matrices, or has others than its model: {", ".join(different[:5])}')
        for name, parameter in adapted.named_parameters():
            if '.lora_' in name:
                check_finite(parameter, f'{source / checkpoint.ADAPTER}: {name}')
        checkpoint.save(adapted.merge_and_unload(safe_merge=True), part, source)
        copy_heads(source, part)


def adapter_config(folder: Path) -> LoraConfig:
    """Return the configuration of the LoRA matrices in a folder.

    Raises:
        ModelError: It cannot be read, or asks for anything but plain LoRA: some of peft's other options import modules
            that the file names.
    """
    path = folder / checkpoint.ADAPTER_CONFIG
    raw = read_json(path)
    rank, alpha, targets = raw.get('r'), raw.get('lora_alpha'), raw.get('target_modules')
    if raw.get('peft_type') != 'LORA' or type(rank) is not int or not 1 <= rank <= MAX_RANK:
        raise ModelError(f'{path} is not of LoRA matrices of a rank from 1 to {MAX_RANK}, got r = {str(rank)[:60]}')
    if not isinstance(alpha, (int, float)) or isinstance(alpha, bool) or not 0 < alpha < math.inf:
        raise ModelError(f'{path}: lora_alpha is {str(alpha)[:60]}, expected a number above 0')
    names: list[Any] = targets if isinstance(targets, list) else [targets]
    if not names or not all(map(is_target, names)):
        raise ModelError(f'{path}: target_modules are {str(targets)[:100]}, expected names of modules')
    # peft takes floats as well, though it annotates integers.
    config = LoraConfig(r=rank, lora_alpha=cast(int, alpha), target_modules=targets, inference_mode=True)
    for key, plain in config.to_dict().items():
        value = raw.get(key, plain)
        if key not in (*_TAKEN, *_ABOUT) and (value or None) != (plain or None) and str(value) != str(plain):
            raise ModelError(f'{path}: {key} is {shorten(str(value), 60)}, which is more than plain LoRA ({plain})')
    return config

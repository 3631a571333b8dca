"""`instructsam train merge CHECKPOINT OUT`: add LoRA matrices to the weights that they belong to."""

import json
from pathlib import Path

import torch
from peft import PeftModel
from safetensors import SafetensorError
from safetensors.torch import load_file

from instructsam.core.atomic_write import new_folder
from instructsam.core.display.text import shorten
from instructsam.core.errors import ModelError
from instructsam.core.files.regular_file import check_regular_file, read_regular_file
from instructsam.core.model import checkpoint

MAX_CONFIG_BYTES = 1 << 20


def merge(source: str | Path, out: str | Path) -> None:
    """Merge the LoRA matrices in the folder `source` and write a model folder `out`, which must be new or empty.

    Raises ModelError.
    """
    source = Path(source)
    if not (source / checkpoint.ADAPTER).is_file():
        raise ModelError(f'{source} holds no LoRA matrices ({checkpoint.ADAPTER}): there is nothing to merge')
    _check_adapter(source)
    with new_folder(out) as part:
        model = checkpoint.load(source, torch.device('cpu'), None, base_only=True)
        before = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
        try:
            merged = PeftModel.from_pretrained(model, source, torch_device='cpu').merge_and_unload(safe_merge=True)
        except Exception as error:  # peft raises exceptions of many types here
            raise ModelError(
                f'the LoRA matrices in {source} cannot be merged with its weights: {shorten(error)}'
            ) from error
        if {name: tuple(tensor.shape) for name, tensor in merged.state_dict().items()} != before:
            raise ModelError(f'{checkpoint.ADAPTER_CONFIG} in {source} changes more than the values of the weights')
        checkpoint.save(merged, part, source)


def _check_adapter(folder: Path) -> None:
    """Raise ModelError unless the folder has LoRA matrices that are finite, and a configuration of them.

    Other methods of peft are refused: some of them import further packages, and no stage trains them.
    """
    file = folder / checkpoint.ADAPTER_CONFIG
    try:
        config = json.loads(read_regular_file(file, MAX_CONFIG_BYTES))
        check_regular_file(folder / checkpoint.ADAPTER)
        tensors = load_file(folder / checkpoint.ADAPTER)
    except (OSError, ValueError, RecursionError, SafetensorError) as error:
        raise ModelError(f'the LoRA matrices in {folder} cannot be read: {shorten(error)}') from error
    method = config.get('peft_type') if isinstance(config, dict) else None
    if method != 'LORA':
        raise ModelError(f'{file} describes {shorten(repr(method), 40)}, expected peft_type LORA')
    broken = [name for name, tensor in tensors.items() if not bool(tensor.isfinite().all())]
    if broken:
        raise ModelError(f'{folder / checkpoint.ADAPTER}: {shorten(broken[0], 80)} has numbers that are not finite')

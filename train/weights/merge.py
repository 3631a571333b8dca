"""`instructsam train merge CHECKPOINT OUT`: add LoRA matrices to the weights that they belong to."""

from pathlib import Path

import torch
from peft import PeftModel

from instructsam.core.atomic_write import new_folder
from instructsam.core.errors import ModelError
from instructsam.core.model import checkpoint


def merge(source: str | Path, out: str | Path) -> None:
    """Merge the LoRA matrices in the folder `source` and write a model folder `out`, which must be new or empty.

    Raises ModelError.
    """
    source = Path(source)
    if not (source / checkpoint.ADAPTER).is_file():
        raise ModelError(f'{source} holds no LoRA matrices ({checkpoint.ADAPTER}): there is nothing to merge')
    with new_folder(out) as part:
        model = checkpoint.load(source, torch.device('cpu'), None, base_only=True)
        merged = PeftModel.from_pretrained(model, source, torch_device='cpu').merge_and_unload(safe_merge=True)
        checkpoint.save(merged, part, source)

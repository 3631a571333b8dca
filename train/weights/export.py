"""Writes a model folder in a smaller type, without auxiliary heads, to ship; several are averaged."""

from collections.abc import Sequence
from pathlib import Path

import torch

from instructsam.core.atomic_write import new_folder
from instructsam.core.device import check_finite
from instructsam.core.errors import ModelError
from instructsam.core.model import checkpoint


def export(sources: Sequence[str | Path], out: str | Path, dtype: torch.dtype) -> None:
    """Write the average of the models in the folders `sources` to a new folder `out` with weights in `dtype`.

    The average of models that were trained from the same start with other settings is often better than each of them
    (model soups, arXiv 2203.05482).

    Raises:
        ModelError: A folder cannot be read, the models do not have the same configuration, or their average is beyond
            `dtype`.
    """
    first, *others = sources
    with new_folder(out) as part:
        model = checkpoint.load(first, torch.device('cpu'), torch.float32 if others else dtype)
        total = model.state_dict()
        for folder in others:
            other = checkpoint.load(folder, torch.device('cpu'), torch.float32)
            if other.config.raw != model.config.raw:
                raise ModelError(f'{folder} and {first} cannot be averaged: they have different configurations')
            for name, tensor in other.state_dict().items():
                total[name] += tensor
        tensors = {name: tensor.div_(len(sources)).to(dtype) for name, tensor in total.items()}
        for name, tensor in tensors.items():
            check_finite(tensor, f'the average: {name}')
        checkpoint.save_tensors(model.config, tensors, part, first)

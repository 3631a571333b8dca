"""Changes the number K of instance slots: the query bank of a model folder, and the detector's rows for each slot."""

from pathlib import Path

import torch

from instructsam.core.atomic_write import new_folder
from instructsam.core.model import checkpoint
from instructsam.core.model.config import ModelConfig
from instructsam.core.model.instructsam import InstructSAMModel
from instructsam.train.weights.heads import copy_heads

NOISE = 0.1  # added to repeated rows, relative to the standard deviation of all rows: equal slots stay equal


def resize_bank(source: str | Path, out: str | Path, count: int, seed: int = 0) -> None:
    """Write the model in the folder `source` with K = `count` to the folder `out`.

    Fewer slots are the first ones. More slots repeat all of them, with a little noise on the copies.

    Args:
        source: Model folder to read.
        out: Folder to write.
        count: Number of slots.
        seed: Seed of the noise.
    """
    model = checkpoint.load(source, torch.device('cpu'), None)
    raw = {**model.config.raw, 'max_seg_nums': count}
    config = ModelConfig.from_dict(raw, model.config.sam3)
    generator = torch.Generator().manual_seed(seed)
    tensors = model.state_dict()
    with torch.device('meta'):
        shapes = {name: tensor.shape for name, tensor in InstructSAMModel(config).state_dict().items()}
    for name, shape in shapes.items():
        if tensors[name].shape != shape:
            tensors[name] = resize_rows(tensors[name], count, generator)
    with new_folder(out) as part:
        checkpoint.save_tensors(config, tensors, part, source)
        copy_heads(source, part)


def resize_rows(rows: torch.Tensor, count: int, generator: torch.Generator) -> torch.Tensor:
    """Return rows [K, n] as [count, n], cut off or repeated with noise."""
    resized = rows[torch.arange(count) % len(rows)]
    noise = torch.randn(resized.shape, generator=generator).to(rows) * rows.float().std().to(rows)
    noise[: len(rows)] = 0
    return resized + NOISE * noise

"""Another number K of instance slots: the query bank of a model folder, and the detector's own rows for each slot."""

import torch

from instructsam.core.model import checkpoint
from instructsam.core.model.config import ModelConfig
from instructsam.core.model.instructsam import InstructSAMModel

NOISE = 0.1  # on repeated rows, as a share of the spread of all; copies that are alike would stay alike


def resize_bank(source, out, count, seed=0):
    """Writes the model folder `out`: that in `source` with K = `count`.

    Fewer slots are the first ones; more are all of them over and over, each time with a little noise from `seed`.
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
    checkpoint.save_tensors(config, tensors, out, source)


def resize_rows(rows, count, generator):
    """Rows [K, n] as [count, n]."""
    resized = rows[torch.arange(count) % len(rows)]
    noise = torch.randn(resized.shape, generator=generator).to(rows) * rows.float().std().to(rows)
    noise[: len(rows)] = 0
    return resized + NOISE * noise

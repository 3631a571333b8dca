"""`instructsam train deepen MODEL OUT`: double the blocks of Qwen's vision tower, without changing its output.

After each block comes its copy with output projections of zero. It adds nothing to the residual stream, so that the
model predicts the same until training changes it (Net2Net's idea, arXiv 1511.05641).
"""

import re
from copy import deepcopy
from pathlib import Path

import torch

from instructsam.core.atomic_write import new_folder
from instructsam.core.model import checkpoint
from instructsam.core.model.config import ModelConfig

BLOCK = re.compile(r'(model\.visual\.blocks\.)(\d+)(\..*)')
OUTPUT_PROJECTIONS = ('.attn.proj.', '.mlp.linear_fc2.')  # a block's layers that write to the residual stream


def deepen(source: str | Path, out: str | Path) -> None:
    """Write the model in the folder `source` with twice the vision blocks to a new folder `out`. Raises ModelError."""
    with new_folder(out) as part:
        model = checkpoint.load(source, torch.device('cpu'), None)
        raw = deepcopy(model.config.raw)
        vision = raw['vision_config']
        vision['depth'] *= 2
        # Deepstack features of a block are taken from its copy, which now comes last.
        vision['deepstack_visual_indexes'] = [2 * index + 1 for index in vision['deepstack_visual_indexes']]
        config = ModelConfig.from_dict(raw, model.config.sam3)
        tensors = {}
        for name, tensor in model.state_dict().items():
            block = BLOCK.fullmatch(name)
            if not block:
                tensors[name] = tensor
                continue
            prefix, index, leaf = block.groups()
            tensors[f'{prefix}{2 * int(index)}{leaf}'] = tensor
            copied = torch.zeros_like(tensor) if leaf.startswith(OUTPUT_PROJECTIONS) else tensor.clone()
            tensors[f'{prefix}{2 * int(index) + 1}{leaf}'] = copied
        checkpoint.save_tensors(config, tensors, part, source)

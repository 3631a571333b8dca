"""`instructsam train deepen MODEL OUT`: twice the blocks in Qwen's vision tower, for more than it has room to learn.

Behind each block comes its copy, whose outputs are zero: it adds nothing to the residual stream, so that the model says
what it said, until training lets it (Net2Net's idea, arXiv 1511.05641).
"""

import re
from copy import deepcopy
from pathlib import Path

import torch

from instructsam.core.model import checkpoint
from instructsam.core.model.config import ModelConfig
from instructsam.train.weights.merge import new_folder

BLOCK = re.compile(r'(model\.visual\.blocks\.)(\d+)(\..*)')
OUTPUTS = ('.attn.proj.', '.mlp.linear_fc2.')  # of a block, onto the residual stream


def add_arguments(parser):
    parser.add_argument('model', metavar='MODEL', help='a model folder')
    parser.add_argument('out', metavar='OUT', help='the folder to write')


def run(args):
    deepen(args.model, args.out)
    print(f'the deeper model is in {args.out}')
    return 0


def deepen(source, out):
    """Writes the model in the folder `source` with twice the vision blocks to a new folder `out`. Raises ModelError."""
    out = new_folder(out)
    model = checkpoint.load(Path(source), torch.device('cpu'), None)
    raw = deepcopy(model.config.raw)
    vision = raw['vision_config']
    vision['depth'] *= 2
    # what was taken behind a block is taken behind its copy
    vision['deepstack_visual_indexes'] = [2 * index + 1 for index in vision['deepstack_visual_indexes']]
    config = ModelConfig.from_dict(raw, model.config.sam3)
    tensors = {}
    for name, tensor in model.state_dict().items():
        block = BLOCK.fullmatch(name)
        if not block:
            tensors[name] = tensor
            continue
        before, index, leaf = block.groups()
        tensors[f'{before}{2 * int(index)}{leaf}'] = tensor
        copied = torch.zeros_like(tensor) if leaf.startswith(OUTPUTS) else tensor.clone()
        tensors[f'{before}{2 * int(index) + 1}{leaf}'] = copied
    checkpoint.save_tensors(config, tensors, out, source)

"""Models for tests and benchmarks: random weights."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import torch

from instructsam.core.model import checkpoint
from instructsam.core.model.config import FLAGS, ModelConfig
from instructsam.core.model.instructsam import InstructSAMModel


def random_model(config: ModelConfig, seed: int = 0, dtype: torch.dtype = torch.float32) -> InstructSAMModel:
    """Return a frozen model with transformers' initialisation, the same for one seed on every machine."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        default = torch.get_default_dtype()
        torch.set_default_dtype(dtype)
        try:
            return InstructSAMModel(config).requires_grad_(False)
        finally:
            torch.set_default_dtype(default)


def write_trunk_model(source: Path, folder: Path, side: int = 64) -> Path:
    """Write a model with all optional parts, otherwise of the sizes of `source`, with random weights.

    Args:
        source: Folder of a small model without a trunk.
        folder: Folder to write.
        side: Side of the image that the trunk reads, px.
    """
    shutil.copytree(source, folder)
    (folder / 'preprocessor_config.json').unlink()
    raw, sam3 = (json.loads((folder / name / 'config.json').read_text()) for name in ('', 'sam3'))
    cells = side // 16
    raw |= {'trunk': {'kind': 'efficientnet_lite0', 'image_size': side}, **dict.fromkeys(FLAGS, True)}
    raw['vision_config'] |= {'patch_size': 1, 'temporal_patch_size': 1, 'in_channels': 112}
    backbone = sam3['detector_config']['vision_config']['backbone_config']
    backbone |= {'image_size': cells, 'pretrain_image_size': cells, 'patch_size': 1, 'num_channels': 112}
    backbone['window_size'] = 2
    (folder / 'config.json').write_text(json.dumps(raw))
    (folder / 'sam3/config.json').write_text(json.dumps(sam3))
    checkpoint.save(random_model(ModelConfig.from_folder(folder)), folder)
    return folder

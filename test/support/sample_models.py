"""Models for tests and benchmarks: random weights, and the configuration of the published size."""

from __future__ import annotations

from pathlib import Path

import torch

from instructsam.core.model.config import ModelConfig
from instructsam.core.model.instructsam import InstructSAMModel

DATA = Path(__file__).parents[1] / 'data'


def published_config() -> ModelConfig:
    """Return the configuration of the published InstructSAM-2B (2.62 B parameters)."""
    return ModelConfig.from_folder(DATA / 'instructsam_2b')


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

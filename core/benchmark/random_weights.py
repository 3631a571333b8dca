"""An engine with random weights, by default of the published size: times and memory are real, masks are not."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, cast

import torch

from instructsam.core import builtin
from instructsam.core.allocator import own_pages
from instructsam.core.device import resolve_dtype
from instructsam.core.engine import InstructSAM
from instructsam.core.model.checkpoint import empty_model
from instructsam.core.model.config import TOKEN_KEYS, ModelConfig
from instructsam.core.model.preprocess import QwenPreprocessor
from instructsam.core.model.tokenizer import load_prompter

NAME = 'random weights'
CONFIG = Path(__file__).parent / 'instructsam_2b.json'
PIXELS = 65_536, 16_777_216  # limits of the published preprocessor
STD = 0.02  # standard deviation of the weights, as in transformers' initialisation


def published_config(tokens: dict[str, Any] | None = None) -> ModelConfig:
    """Return the configuration of the published InstructSAM-2B (2.62 B parameters), with other token ids if given."""
    return ModelConfig.from_dict(json.loads(CONFIG.read_text()) | (tokens or {}))


def builtin_tokens() -> dict[str, Any]:
    """Return the token ids of the built-in model's tokenizer, all of which the published vocabulary contains."""
    raw = json.loads((builtin.MODELS['tabletop'] / 'config.json').read_text())
    names = {*TOKEN_KEYS.values(), 'image_token_id', 'video_token_id', 'vision_start_token_id', 'vision_end_token_id'}
    return {name: raw[name] for name in sorted(names) if name in raw}


@own_pages()
def random_engine(
    config: ModelConfig, device: torch.device, dtype: str | torch.dtype, mode: str = 'consistent', how: str = 'off'
) -> InstructSAM:
    """Return an engine with random weights, the same ones for every call, and the built-in model's tokenizer.

    Args:
        config: Its configuration, with `builtin_tokens`.
        device: Device of the weights.
        dtype: Precision of the weights, or its name in `core.modes.DTYPES`.
        mode: One of `core.modes.MODES`.
        how: One of `core.modes.COMPILE`.
    """
    model = empty_model(config)
    dtype = resolve_dtype(dtype, device, sum(parameter.numel() for parameter in model.parameters()))
    generator = torch.Generator(device).manual_seed(0)
    for name, empty in list(model.named_parameters()):
        path, _, leaf = name.rpartition('.')
        weights = torch.ones(empty.shape, device=device)
        if empty.ndim > 1:
            weights.normal_(std=STD, generator=generator)
        elif leaf == 'bias':
            weights.zero_()
        model.get_submodule(path)._parameters[leaf] = torch.nn.Parameter(weights.to(dtype), requires_grad=False)
    for name, buffer in list(model.named_buffers()):
        path, _, leaf = name.rpartition('.')
        model.get_submodule(path)._buffers[leaf] = buffer.to(device)
    model.join_projections()
    prompter, stop_ids = load_prompter(builtin.MODELS['tabletop'], config)
    preprocessor = QwenPreprocessor(
        *PIXELS,
        patch_size=cast(int, config.vision.patch_size),
        merge_size=config.vision.spatial_merge_size,
        temporal_patch_size=cast(int, config.vision.temporal_patch_size),
    )
    engine = InstructSAM(model, prompter, preprocessor, stop_ids, name=NAME, mode=mode)
    engine.compile(how)
    return engine

"""The folders of a run: checkpoints, which are complete or absent, their weights, and the final model."""

from __future__ import annotations

import json
import shutil
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import cast

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import nn

from instructsam.core.atomic_write import commit_folder
from instructsam.core.model import checkpoint
from instructsam.core.model.instructsam import InstructSAMModel
from instructsam.train.loop.lora import adapter_name, is_lora, published_name, save_lora
from instructsam.train.loop.recipe import RecipeError
from instructsam.train.optimizers import ema
from instructsam.train.weights.heads import HEADS
from instructsam.train.weights.merge import merge

PARTIAL = 'partial'
"""Folder in which other folders are written before they get their names."""

FINAL = 'final'

_STORED_HEADS = {'denoising_query': 'repairer'}
"""Names in heads.safetensors that differ from the module's attributes."""

_TRAINING_STATE = (
    'optimizer*',
    'scheduler*',
    'scaler*',
    'rng_state*',
    'trainer_state.json',
    ema.FILE,
    'pytorch_model_fsdp*',
    'global_step*',
    'latest',
    'zero_to_fp32.py',
)
_SHOWN_DIFFERENCES = 3


def save_stage(
    training: nn.Module, tensors: Mapping[str, torch.Tensor], folder: str | Path, source: str | Path | None
) -> None:
    """Write a checkpoint's weights: the model in the published layout, LoRA matrices, and auxiliary heads.

    Args:
        training: A stage's module.
        tensors: Its state_dict() with unsharded tensors.
        folder: Folder to write.
        source: Model folder whose small files are copied.
    """
    folder, model = Path(folder), cast(InstructSAMModel, training.model)
    files: dict[str, dict[str, torch.Tensor]] = {}
    for name, tensor in tensors.items():
        file, stored = _file_and_name(name)
        key = name.removeprefix('model.') if file == checkpoint.ADAPTER else stored
        files.setdefault(file, {})[key] = tensor.contiguous()
    checkpoint.save_tensors(model.config, files[checkpoint.SINGLE], folder, source)
    if checkpoint.ADAPTER in files:
        save_lora(model, files[checkpoint.ADAPTER], folder)
    if HEADS in files:
        checkpoint.write_tensors(folder / HEADS, files[HEADS])


def read_stage(training: nn.Module, folder: str | Path) -> dict[str, torch.Tensor]:
    """Return the weights that save_stage wrote, as a state_dict of `training`.

    Raises:
        RecipeError: If another configuration wrote them.
    """
    own = training.state_dict()
    places = {_file_and_name(name): name for name in own}
    stored = {}
    for file in (checkpoint.SINGLE, checkpoint.ADAPTER, HEADS):
        if (Path(folder) / file).is_file():
            stored.update({(file, name): tensor for name, tensor in load_file(Path(folder) / file).items()})
    found = {place: tuple(tensor.shape) for place, tensor in stored.items()}
    expected = {place: tuple(own[name].shape) for place, name in places.items()}
    differences = [
        f'{name} is {_shape(found.get((file, name)))} there, {_shape(expected.get((file, name)))} here'
        for file, name in sorted(found.keys() | expected.keys(), key=_most_informative_first)
        if found.get((file, name)) != expected.get((file, name))
    ]
    if differences:
        hidden = len(differences) - _SHOWN_DIFFERENCES
        more = f' (and {hidden} more)' if hidden > 0 else ''
        raise RecipeError(
            f'{folder} was written by another configuration: {"; ".join(differences[:_SHOWN_DIFFERENCES])}{more}. '
            'Give this run another output, or resume with the recipe that the run was started with'
        )
    return {name: stored[place] for place, name in places.items()}


def _file_and_name(name: str) -> tuple[str, str]:
    """Return the file of an entry of a stage's state_dict, and its name in that file."""
    if not name.startswith('model.'):
        return HEADS, _STORED_HEADS.get(name, name)
    name = name.removeprefix('model.')
    return (checkpoint.ADAPTER, adapter_name(name)) if is_lora(name) else (checkpoint.SINGLE, published_name(name))


def _shape(shape: tuple[int, ...] | None) -> str:
    return 'absent' if shape is None else str(list(shape))


def _most_informative_first(place: tuple[str, str]) -> tuple[bool, tuple[str, str]]:
    """Sort key of differences: the query bank (K, width) first."""
    return 'mask_queries' not in place[1], place


def load_auxiliary_heads(training: nn.Module, folder: str | Path) -> None:
    """Load the auxiliary heads that the run before left, as far as names and shapes fit.

    Args:
        training: A stage's module.
        folder: Model folder that training starts from; it may have no heads.
    """
    file = Path(folder) / HEADS
    if not file.is_file():
        return
    own = {_STORED_HEADS.get(name, name): (name, tensor) for name, tensor in training.state_dict().items()}
    fitting = {}
    for stored, value in load_file(file).items():
        name, tensor = own.get(stored, (stored, None))
        if tensor is not None and tensor.shape == value.shape:
            fitting[name] = value
    training.load_state_dict(fitting, strict=False)


def checkpoints(folder: str | Path) -> list[Path]:
    """Return the complete checkpoints in a run's folder, oldest first."""
    found = [path for path in Path(folder).glob('checkpoint-*') if path.name.rpartition('-')[2].isdecimal()]
    return sorted(filter(is_complete, found), key=step_of)


def step_of(path: Path) -> int:
    """Return the step that a checkpoint was written after."""
    return int(path.name.rpartition('-')[2])


def is_finished(folder: str | Path) -> bool:
    """Return whether the folder of a run has the final model."""
    return (Path(folder) / FINAL / checkpoint.SINGLE).is_file()


def last_checkpoint(folder: str | Path) -> Path | None:
    """Return the newest complete checkpoint in a run's folder, or None."""
    return next(reversed(checkpoints(folder)), None)


def is_complete(folder: Path) -> bool:
    """Return whether no file of a checkpoint is missing or truncated; the Trainer's own state is written last."""
    try:
        json.loads((folder / 'trainer_state.json').read_text(encoding='utf-8'))
        for file in [folder / checkpoint.SINGLE, *folder.glob('*.safetensors')]:
            with safe_open(file, framework='pt'):
                pass
    except (OSError, ValueError, SafetensorError):
        return False
    return all(zipfile.is_zipfile(file) for pattern in ('*.pt', '*.pth', '*.bin') for file in folder.glob(pattern))


def write_final_model(output: str | Path, *, merged: bool) -> Path:
    """Write the final model, `output`/final, from the last checkpoint.

    If the checkpoint holds an average of the weights (see ema), the final model gets it.

    Args:
        output: The run's folder.
        merged: Add LoRA matrices to the weights.

    Returns:
        The folder of the final model.

    Raises:
        RecipeError: If there is no checkpoint.
    """
    last, partial = last_checkpoint(output), Path(output) / PARTIAL
    if last is None:
        raise RecipeError(f'{output} holds no checkpoint to make the final model from: do not turn saving off')
    shutil.rmtree(partial, ignore_errors=True)
    source = last
    if (last / ema.FILE).is_file():
        source = partial / 'averaged'
        shutil.copytree(last, source, ignore=shutil.ignore_patterns(*_TRAINING_STATE))
        _replace_tensors(source, load_file(last / ema.FILE))
    if merged:
        merge(source, partial / FINAL)
    else:
        shutil.copytree(source, partial / FINAL, ignore=shutil.ignore_patterns(*_TRAINING_STATE))
    commit_folder(partial / FINAL, Path(output) / FINAL)
    shutil.rmtree(partial, ignore_errors=True)
    return Path(output) / FINAL


def _replace_tensors(folder: Path, tensors: Mapping[str, torch.Tensor]) -> None:
    """Replace tensors of a folder that save_stage wrote; `tensors` has their names in a stage's state_dict."""
    files: dict[str, dict[str, torch.Tensor]] = {}
    for name, tensor in tensors.items():
        file, stored = _file_and_name(name)
        files.setdefault(file, {})[stored] = tensor
    for file, replaced in files.items():
        stored = load_file(folder / file)
        assert replaced.keys() <= stored.keys()  # both were written from one state_dict
        checkpoint.write_tensors(folder / file, {**stored, **replaced})

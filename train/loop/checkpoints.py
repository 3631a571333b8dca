"""The folders of a run: checkpoints, which are whole or not there, what their weights are, and the final model."""

import json
import os
import shutil
import zipfile
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file

from instructsam.core.model import checkpoint
from instructsam.train.loop.lora import adapter_name, is_lora, published_name, save_lora
from instructsam.train.loop.recipe import RecipeError
from instructsam.train.weights.merge import merge

PARTIAL = 'partial'  # where a folder is written before it gets its name
FINAL = 'final'
HEADS = 'heads.safetensors'
_OF_TRAINING = (
    'optimizer*',
    'scheduler*',
    'scaler*',
    'rng_state*',
    'trainer_state.json',
    'pytorch_model_fsdp*',
    'global_step*',
    'latest',
    'zero_to_fp32.py',
)
_SHOWN = 3  # differences that an error names


def save_stage(training, tensors, folder, source):
    """A checkpoint's weights: the model in the published layout, LoRA matrices, and what only training uses.

    tensors: the state_dict() of `training`, a stage's module, with whole tensors.
    """
    folder = Path(folder)
    parts = {}
    for name, tensor in tensors.items():
        file, stored = _place(name)
        own = name.removeprefix('model.') if file == checkpoint.ADAPTER else stored
        parts.setdefault(file, {})[own] = tensor.contiguous()
    checkpoint.save_tensors(training.model.config, parts[checkpoint.SINGLE], folder, source)
    if checkpoint.ADAPTER in parts:
        save_lora(training.model, parts[checkpoint.ADAPTER], folder)
    if HEADS in parts:
        save_file(parts[HEADS], folder / HEADS)


def read_stage(training, folder):
    """What save_stage wrote, as a state_dict of `training`. Raises RecipeError: another configuration wrote it."""
    own = training.state_dict()
    places = {_place(name): name for name in own}
    stored = {}
    for file in (checkpoint.SINGLE, checkpoint.ADAPTER, HEADS):
        if (Path(folder) / file).is_file():
            stored.update({(file, name): tensor for name, tensor in load_file(Path(folder) / file).items()})
    found = {place: tuple(tensor.shape) for place, tensor in stored.items()}
    expected = {place: tuple(own[name].shape) for place, name in places.items()}
    differences = [
        f'{name} is {_shape(found.get((file, name)))} there, {_shape(expected.get((file, name)))} here'
        for file, name in sorted(found.keys() | expected.keys(), key=_telling)
        if found.get((file, name)) != expected.get((file, name))
    ]
    if differences:
        more = f' (and {len(differences) - _SHOWN} more)' if len(differences) > _SHOWN else ''
        raise RecipeError(
            f'{folder} was written by another configuration: {"; ".join(differences[:_SHOWN])}{more}. '
            'Give this run another output, or go on with the recipe that the run was started with'
        )
    return {name: stored[place] for place, name in places.items()}


def _place(name):
    """(file, name in it) of an entry of a stage's state_dict."""
    if not name.startswith('model.'):
        return HEADS, name
    name = name.removeprefix('model.')
    return (checkpoint.ADAPTER, adapter_name(name)) if is_lora(name) else (checkpoint.SINGLE, published_name(name))


def _shape(shape):
    return 'absent' if shape is None else str(list(shape))


def _telling(place):
    """What says most comes first: the query bank (K, width)."""
    return 'mask_queries' not in place[1], place


def load_heads(training, folder, names=('',)):
    """Takes over what an earlier stage's module has under the same names, where its folder holds that.

    names: what the parameters' names start with.
    """
    file = Path(folder) / HEADS
    if file.is_file():
        own = training.state_dict()
        stored = load_file(file)
        kept = {
            name: value
            for name, value in stored.items()
            if name.startswith(names) and name in own and own[name].shape == value.shape
        }
        training.load_state_dict(kept, strict=False)


def checkpoints(folder):
    """The whole checkpoints in a run's folder, oldest first."""
    found = [path for path in Path(folder).glob('checkpoint-*') if path.name.rpartition('-')[2].isdecimal()]
    return sorted(filter(is_whole, found), key=step_of)


def step_of(path):
    """The step that a checkpoint was written after."""
    return int(path.name.rpartition('-')[2])


def last_checkpoint(folder):
    """The newest whole checkpoint in a run's folder, or None."""
    return next(reversed(checkpoints(folder)), None)


def is_whole(folder):
    """Whether every file of a checkpoint is there to its end. The Trainer's own state is written last."""
    try:
        json.loads((folder / 'trainer_state.json').read_text(encoding='utf-8'))
        for file in [folder / checkpoint.SINGLE, *folder.glob('*.safetensors')]:
            with safe_open(file, framework='pt'):
                pass
    except (OSError, ValueError, SafetensorError):
        return False
    return all(zipfile.is_zipfile(file) for pattern in ('*.pt', '*.pth', '*.bin') for file in folder.glob(pattern))


def publish(written, target):
    """Gives a folder that was written under another name its own: a kill at any instant leaves nothing half done."""
    for path in written.rglob('*'):
        if path.is_file():
            with path.open('rb') as file:
                os.fsync(file.fileno())
    shutil.rmtree(target, ignore_errors=True)
    os.replace(written, target)


def finish(output, merged):
    """Makes the final model, `output`/final, of the last checkpoint; merged: LoRA matrices are added to the weights."""
    last, partial = last_checkpoint(output), Path(output) / PARTIAL
    if last is None:
        raise RecipeError(f'{output} holds no checkpoint to make the final model of: do not turn saving off')
    shutil.rmtree(partial, ignore_errors=True)
    if merged:
        merge(last, partial / FINAL)
    else:
        shutil.copytree(last, partial / FINAL, ignore=shutil.ignore_patterns(*_OF_TRAINING))
    publish(partial / FINAL, Path(output) / FINAL)
    return Path(output) / FINAL

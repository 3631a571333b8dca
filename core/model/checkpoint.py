"""Model folders: finding them, reading their tensors (safetensors only), writing them back."""

import json
import os
import shutil
from contextlib import contextmanager
from pathlib import Path

import torch
from accelerate import init_empty_weights
from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OfflineModeIsEnabled
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import nn

from instructsam.core.errors import ModelError
from instructsam.core.model.config import ModelConfig
from instructsam.core.model.instructsam import InstructSAMModel

SINGLE, INDEX = 'model.safetensors', 'model.safetensors.index.json'
ADAPTER, ADAPTER_CONFIG = 'adapter_model.safetensors', 'adapter_config.json'  # peft's, of LoRA matrices
LISTED = 20  # tensor names that an error lists per kind
REOPEN_BYTES = 256 << 20
_SMALL_FILES = ('*.json', '*.jinja', '*.txt', '*.model')
_OF_WEIGHTS = (INDEX, ADAPTER_CONFIG, 'trainer_state.json')  # small files that tell of the weights beside them


def resolve(name):
    """The folder of `name`: a local folder, or a hub id whose files are fetched (and cached) first.

    Raises ModelError if it is neither, or if the hub cannot be reached.
    """
    path = Path(name).expanduser()
    if path.is_dir():
        return path
    if path.exists():
        raise ModelError(f'{name} is a file. Give the folder that holds config.json and {SINGLE}')
    text = str(name)
    if text.count('/') != 1 or text.startswith(('.', '/', '~')) or text.endswith('/'):
        raise ModelError(
            f'there is no model folder {name}. Give an existing folder, a hub id (owner/name) or a built-in model'
        )
    try:
        return Path(snapshot_download(text, allow_patterns=['*.safetensors', *_SMALL_FILES, 'sam3/*.json', INDEX]))
    except HFValidationError as error:
        raise ModelError(f'{name!r} is neither a folder nor a hub id: {error}') from error
    except HfHubHTTPError as error:
        status = error.response.status_code if error.response is not None else 'no'
        raise ModelError(
            f'the hub refused {name!r} ({status} status): check the id, and log in if it is private'
        ) from error
    except (LocalEntryNotFoundError, OfflineModeIsEnabled, OSError) as error:
        raise ModelError(
            f'there is no folder {name!r}, and the hub cannot be reached to fetch the model of that id. '
            'Check the path or the network, or give the folder of a copy'
        ) from error


def load(folder, device, dtype, base_only=False):
    """The model in `folder` with its weights on `device`, in `dtype` (None: as stored). Returns InstructSAMModel.

    Weights are read a few tensors at a time, so that memory peaks little above their own size. base_only: without the
    LoRA matrices beside them, which are an error otherwise. Raises ModelError: no weights, only pickles, an unreadable
    file, unmerged LoRA matrices, or tensors that are missing, unexpected or of another shape.
    """
    folder = Path(folder)
    if (folder / ADAPTER).exists() and not base_only:
        raise ModelError(f'{folder} holds unmerged LoRA matrices: run `instructsam train merge {folder} OUT`')
    config = ModelConfig.from_folder(folder)
    files = _weight_files(folder)
    with init_empty_weights(include_buffers=False):  # the file brings the parameters, but not the tables
        model = InstructSAMModel(config)
    expected = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    _check(expected, _shapes(files), folder)
    for file in files:
        _read_into(model, file, device, dtype)
    for name, buffer in model.named_buffers():  # small tables, never in the file
        _set(model, name, buffer.to(device))
    return model.requires_grad_(False)


def save(model, folder, source=None):
    """Writes a folder that `load` reads back bit for bit. See `save_tensors`."""
    save_tensors(model.config, model.state_dict(), folder, source)


def save_tensors(config, tensors, folder, source=None):
    """Writes a model folder in the published layout.

    config: ModelConfig; tensors: the model's state_dict();
    source: a model folder whose tokenizer, processor and template files are copied. SAM3's configuration is written to
    sam3/, where config.json's mask_decoder_model then points. Each file appears whole or not at all.
    """
    folder = Path(folder)
    (folder / 'sam3').mkdir(parents=True, exist_ok=True)
    if source is not None and Path(source).resolve() != folder.resolve():
        for pattern in (*_SMALL_FILES, 'sam3/*.json'):
            for file in Path(source).glob(pattern):
                if file.name not in _OF_WEIGHTS:
                    shutil.copyfile(file, folder / file.relative_to(source))
    raw = {**config.raw, 'mask_decoder_model': 'sam3', 'mm_mask_decoder': 'sam3'}
    sam3 = {'model_type': 'sam3_video', 'detector_config': config.sam3.to_dict()}
    _write(folder / 'config.json', lambda path: path.write_text(json.dumps(raw, indent=1)))
    _write(folder / 'sam3' / 'config.json', lambda path: path.write_text(json.dumps(sam3, indent=1)))
    tensors = {name: tensor.detach().contiguous() for name, tensor in tensors.items()}
    _write(folder / SINGLE, lambda path: save_file(tensors, path, metadata={'format': 'pt'}))


def random_model(config, seed=0, dtype=torch.float32):
    """A model with random weights: transformers' initialisation, the same for the same seed on every machine."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        default = torch.get_default_dtype()
        torch.set_default_dtype(dtype)
        try:
            return InstructSAMModel(config).requires_grad_(False)
        finally:
            torch.set_default_dtype(default)


def _weight_files(folder):
    """The safetensors files of `folder`. Raises ModelError where there is nothing safe to read."""
    index = folder / INDEX
    if index.is_file():
        try:
            shards = set(json.loads(index.read_text(encoding='utf-8'))['weight_map'].values())
        except (OSError, ValueError, KeyError, AttributeError) as error:
            raise ModelError(f'{index} cannot be read: {error!r}') from error
        missing = sorted(shard for shard in shards if not (folder / shard).is_file())
        if missing:
            raise ModelError(f'{index} names shards that are not there: {", ".join(missing)}. Copy them, too')
        return [folder / shard for shard in sorted(shards)]
    if (folder / SINGLE).is_file():
        return [folder / SINGLE]
    pickles = sorted(path.name for pattern in ('*.bin', '*.pt', '*.pth', '*.ckpt') for path in folder.glob(pattern))
    if pickles:
        raise ModelError(
            f'{folder} holds weights as pickles only ({", ".join(pickles)}), which can run code and are never read. '
            'Convert them to safetensors on a machine that you can lose'
        )
    raise ModelError(f'{folder} holds no weights: {SINGLE} (or {INDEX} with its shards) is missing')


@contextmanager
def _opened(file):
    try:
        with safe_open(file, framework='pt') as tensors:
            yield tensors
    except (SafetensorError, OSError) as error:
        raise ModelError(f'{file} is not a whole safetensors file ({error}). Copy or download it again') from error


def _shapes(files):
    shapes = {}
    for file in files:
        with _opened(file) as tensors:
            shapes.update({name: tuple(tensors.get_slice(name).get_shape()) for name in tensors.keys()})
    return shapes


def _check(expected, found, folder):
    missing = sorted(expected.keys() - found.keys())
    unexpected = sorted(found.keys() - expected.keys())
    shapes = [
        f'{name} is {list(found[name])}, expected {list(shape)}'
        for name, shape in sorted(expected.items())
        if name in found and found[name] != shape
    ]
    lines = [
        f'{len(names)} {kind}:\n  ' + '\n  '.join([*names[:LISTED], *(['...'] if len(names) > LISTED else [])])
        for kind, names in (('missing', missing), ('unexpected', unexpected), ('of another shape', shapes))
        if names
    ]
    if lines:
        raise ModelError(f'the tensors in {folder} do not fit its config.json.\n' + '\n'.join(lines))


def _read_into(model, file, device, dtype):
    """Copies tensors out of the memory-mapped file, reopening it now and then so that its pages are let go."""
    with _opened(file) as tensors:
        names = sorted(tensors.keys(), reverse=True)
    while names:
        read = 0
        with _opened(file) as tensors:
            while names and read < REOPEN_BYTES:
                name = names.pop()
                tensor = tensors.get_tensor(name)
                read += tensor.nbytes
                _set(model, name, tensor.to(device=device, dtype=dtype or tensor.dtype, copy=True))


def _set(model, name, tensor):
    path, _, leaf = name.rpartition('.')
    module = model.get_submodule(path)
    if leaf in module._parameters:
        module._parameters[leaf] = nn.Parameter(tensor, requires_grad=False)
    else:
        module._buffers[leaf] = tensor


def _write(path, write):
    part = path.with_name(path.name + '.part')
    write(part)
    os.replace(part, path)

"""Model folders: locating them, reading their tensors (safetensors only) and writing them."""

from __future__ import annotations

import math
import os
import threading
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch
from accelerate import init_empty_weights
from huggingface_hub import snapshot_download
from huggingface_hub.constants import HF_HUB_CACHE, HF_HUB_OFFLINE
from huggingface_hub.errors import HfHubHTTPError, HFValidationError
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import nn

from instructsam.core.allocator import own_pages
from instructsam.core.atomic_write import replaced
from instructsam.core.device import check_finite, resolve_dtype
from instructsam.core.errors import ModelError
from instructsam.core.files.json_file import write_json
from instructsam.core.files.regular_file import check_regular_file, read_regular_file
from instructsam.core.model.config import MAX_SMALL_FILE_BYTES, SIDE_FILES, ModelConfig, read_json
from instructsam.core.model.config_check import check_config
from instructsam.core.model.instructsam import InstructSAMModel
from instructsam.core.storage import explained_storage_faults, storage_fault
from instructsam.core.text import shorten

SINGLE, INDEX = 'model.safetensors', 'model.safetensors.index.json'
ADAPTER, ADAPTER_CONFIG = 'adapter_model.safetensors', 'adapter_config.json'  # peft's names for LoRA matrices
MAX_LISTED = 20  # tensor names per problem in an error message
REOPEN_BYTES = 256 << 20  # bytes read from a memory-mapped file before it is reopened
DTYPES = ('F32', 'BF16', 'F16')  # accepted precisions of stored tensors, in safetensors' names
DOWNLOADED = ('*.safetensors', '*.json', '*.jinja', '*.txt', '*.model')  # also in subfolders

Shapes = dict[str, tuple[int, ...]]

_empty_lock = threading.Lock()


def resolve(name: str | Path, revision: str = '', *, also: Iterable[str] = (), is_cache_only: bool = False) -> Path:
    """Return the folder of a hub id, whose files are downloaded (and cached) first.

    Args:
        name: A hub id.
        revision: Commit, tag or branch of it; empty: its main branch.
        also: Patterns of files that are downloaded besides those that a model needs.
        is_cache_only: Download nothing.

    Raises:
        ModelError: `name` is not a hub id, the hub cannot be reached, or the cache does not hold the model.
        StorageError: The download cannot be written.
    """
    if os.path.exists(os.path.expanduser(name)):
        raise ModelError(f'{name} is a file. Give the folder that holds config.json and {SINGLE}')
    text = str(name)
    if text.count('/') != 1 or text.startswith(('.', '/', '~')) or text.endswith('/'):
        raise ModelError(
            f'there is no model folder {name}. Give an existing folder, a hub id (owner/name) or a built-in model'
        )
    try:
        options: dict[str, Any] = {'local_files_only': True} if is_cache_only else {}
        patterns = [*DOWNLOADED, *also]
        return Path(snapshot_download(text, revision=revision or None, allow_patterns=patterns, **options))
    except HFValidationError as error:
        raise ModelError(f'{name!r} is neither a folder nor a hub id: {error}') from error
    except HfHubHTTPError as error:
        status = error.response.status_code if error.response is not None else 'unknown'
        raise ModelError(
            f'the hub refused {_described(text, revision)} (HTTP status {status}): check the id and the revision, and '
            'log in if it is private'
        ) from error
    except Exception as error:  # the HTTP library differs between releases of the hub's client
        if fault := storage_fault(error, HF_HUB_CACHE):
            raise fault from error
        if is_cache_only:
            raise ModelError(
                f"{_described(text, revision)} is not in the hub's cache ({HF_HUB_CACHE}): "
                f'instructsam models fetch {text}{f" --revision {revision}" if revision else ""}'
            ) from error
        raise _unreachable(text, revision) from error


def _unreachable(text: str, revision: str) -> ModelError:
    reason = 'HF_HUB_OFFLINE is set, so that nothing is downloaded' if HF_HUB_OFFLINE else 'the hub cannot be reached'
    return ModelError(
        f'there is no folder {text!r}, and {reason}: {_described(text, revision)} is not in its cache. Check the path '
        'or the network, or give the folder of a copy'
    )


def _described(hub_id: str, revision: str) -> str:
    return f'{hub_id!r} at revision {revision!r}' if revision else repr(hub_id)


@own_pages()
def load(
    folder: str | Path, device: torch.device | str, dtype: torch.dtype | str | None, *, base_only: bool = False
) -> InstructSAMModel:
    """Load the model in `folder`, with frozen weights.

    Weights are read a few tensors at a time, so that memory peaks little above their own size.

    Args:
        folder: A model folder, with one file of weights or shards.
        device: Device of the weights.
        dtype: Precision of the weights, or its name in `core.modes.DTYPES`; None: as stored.
        base_only: Ignore LoRA matrices in the folder, which are an error otherwise.

    Raises:
        ModelError: There are no weights or only pickles, a file cannot be read, there are unmerged LoRA matrices, or
            tensors are missing, unexpected, of another shape, or not finite in `dtype`.
    """
    folder = Path(folder)
    if os.path.exists(folder / ADAPTER) and not base_only:
        raise ModelError(f'{folder} holds unmerged LoRA matrices: run `instructsam train merge {folder} OUT`')
    config = ModelConfig.from_folder(folder)
    files = weight_files(folder)
    shapes = tensor_shapes(files)
    try:
        check_config(config, shapes)
        model = empty_model(config)
    except ModelError as error:
        raise ModelError(f'{folder}: {error}') from error
    except Exception as error:  # modules that cannot be built raise exceptions of many types
        raise ModelError(f'{folder}: no model can be built from its configuration: {shorten(error)}') from error
    expected = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    _check(expected, shapes, folder)
    if dtype is not None:
        dtype = resolve_dtype(dtype, torch.device(device), parameter_count(shapes))
    for file in files:
        _read_into(model, file, device, dtype)
    for name, buffer in model.named_buffers():
        _set(model, name, buffer.to(device))
    return model.requires_grad_(False)


def empty_model(config: ModelConfig) -> InstructSAMModel:
    """Return a model whose parameters have no memory yet; its buffers, which are in no file, do.

    accelerate replaces a method of all modules meanwhile. Two threads at once would leave the replacement there.
    """
    with _empty_lock, init_empty_weights(include_buffers=False):
        return InstructSAMModel(config)


def save(model: InstructSAMModel, folder: str | Path, source: str | Path | None = None) -> None:
    """Write a folder that `load` reads back bit for bit. See `save_tensors`."""
    save_tensors(model.config, model.state_dict(), folder, source)


def save_tensors(
    config: ModelConfig,
    tensors: Mapping[str, torch.Tensor],
    folder: str | Path,
    source: str | Path | None = None,
) -> None:
    """Write a model folder in the published layout.

    SAM3's configuration is written to sam3/, and config.json's mask_decoder_model points there. Each file appears
    complete or not at all. The weights are one file; the shards of a model that was in the folder before are removed.

    Args:
        config: The model's configuration.
        tensors: The model's state_dict().
        folder: Folder to write to; created if necessary.
        source: A model folder whose tokenizer, processor and template files are copied.

    Raises:
        ModelError: A tensor has values that are not finite, a file of `source` cannot be copied, or the folder holds
            LoRA matrices of another model.
        StorageError: The folder cannot be written.
    """
    folder = Path(folder)
    if os.path.lexists(folder / ADAPTER):
        raise ModelError(
            f'{folder} holds LoRA matrices ({ADAPTER}), which do not belong to the model that was to be written there. '
            'Give another folder, or delete them'
        )
    contiguous = {name: tensor.detach().contiguous() for name, tensor in tensors.items()}
    for name, tensor in contiguous.items():
        check_finite(tensor, f'{name}, which was to be written to {folder},')
    _make_folder(folder / 'sam3')
    if source is not None and Path(source).resolve() != folder.resolve():
        for pattern in (*SIDE_FILES, 'sam3/*config.json'):
            for file in Path(source).glob(pattern):
                _copy_small_file(file, folder / file.relative_to(source))
    raw = {**config.raw, 'mask_decoder_model': 'sam3', 'mm_mask_decoder': 'sam3'}
    sam3 = {'model_type': 'sam3_video', 'detector_config': config.sam3.to_dict()}
    write_json(folder / 'config.json', raw)
    write_json(folder / 'sam3' / 'config.json', sam3)
    write_tensors(folder / SINGLE, contiguous)
    with explained_storage_faults(folder):
        _remove_shards(folder)


def write_tensors(path: Path, tensors: Mapping[str, torch.Tensor]) -> None:
    """Write a safetensors file completely or not at all, with the permissions of other files. Raises StorageError."""
    with replaced(path) as part:
        save_file(dict(tensors), part, metadata={'format': 'pt'})


def _remove_shards(folder: Path) -> None:
    """Remove the index in `folder` and the shards that it names, because an index takes precedence over SINGLE."""
    index, shards = folder / INDEX, set[str]()
    if not os.path.lexists(index):
        return
    with suppress(ModelError):  # an index that cannot be read names nothing that could be removed
        shards = {name for name in _shard_names(index) if name.endswith('.safetensors') and name != SINGLE}
    index.unlink()  # first: without its shards it would make the folder unreadable
    for shard in shards:
        (folder / shard).unlink(missing_ok=True)


def _make_folder(folder: Path) -> None:
    """Create a folder and its parents, if necessary. Raises StorageError or ModelError if that is impossible."""
    try:
        with explained_storage_faults(folder):
            folder.mkdir(parents=True, exist_ok=True)
    except FileExistsError as error:
        raise ModelError(f'{folder} is a file, expected a folder or nothing') from error


def _copy_small_file(source: Path, target: Path) -> None:
    """Copy a file, unless it is an endless device or too large for what it should be; raise ModelError then."""
    try:
        content = read_regular_file(source, MAX_SMALL_FILE_BYTES)
    except OSError as error:
        raise ModelError(f'{source} cannot be copied: {error.strerror or error}') from error
    _make_folder(target.parent)
    with replaced(target) as part:
        part.write_bytes(content)


def weight_files(folder: Path) -> list[Path]:
    """Return the safetensors files of `folder`. Raises ModelError if there is nothing safe to read."""
    index = folder / INDEX
    if os.path.lexists(index):
        shards = _shard_names(index)
        missing = sorted(shard for shard in shards if not os.path.isfile(folder / shard))
        if missing:
            raise ModelError(f'{index} names shards that do not exist: {", ".join(missing)}. Copy them, too')
        return [folder / shard for shard in sorted(shards)]
    if os.path.isfile(folder / SINGLE):
        return [folder / SINGLE]
    pickles = sorted(path.name for pattern in ('*.bin', '*.pt', '*.pth', '*.ckpt') for path in folder.glob(pattern))
    if pickles:
        raise ModelError(
            f'{folder} holds weights as pickles only ({", ".join(pickles)}), which can run code and are never read. '
            'Convert them to safetensors on a machine that you can afford to lose'
        )
    raise ModelError(f'{folder} holds no weights: {SINGLE} (or {INDEX} with its shards) is missing')


def _shard_names(index: Path) -> set[str]:
    """Return the names of the files in an index. Raises ModelError if it cannot be read or names other folders."""
    try:
        shards = set(read_json(index)['weight_map'].values())
    except (KeyError, AttributeError, TypeError) as error:
        raise ModelError(f'{index} cannot be read: {error!r}') from error
    if strange := [name for name in shards if not isinstance(name, str) or Path(name).name != name]:
        raise ModelError(f'{index} names shards {str(strange)[:200]}, expected names of files beside it')
    return shards


@contextmanager
def _opened(file: Path) -> Iterator[Any]:
    try:
        check_regular_file(file)
        with safe_open(file, framework='pt') as tensors:
            yield tensors
    except (SafetensorError, OSError) as error:
        raise ModelError(f'{file} is not a complete safetensors file ({error}). Copy or download it again') from error


def tensor_shapes(files: Iterable[Path]) -> Shapes:
    """Return the shape of every tensor in `files`, without reading the tensors."""
    shapes: Shapes = {}
    for file in files:
        with _opened(file) as tensors:
            for name in tensors.keys():  # noqa: SIM118  # no mapping
                tensor = tensors.get_slice(name)
                if name in shapes:
                    raise ModelError(f'{file} holds {name}, which another shard holds, too')
                if tensor.get_dtype() not in DTYPES:
                    raise ModelError(f'{file}: {name} is {tensor.get_dtype()}, expected one of {", ".join(DTYPES)}')
                shapes[name] = tuple(tensor.get_shape())
    return shapes


def parameter_count(shapes: Shapes) -> int:
    """Return the number of parameters of tensors with these shapes."""
    return sum(math.prod(shape) for shape in shapes.values())


def stored_dtypes(files: Iterable[Path]) -> tuple[str, ...]:
    """Return the precisions of the tensors in `files`, in safetensors' names, the most frequent one first."""
    counts: Counter[str] = Counter()
    for file in files:
        with _opened(file) as tensors:
            counts.update(tensors.get_slice(name).get_dtype() for name in tensors.keys())  # noqa: SIM118
    return tuple(name for name, _ in counts.most_common())


def _check(expected: Shapes, found: Shapes, folder: Path) -> None:
    """Raise ModelError with a list of the tensors that are missing, unexpected or of another shape."""
    problems = {
        'missing': sorted(expected.keys() - found.keys()),
        'unexpected': sorted(found.keys() - expected.keys()),
        'of another shape': [
            f'{name} is {list(found[name])}, expected {list(shape)}'
            for name, shape in sorted(expected.items())
            if name in found and found[name] != shape
        ],
    }
    lines: list[str] = []
    for problem, names in problems.items():
        if names:
            lines += [f'{len(names)} {problem}:', *(f'  {name}' for name in names[:MAX_LISTED])]
        if len(names) > MAX_LISTED:
            lines.append('  ...')
    if lines:
        raise ModelError(f'the tensors in {folder} do not fit its config.json.\n' + '\n'.join(lines))


def _read_into(model: nn.Module, file: Path, device: torch.device | str, dtype: torch.dtype | None) -> None:
    """Copy the tensors of a memory-mapped file into the model.

    The file is reopened every REOPEN_BYTES so that the pages read so far are released.
    """
    with _opened(file) as tensors:
        names = sorted(tensors.keys(), reverse=True)
    while names:
        read = 0
        with _opened(file) as tensors:
            while names and read < REOPEN_BYTES:
                name = names.pop()
                tensor = tensors.get_tensor(name)
                read += tensor.nbytes
                tensor = tensor.to(device=device, dtype=dtype or tensor.dtype, copy=True)
                check_finite(tensor, f'{file}: {name}')
                _set(model, name, tensor)


def _set(model: nn.Module, name: str, tensor: torch.Tensor) -> None:
    """Replace the parameter or buffer `name` with `tensor`."""
    path, _, leaf = name.rpartition('.')
    module = model.get_submodule(path)
    if leaf in module._parameters:
        module._parameters[leaf] = nn.Parameter(tensor, requires_grad=False)
    else:
        module._buffers[leaf] = tensor

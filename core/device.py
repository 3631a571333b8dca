"""Choice of the device and the precision of the weights, and checks for numbers that are not finite."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from instructsam.core.cpu_info import bfloat16_units
from instructsam.core.errors import ModelError
from instructsam.core.modes import COMPILE, DTYPES

LARGE = 500_000_000
"""Parameters from which bfloat16 pays on a CPU; smaller models spend their time on other operations than products."""

TORCH_DTYPES = {'float32': torch.float32, 'bfloat16': torch.bfloat16, 'float16': torch.float16}


def resolve_device(device: str | torch.device) -> torch.device:
    """Return the torch device for `device`; 'auto' is CUDA if there is one, else the CPU.

    Raises ModelError if the device cannot be used.
    """
    if str(device) == 'auto':
        return torch.device('cuda' if torch.cuda.is_available() else 'cpu')
    try:
        resolved = torch.device(device)
        torch.empty(0, device=resolved)
    except (RuntimeError, AssertionError) as error:
        raise ModelError(f'the device {str(device)!r} cannot be used: {error}'.splitlines()[0]) from error
    return resolved


def resolve_dtype(dtype: str | torch.dtype, device: torch.device, parameters: int = 0) -> torch.dtype:
    """Return the torch dtype for one of `modes.DTYPES`; 'auto' depends on the device and on the number of parameters.

    No time is measured, so that every process and every run on a machine computes in the same precision.

    Raises ModelError for any other name.
    """
    if isinstance(dtype, torch.dtype):
        return dtype
    if dtype == 'auto':
        if device.type == 'cpu':
            multiplies = torch.backends.mkldnn.is_available() and bfloat16_units()
            return torch.bfloat16 if parameters >= LARGE and multiplies else torch.float32
        if device.type != 'cuda':
            return torch.float32
        # bfloat16 needs compute capability 8.0 (Ampere)
        return torch.bfloat16 if torch.cuda.get_device_capability(device) >= (8, 0) else torch.float16
    if dtype not in TORCH_DTYPES:
        raise ModelError(f'dtype must be one of {", ".join(DTYPES)}, got {dtype!r}')
    return TORCH_DTYPES[dtype]


def resolve_compile(how: str, device: torch.device) -> str:
    """Return off, graphs or inductor for one of `modes.COMPILE`; 'auto' depends on the device.

    Raises ModelError for any other name, and for graphs without CUDA.
    """
    if how not in COMPILE:
        raise ModelError(f'compile must be one of {", ".join(COMPILE)}, got {how!r}')
    if how == 'auto':
        return 'graphs' if device.type == 'cuda' else 'off'
    if how == 'graphs' and device.type != 'cuda':
        raise ModelError(f'compile graphs needs a CUDA device, and the model is on {device.type}: use auto or off')
    return how


def to_device(values: Sequence[Any], device: torch.device) -> torch.Tensor:
    """Return integers (nested lists of them) as a tensor on `device`, without making the host wait."""
    return move(torch.tensor(values), device)


def move(tensor: torch.Tensor, device: torch.device | str) -> torch.Tensor:
    """Return a tensor of the host on `device`; the host does not wait for a GPU."""
    if torch.device(device).type != 'cuda' or tensor.is_cuda:
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)


def check_finite(tensors: torch.Tensor | Sequence[torch.Tensor], name: str) -> None:
    """Raise ModelError if floats have NaN or infinity, which would end as "no target" or as a score.

    Minimum and maximum show it in one pass without a temporary tensor, six times faster than isfinite on a CPU. The
    host waits once for all tensors.
    """
    tensors = [tensors] if isinstance(tensors, torch.Tensor) else tensors
    extremes = [torch.stack(torch.aminmax(each.detach())) for each in tensors if not each.is_meta and each.numel()]
    if not extremes:
        return
    numbers = torch.cat(extremes).float().tolist()
    if not all(abs(number) < float('inf') for number in numbers):  # also false for NaN
        raise not_finite(name, extremes[0].dtype)


def not_finite(name: str, dtype: torch.dtype) -> ModelError:
    """Return the error for numbers that are NaN or infinite, and were computed in `dtype`."""
    precision = str(dtype).removeprefix('torch.')
    return ModelError(
        f'{name} has values that are not finite (in {precision}): the weights are damaged, or the numbers are '
        'beyond this precision; try float32'
    )

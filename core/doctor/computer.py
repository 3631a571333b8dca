"""Checks of Python, of the packages that the model needs, of torch and of the processor that it sees."""

from __future__ import annotations

import importlib
import importlib.metadata
import platform
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from instructsam.core.cpu_info import CPU_INFO, bfloat16_units
from instructsam.core.doctor.check import Check, fault, note, ok
from instructsam.core.text import shorten

OLDEST_PYTHON = (3, 10)
PACKAGES = {  # imported module -> requirement; scripts/backend/requirements.py has the same
    'accelerate': 'accelerate',
    'huggingface_hub': 'huggingface-hub',
    'jinja2': 'jinja2',
    'numpy': 'numpy',
    'cv2': 'opencv-python-headless',
    'PIL': 'pillow',
    'pycocotools': 'pycocotools',
    'rich': 'rich',
    'safetensors': 'safetensors',
    'scipy': 'scipy',
    'torch': 'torch>=2.4',
    'transformers': 'transformers>=5.0,<6',
}
DRIVER = Path('/proc/driver/nvidia/version')
JETSON = Path('/etc/nv_tegra_release')

Import = Callable[[str], Any]


def check_python(version: tuple[int, ...] = sys.version_info[:3], prefix: str = sys.prefix) -> Iterator[Check]:
    """Check the version of the interpreter, and say which one it is."""
    shown = f'{".".join(map(str, version))} in {prefix}'
    if version < OLDEST_PYTHON:
        yield fault('Python', shown, f'use Python {".".join(map(str, OLDEST_PYTHON))} or later')
    else:
        yield ok('Python', shown)


def check_packages(import_module: Import = importlib.import_module) -> Iterator[Check]:
    """Import every package that the model needs, since many faults show only then, and compare its version."""
    versions = []
    for module, requirement in PACKAGES.items():
        name, bounds = _parse(requirement)
        try:
            imported = import_module(module)
        except ModuleNotFoundError as error:
            if error.name == module:
                yield fault(module, 'not installed', f'pip install "{requirement}"')
            else:
                yield fault(module, f'it needs {error.name}, which is not installed', f'pip install {error.name}')
            continue
        except Exception as error:  # a library that is missing or does not fit, as of other versions of NumPy
            yield fault(
                module,
                f'installed, but it cannot be imported: {type(error).__name__}: {shorten(error)}',
                f'pip install --force-reinstall "{requirement}"',
            )
            continue
        version = _version(imported, name)
        if not _satisfies(version, bounds):
            yield fault(module, f'{version}, expected {requirement}', f'pip install "{requirement}"')
        else:
            versions.append(f'{name} {version}')
    if versions:
        yield ok('packages', ', '.join(versions))


def check_torch(
    import_module: Import = importlib.import_module,
    driver: Path = DRIVER,
    jetson: Path = JETSON,
    cpu_info: Path = CPU_INFO,
) -> Iterator[Check]:
    """Check that torch computes on the GPU, if this machine has one; otherwise say what the CPU can do."""
    try:
        torch = import_module('torch')
    except Exception:  # check_packages says why
        return
    built_for = torch.version.cuda
    if torch.cuda.is_available():
        yield from _check_gpus(torch)
        return
    if jetson.exists() and not built_for:
        yield fault(
            'GPU',
            f'this is a Jetson, and torch {torch.__version__} has no CUDA',
            "install NVIDIA's wheel of torch for this JetPack; PyPI's for aarch64 may lack the Jetson's GPU",
        )
    elif driver.exists() and not built_for:
        yield fault(
            'GPU',
            f'there is an NVIDIA driver, but torch {torch.__version__} is built for the CPU only',
            'pip install --force-reinstall torch, from an index with CUDA builds (https://pytorch.org/get-started)',
        )
    elif driver.exists():
        yield fault(
            'GPU',
            f'torch {torch.__version__} is built for CUDA {built_for}, but it sees no GPU',
            'check nvidia-smi (in a container: docker run --gpus all), CUDA_VISIBLE_DEVICES, and that the driver '
            f'supports CUDA {built_for}',
        )
    else:
        yield _cpu(torch, cpu_info)


def _check_gpus(torch: Any) -> Iterator[Check]:
    for index in range(torch.cuda.device_count()):
        name = f'GPU {index}'
        properties = torch.cuda.get_device_properties(index)
        shown = f'{properties.name}, {properties.total_memory / 1e9:.0f} GB'
        try:
            free, _ = torch.cuda.mem_get_info(index)
            result = (torch.ones(2, device=f'cuda:{index}') * 2).sum().item()
        except Exception as error:
            yield fault(
                name,
                f'{shown}: torch {torch.__version__} (CUDA {torch.version.cuda}) cannot compute on it: '
                f'{shorten(error)}',
                'install a torch that is built for this GPU (https://pytorch.org/get-started), or use --device cpu',
            )
            continue
        if result != 4:
            yield fault(name, f'{shown}: 2 x 1 + 2 x 1 is {result}', 'update the driver, and test the GPU')
        else:
            yield ok(name, f'{shown}, {free / 1e9:.1f} GB of it free, CUDA {torch.version.cuda}')


def _cpu(torch: Any, cpu_info: Path) -> Check:
    units = bfloat16_units(cpu_info)
    text = f'no NVIDIA driver: torch uses the CPU, {platform.machine()}, {torch.get_num_threads()} threads'
    if not units:
        return note('GPU', text, 'the built-in model runs on it; for the 2B model use a GPU')
    return note(
        'GPU',
        f'{text}, bfloat16 by {", ".join(units)}',
        'the built-in model runs on it; for the 2B model use a GPU; without one, dtype auto takes bfloat16',
    )


def _parse(requirement: str) -> tuple[str, list[tuple[str, tuple[int, ...]]]]:
    """Return the name of a requirement and its bounds as (operator, version)."""
    name = re.split(r'[<>=]', requirement)[0]
    return name, [(operator, _numbers(bound)) for operator, bound in re.findall(r'(>=|<)([\d.]+)', requirement)]


def _satisfies(version: str, bounds: list[tuple[str, tuple[int, ...]]]) -> bool:
    numbers = _numbers(version)
    return all(numbers >= bound if operator == '>=' else numbers < bound for operator, bound in bounds)


def _numbers(version: str) -> tuple[int, ...]:
    """Return the release of a version, as (2, 13, 0) of 2.13.0+cpu."""
    match = re.match(r'\d+(?:\.\d+)*', version)
    return tuple(int(part) for part in match.group().split('.')) if match else ()


def _version(module: Any, distribution: str) -> str:
    """Return a package's version; apt's packages have no distribution of PyPI's name."""
    try:
        return str(module.__version__)
    except AttributeError:
        try:
            return importlib.metadata.version(distribution)
        except importlib.metadata.PackageNotFoundError:
            return 'of unknown version'

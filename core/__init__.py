"""InstructSAM in PyTorch: the model, its checkpoints and the engine. It does not depend on ROS.

`InstructSAM` and the errors can be imported from here. Importing `InstructSAM` imports torch, which takes seconds;
importing anything else from here does not.

engine      the pipeline: encode an image, segment it with an instruction
result      what `segment` returns; rle: its masks
model/      the network, its inputs and its checkpoints
spatial/    positions, sizes, grasps and tracks of segmented objects
display/    results as overlays and tables
batch/      many images: folders, videos, webcams; COCO JSON and label images
files/      untrusted files: regular files, image headers, JSON and YAML
hub/        models in the hub's cache, and facts about model folders
doctor/     checks of the installation
benchmark/  times of the network's stages
web/        the page of `instructsam web`
commands/   the `instructsam` command line (cli)
"""

from typing import TYPE_CHECKING, Any

from instructsam.core.allocator import configure_allocator
from instructsam.core.errors import (
    CancelledError,
    DataError,
    GeometryError,
    ImageError,
    InstructionError,
    InstructSAMError,
    ModelError,
)
from instructsam.core.threads import configure_threads

if TYPE_CHECKING:
    from instructsam.core.engine import InstructSAM

__all__ = [
    'DEFAULT_MODEL',
    'CancelledError',
    'DataError',
    'GeometryError',
    'ImageError',
    'InstructSAM',
    'InstructSAMError',
    'InstructionError',
    'ModelError',
]

configure_threads()  # before torch is imported, by whatever part of this package
configure_allocator()

DEFAULT_MODEL = 'tabletop'


def __getattr__(name: str) -> Any:
    """Import `InstructSAM` on first use (PEP 562)."""
    if name != 'InstructSAM':
        raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
    from instructsam.core.engine import InstructSAM  # noqa: PLC0415

    return InstructSAM

"""`instructsam train export MODEL OUT`: write a model folder in a smaller type, without auxiliary heads, to ship."""

from pathlib import Path

import torch

from instructsam.core.atomic_write import new_folder
from instructsam.core.model import checkpoint


def export(source: str | Path, out: str | Path, dtype: torch.dtype) -> None:
    """Write the model in the folder `source` to a new folder `out` with weights in `dtype`. Raises ModelError."""
    with new_folder(out) as part:
        checkpoint.save(checkpoint.load(source, torch.device('cpu'), dtype), part, source)

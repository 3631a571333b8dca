"""Auxiliary heads, which only training uses, beside the weights of a model folder."""

import shutil
from pathlib import Path

HEADS = 'heads.safetensors'


def copy_heads(source: str | Path, out: str | Path) -> None:
    """Copy the auxiliary heads of the model folder `source`, if it has any, to the folder `out`, which exists."""
    if (Path(source) / HEADS).is_file():
        shutil.copyfile(Path(source) / HEADS, Path(out) / HEADS)

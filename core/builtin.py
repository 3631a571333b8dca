"""Models shipped with the package: a small trained one that can be loaded by name."""

from __future__ import annotations

from pathlib import Path

from instructsam.core.model import checkpoint

FOLDER = Path(__file__).parent / 'pretrained'
MODELS = {'tabletop': FOLDER / 'tabletop'}
WARNING = 'built-in model: it has seen rendered tables only'


def folder(name: str | Path) -> Path:
    """Return the folder of a built-in model, of a local model folder or of a hub id.

    Raises ModelError if `name` is none of these, or if the hub cannot be reached.
    """
    if isinstance(name, str) and name in MODELS:
        return MODELS[name]
    return checkpoint.resolve(name)


def warning(name: object) -> str:
    """Return the human-readable warning about the limits of a built-in model; empty for any other model."""
    return WARNING if name in MODELS else ''

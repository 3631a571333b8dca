"""Names of models: those shipped with the package, folders and hub ids."""

from __future__ import annotations

import os
import re
from pathlib import Path

from instructsam.core.errors import ModelError

FOLDER = Path(__file__).parent / 'pretrained'
MODELS = {'tabletop': FOLDER / 'tabletop'}
WARNING = 'built-in model: it has seen rendered tables only'


def folder(name: str | Path, revision: str = '', *, is_cache_only: bool = False) -> Path:
    """Return the folder of a built-in model, of a local model folder or of a hub id (at a revision).

    With `is_cache_only` nothing is downloaded.

    Raises ModelError if `name` is none of these, if the hub cannot be reached, or if a revision is given for a model
    that is not on the hub.
    """
    if isinstance(name, str) and name in MODELS:
        if revision:
            raise ModelError(f'{name} is a built-in model: the revision {revision!r} is for a hub id (owner/name) only')
        return MODELS[name]
    path = Path(os.path.expanduser(name))  # unlike those of Path, functions of os.path do not raise for odd names
    if os.path.isdir(path):
        if revision:
            raise ModelError(f'{name} is a folder: the revision {revision!r} is for a hub id (owner/name) only')
        return path
    from instructsam.core.model import checkpoint  # noqa: PLC0415  # imports torch

    return checkpoint.resolve(name, revision, is_cache_only=is_cache_only)


def commit_of(folder: str | Path) -> str:
    """Return the commit of a folder in the hub's cache; empty for any other folder."""
    folder = Path(folder)
    is_snapshot = folder.parent.name == 'snapshots' and re.fullmatch(r'[0-9a-f]{40}', folder.name)
    return folder.name if is_snapshot else ''


def warning(name: object) -> str:
    """Return the human-readable warning about the limits of a built-in model; empty for any other model."""
    return WARNING if name in MODELS else ''

"""Model folder in, model folder out: merging, exporting, resizing and initialising weights."""

from pathlib import Path

from instructsam.core.errors import ModelError


def new_folder(path: str | Path) -> Path:
    """Return `path` as a Path; raise ModelError if it is a file or a folder with contents."""
    path = Path(path)
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise ModelError(f'{path} already exists: give a new folder')
    return path

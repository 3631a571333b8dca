"""The hub's cache on this machine: which models it holds, at which revisions."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import scan_cache_dir
from huggingface_hub.errors import CacheNotFound

from instructsam.core.errors import ModelError
from instructsam.core.files.json_file import read_json_object
from instructsam.core.model.checkpoint import weight_files
from instructsam.core.model.config import MAX_SMALL_FILE_BYTES, REQUIRED


@dataclass(frozen=True)
class CachedModel:
    """A revision of an InstructSAM model in the cache."""

    name: str  # hub id
    commit: str
    refs: tuple[str, ...]  # branches and tags that were asked for
    size_bytes: int
    folder: Path
    is_complete: bool  # false if only some files were downloaded, for example without all of the weights


def cached_models(cache: str | Path | None = None) -> list[CachedModel]:
    """Return the InstructSAM models in the hub's cache (default: that of the user), by name.

    Models of other architectures are left out, according to their config.json.
    """
    try:
        repositories = scan_cache_dir(cache).repos
    except CacheNotFound:
        return []
    return sorted(
        (
            CachedModel(
                repository.repo_id,
                revision.commit_hash,
                tuple(sorted(revision.refs)),
                revision.size_on_disk,
                revision.snapshot_path,
                _has_weights(revision.snapshot_path),
            )
            for repository in repositories
            if repository.repo_type == 'model'
            for revision in repository.revisions
            if _is_instructsam(revision.snapshot_path)
        ),
        key=lambda model: (model.name, model.commit),
    )


def _has_weights(folder: Path) -> bool:
    try:
        return bool(weight_files(folder))
    except ModelError:
        return False


def _is_instructsam(folder: Path) -> bool:
    try:
        raw = read_json_object(folder / 'config.json', MAX_SMALL_FILE_BYTES)
    except (OSError, ValueError):
        return False
    return all(key in raw for key in REQUIRED)

"""Check of a model's folder: configuration, index and headers of the weights, without reading or downloading any."""

from __future__ import annotations

from collections.abc import Iterator

from instructsam.core.doctor.check import Check, fault, ok
from instructsam.core.errors import InstructSAMError


def check_model(name: str, revision: str = '') -> Iterator[Check]:
    """Check a built-in model, a folder, or a hub id, of which only the cache on this machine is looked at."""
    try:
        # They import torch and transformers, which may be missing.
        from instructsam.core import builtin  # noqa: PLC0415
        from instructsam.core.hub.describe import describe  # noqa: PLC0415
    except ImportError as error:
        yield fault('model', f'not checked: {error}', 'repair the packages above')
        return
    try:
        folder = builtin.folder(name, revision, is_cache_only=True)
        facts = describe(folder)
    except InstructSAMError as error:
        yield fault('model', error, 'see `instructsam models` and docs/model.md#checkpoints')
        return
    yield ok('model', f'{name}: {facts.parameters / 1e6:,.1f} M parameters, {", ".join(facts.dtypes)}, in {folder}')

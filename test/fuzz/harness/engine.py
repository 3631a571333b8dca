"""The engine of targets that do not fuzz the model: the tiny reference checkpoint, loaded once."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING
from unittest import mock

if TYPE_CHECKING:
    from instructsam.core import InstructSAM

ROOT = Path(__file__).resolve().parents[3]
CHECKPOINT = ROOT / 'test' / 'data' / 'reference' / 'checkpoint'


@functools.cache
def tiny_engine() -> InstructSAM:
    """Return the engine on the tiny checkpoint."""
    from instructsam.core import InstructSAM

    return InstructSAM.from_pretrained(CHECKPOINT, device='cpu', dtype='float32')


@contextmanager
def use_tiny_engine() -> Iterator[None]:
    """Let `InstructSAM.from_pretrained` return the tiny engine."""
    from instructsam.core import InstructSAM

    engine = tiny_engine()
    with mock.patch.object(InstructSAM, 'from_pretrained', classmethod(lambda cls, *_, **__: engine)):
        yield

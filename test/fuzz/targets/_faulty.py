"""A target that does what its examples say, for the test of the harness."""

from __future__ import annotations

import ctypes
import os
import signal
import time
from pathlib import Path
from typing import ClassVar

import numpy as np
from harness.example import Example, write_files
from harness.target import ACCEPTED, InProcessTarget, Verdict, WrongAnswerError


class Faulty(InProcessTarget):
    """Accepts, refuses, raises, crashes, hangs or takes memory."""

    name: ClassVar[str] = '_faulty'
    time_limit_s: ClassVar[float] = 1.0
    memory_mb: ClassVar[int] = 300
    seeds: ClassVar[tuple[str, ...]] = ('accept', 'refuse', 'raise', 'wrong', 'crash', 'exit', 'hang', 'allocate')

    def open(self, folder: Path) -> None:
        """Nothing to prepare."""

    def run(self, example: Example, folder: Path) -> Verdict:
        """Do as the seed says."""
        from instructsam.core.errors import DataError

        write_files({'a.json': b'{"a": 1}'}, example.changes, folder)
        if example.seed == 'refuse':
            raise DataError('no')
        if example.seed == 'raise':
            raise KeyError('a')
        if example.seed == 'wrong':
            raise WrongAnswerError('two and two is 5')
        if example.seed == 'crash':
            ctypes.string_at(0)
        if example.seed == 'exit':
            os.kill(os.getpid(), signal.SIGKILL)
        if example.seed == 'hang':
            time.sleep(60)
        if example.seed == 'allocate':
            np.ones(500 << 17)  # 500 MB
        return ACCEPTED


TARGET = Faulty()

"""Standard streams that the caller closed or that cannot be written."""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from typing import TextIO


def open_missing() -> None:
    """Open /dev/null for the standard streams that the caller closed, as in `>&-`.

    Python has None for them, and the next file that is opened would get their numbers, to which libraries write.
    """
    for name, mode in (('stdin', 'r'), ('stdout', 'w'), ('stderr', 'w')):
        if getattr(sys, name) is None:
            # The lowest free number is that of the stream.
            setattr(sys, name, open(os.devnull, mode, encoding='utf-8'))  # noqa: SIM115


def finish(stream: TextIO) -> None:
    """Write what a stream still buffers; discard it if it cannot be written, because Python would try that again."""
    try:
        stream.flush()
    except OSError:
        with suppress(OSError, ValueError):  # not a file
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())

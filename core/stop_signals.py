"""SIGINT, SIGTERM and SIGHUP as one exception, which unwinds a command, and as one line and an exit code."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import NoReturn

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
GRACE_S = 30
"""Time to unwind, after which the process ends at once: Python drops exceptions that are raised in some callbacks."""


_number = signal.SIGINT  # the last one; its exception would keep the objects in its frames alive


class Stopped(KeyboardInterrupt):
    """A signal asks the command to end. Whoever handles Ctrl-C handles it as well."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number


@contextmanager
def raise_stopped() -> Generator[None, None, None]:
    """Raise Stopped in the block at the first signal; end the process at the second one or after GRACE_S.

    Signals that the process ignores from its start on (nohup, a shell's background job) stay ignored. Outside of the
    main thread, which receives the signals, this has no effect.
    """
    try:
        before = {each: signal.getsignal(each) for each in SIGNALS}
        for each in SIGNALS:
            if before[each] is not signal.SIG_IGN:
                signal.signal(each, _stop)
    except ValueError:  # not the main thread
        yield
        return
    try:
        yield
    finally:
        signal.alarm(0)
        for each, handler in before.items():
            signal.signal(each, signal.SIG_DFL if handler is None else handler)


@contextmanager
def resume_hint(where: Callable[[], str]) -> Generator[None, None, None]:
    """Let the line about Ctrl-C or a signal in the block say what `where` returns."""
    try:
        yield
    except KeyboardInterrupt as error:
        with suppress(Exception):  # it may be interrupted in a state that cannot be described
            error.args = (where(),)
        raise


def describe(error: KeyboardInterrupt) -> tuple[str, int]:
    """Return the line about Ctrl-C or a signal, and the exit code."""
    number = getattr(error, 'number', signal.SIGINT)
    hint = f'; {error.args[0]}' if error.args else ''
    return f'stopped by {signal.Signals(number).name}{hint}', 128 + number


def _stop(number: int, frame: FrameType | None) -> NoReturn:
    def end(*_: object) -> None:
        line, code = describe(Stopped(number))
        with suppress(OSError):
            os.write(sys.__stderr__.fileno() if sys.__stderr__ else 2, f'instructsam: {line}\n'.encode())
        os._exit(code)

    for each in (*SIGNALS, signal.SIGALRM):
        signal.signal(each, end)
    signal.alarm(GRACE_S)
    global _number
    _number = number
    raise Stopped(number)


def dropped() -> KeyboardInterrupt:
    """Return the exception of the signal after which a library gave up because it dropped that exception."""
    return Stopped(_number)

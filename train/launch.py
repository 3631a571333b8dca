"""Runs `instructsam` in other processes, one or several that train together, and passes signals on to them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from instructsam.core import exit_codes
from instructsam.core.errors import FolderInUseError, InstructSAMError, StorageError

CLI = 'instructsam.core.cli'


class OutOfTimeError(InstructSAMError):
    """A command did not end in the time that it was given."""


def launch(
    argv: Sequence[str],
    *,
    module: str = CLI,
    processes: int = 1,
    folder: str | Path | None = None,
    timeout_s: float | None = None,
) -> None:
    """Run `python -m MODULE ARGV`, by torchrun if it takes several processes, and wait for it.

    Ctrl-C and signals are passed on, and the command is waited for.

    Args:
        argv: Arguments of the module.
        module: The module, by default the command `instructsam`.
        processes: Number of processes that run it together.
        folder: Folder that the command runs in; None: the current one.
        timeout_s: Time after which the command is interrupted; None: none.

    Raises:
        OutOfTimeError: If it was interrupted.
        InstructSAMError: If it fails; StorageError and FolderInUseError by its exit code.
    """
    launcher = ['-m', 'torch.distributed.run', '--standalone', f'--nproc-per-node={processes}'] if processes > 1 else []
    command = [sys.executable, *launcher, '-m', module, *argv]
    environment = {'OMP_NUM_THREADS': '1', **os.environ} if processes > 1 else None
    # In a session of its own it does not receive the terminal's Ctrl-C too: a second signal would end it at once.
    with subprocess.Popen(command, start_new_session=True, cwd=folder, env=environment) as process:
        try:
            code = process.wait(timeout_s)
        except subprocess.TimeoutExpired as error:
            process.send_signal(signal.SIGINT)
            process.wait()
            raise OutOfTimeError('the time is over') from error
        except BaseException as error:
            process.send_signal(getattr(error, 'number', signal.SIGINT))
            process.wait()
            raise
    if code:
        kinds = {exit_codes.STORAGE: StorageError, exit_codes.IN_USE: FolderInUseError}
        text = f'`{" ".join(argv)}` ended with exit code {code}. Starting it again resumes it'
        raise kinds.get(code, InstructSAMError)(text)

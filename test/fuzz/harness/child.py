"""The child process of fuzzing targets: runs one example after another until its pipe is closed.

    python child.py TARGET[,TARGET...] DESCRIPTOR FOLDER

It limits its own memory, and leaves its stacks in its log when it crashes or receives SIGUSR1.
"""

import faulthandler
import importlib
import math
import os
import signal
import sys
import time
import traceback
from multiprocessing.connection import Connection
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from harness.example import Example
from harness.target import OUT_OF_MEMORY, Target, limit_memory, signature_of


def load_target(name: str) -> Target:
    """Return the target of that name, `targets/NAME.py`."""
    return importlib.import_module(f'targets.{name}').TARGET


def serve(names: list[str], pipe: Connection, folder: Path) -> None:
    """Answer (state, kind, message, seconds, peak MB, resident MB) for each (target, example) that arrives."""
    targets = {name: load_target(name) for name in names}
    for name, target in targets.items():
        (folder / name).mkdir()
        target.open(folder / name)
    limit_memory(os.getpid(), max(target.memory_mb for target in targets.values()))
    pipe.send(('ready', '', '', 0.0, 0.0, max(target.resident_mb() for target in targets.values())))
    while True:
        try:
            name, text = pipe.recv()
        except EOFError:
            break
        target, example = targets[name], Example.from_json(text)
        start_s, before_mb = time.monotonic(), math.inf
        try:
            target.begin(example)
        except Exception as error:
            state, kind, message = 'failed', f'before the example: {signature_of(error)}', traceback.format_exc()
        else:
            start_s, before_mb = time.monotonic(), target.resident_mb()
            state, kind, message = _run(target, example, folder / name / 'input')
        seconds = time.monotonic() - start_s
        peak_mb = target.peak_mb()
        if peak_mb - before_mb > target.memory_mb and state != 'failed':
            state, kind, message = (
                'failed',
                'memory',
                f'{peak_mb - before_mb:.0f} MB more than before; {kind}: {message}',
            )
        pipe.send((state, kind, message, seconds, peak_mb, target.resident_mb()))
    for target in targets.values():
        target.close()


def _run(target: Target, example: Example, folder: Path) -> tuple[str, str, str]:
    from instructsam.core.errors import InstructSAMError

    try:
        verdict = target.run(example, folder)
    except InstructSAMError as error:
        if OUT_OF_MEMORY.search(str(error)):
            return 'failed', f'memory: {signature_of(error)}', str(error)
        return 'refused', type(error).__name__, str(error)
    except BaseException as error:
        return 'failed', signature_of(error), traceback.format_exc()
    return verdict.state, verdict.kind, verdict.message


if __name__ == '__main__':
    faulthandler.enable()
    faulthandler.register(signal.SIGUSR1, all_threads=True)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, which ends this process
    serve(sys.argv[1].split(','), Connection(int(sys.argv[2])), Path(sys.argv[3]))

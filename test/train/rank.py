"""One process of a training command, for tests: run by its path in a forked child, see conftest's `launch`.

Globals: ARGV, the arguments of the `instructsam` command; ENV, its environment; LOG, the file for its output; KILL,
None or (function, n): when `function` ("module:name") is called for the nth time, the process kills itself as kill -9
would. Optional: MOST_BYTES, the largest size of a file; REMOVED, a folder that is removed before the first row of a
run's log is written, while TensorBoard's thread still has an event to write.
"""

import importlib
import multiprocessing
import os
import resource
import shutil
import signal
import sys
import threading

log = os.open(LOG, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)  # noqa: F821
os.dup2(log, 1)
os.dup2(log, 2)
sys.stdout, sys.stderr = os.fdopen(1, 'w', buffering=1), os.fdopen(2, 'w', buffering=1)
os.environ.update(ENV)  # noqa: F821

import torch  # noqa: E402

from instructsam.core.cli import main  # noqa: E402

torch.set_num_threads(1)
if globals().get('MOST_BYTES'):
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (MOST_BYTES, MOST_BYTES))  # noqa: F821
if globals().get('REMOVED'):
    from instructsam.train.loop import run_log

    append_row = run_log.append_row

    def remove_and_append(path, row):
        shutil.rmtree(REMOVED, ignore_errors=True)  # noqa: F821
        writing = [thread for thread in threading.enumerate() if type(thread).__name__ == '_AsyncWriterThread']
        for thread in writing:
            thread._queue.put(b'an event')
            thread.join(60)
        append_row(path, row)

    run_log.append_row = remove_and_append
# Data workers are forked, although a forkserver started this process.
multiprocessing.set_start_method('fork', force=True)
if KILL:  # noqa: F821
    (place, nth), calls = KILL, [0]  # noqa: F821
    module, _, name = place.partition(':')
    owner = importlib.import_module(module)
    *path, name = name.split('.')
    for each in path:
        owner = getattr(owner, each)
    original = getattr(owner, name)

    def counted(*args, **kwargs):
        calls[0] += 1
        if calls[0] == nth:
            os.kill(os.getpid(), signal.SIGKILL)
        return original(*args, **kwargs)

    setattr(owner, name, counted)
sys.exit(main(ARGV))  # noqa: F821

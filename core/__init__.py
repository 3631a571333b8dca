"""InstructSAM in PyTorch: the model, its checkpoints and the engine. Knows nothing of ROS.

`InstructSAM` and the errors are reachable from here; torch is imported with the first of them that needs it.
"""

import os

from instructsam.core.errors import CancelledError, ImageError, InstructionError, InstructSAMError, ModelError

__all__ = [
    'DEFAULT_MODEL',
    'CancelledError',
    'ImageError',
    'InstructSAM',
    'InstructSAMError',
    'InstructionError',
    'ModelError',
]

DEFAULT_MODEL = 'tabletop'


def __getattr__(name):
    if name == 'InstructSAM':
        # Read when torch loads its thread pool: threads that wait for each other shall soon sleep. By default they spin
        # for milliseconds, and where other processes want the cores, as on any robot, they spin against the one that
        # they wait for, which makes answers several times slower (test/bench/bench_busy_cores.py).
        if 'OMP_WAIT_POLICY' not in os.environ:
            os.environ.setdefault('GOMP_SPINCOUNT', '10000')
        from instructsam.core.engine import InstructSAM

        return InstructSAM
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')

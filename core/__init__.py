"""InstructSAM in PyTorch: the model, its checkpoints and the engine. Knows nothing of ROS.

`InstructSAM` and the errors are reachable from here; torch is imported with the first of them that needs it.
"""
from instructsam.core.errors import Cancelled, ImageError, InstructionError, InstructSAMError, ModelError

__all__ = [
    'DEFAULT_MODEL', 'Cancelled', 'ImageError', 'InstructSAM', 'InstructSAMError', 'InstructionError', 'ModelError',
]

DEFAULT_MODEL = 'untrained'


def __getattr__(name):
    if name == 'InstructSAM':
        from instructsam.core.engine import InstructSAM

        return InstructSAM
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')

"""transformers' SAM3 modules as `sam3`."""

from __future__ import annotations

import importlib
import sys
import types
from typing import TYPE_CHECKING


def _import_sam3() -> types.ModuleType:
    """Import transformers' SAM3 modules without torchvision.

    Release 5.0 of transformers imports torchvision at the top of the module, for box prompts only, which are not used
    here.
    """
    name = 'transformers.models.sam3.modeling_sam3'
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name != 'torchvision':
            raise
    sys.modules['torchvision'] = types.ModuleType('torchvision')
    try:
        return importlib.import_module(name)
    finally:
        del sys.modules['torchvision']


if TYPE_CHECKING:
    from transformers.models.sam3 import modeling_sam3 as sam3
else:
    sam3 = _import_sam3()

__all__ = ['sam3']

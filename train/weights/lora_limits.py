"""Ranks and modules of LoRA matrices that recipes may ask for and `train merge` accepts; importable without torch."""

import re
from collections.abc import Iterable

MAX_RANK = 4096

MODULE = re.compile(r'\w+(\.\w+)*')
"""The name of a module, or the end of its dotted name."""

_LANGUAGE_MODULES = re.compile(r'model\\\.language_model\\\.\.\*\\\.\(\w+(\\?\.\w+)*(\|\w+(\\?\.\w+)*)*\)')


def language_modules(names: Iterable[str]) -> str:
    """Return peft's `target_modules` for the modules of the language model whose names end like one of `names`."""
    return rf'model\.language_model\..*\.({"|".join(map(re.escape, names))})'


def is_target(value: object) -> bool:
    """Return whether a value of `target_modules` is a name, or as language_modules returns it.

    Other regular expressions may take for ever.
    """
    return isinstance(value, str) and bool(MODULE.fullmatch(value) or _LANGUAGE_MODULES.fullmatch(value))

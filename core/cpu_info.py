"""Facts about the processor that Linux reports; importable without torch."""

from __future__ import annotations

import platform
import re
from pathlib import Path

CPU_INFO = Path('/proc/cpuinfo')
BF16 = {'amx_bf16': 'AMX', 'avx512_bf16': 'AVX-512', 'bf16': 'Arm'}
"""Flags of /proc/cpuinfo of processors that multiply bfloat16 matrices, and the names of their instructions."""


def cpu_name(cpu_info: Path = CPU_INFO) -> str:
    """Return the name of the processor; on Arm, where Linux does not report it, the architecture."""
    names = re.findall(r'^model name\s*:\s*(.+)$', _text(cpu_info), re.MULTILINE)
    return names[0] if names else platform.machine()


def bfloat16_units(cpu_info: Path = CPU_INFO) -> list[str]:
    """Return the names of the instructions with which the CPU multiplies bfloat16 matrices; [] if it has none."""
    flags = set(re.findall(r'\w+', _text(cpu_info)))
    return [unit for flag, unit in BF16.items() if flag in flags]


def _text(cpu_info: Path) -> str:
    try:
        return cpu_info.read_text()
    except OSError:
        return ''

"""Facts about the processor, from the file of Linux."""

import pytest

from instructsam.core.cpu_info import bfloat16_units, cpu_name


@pytest.mark.parametrize(
    ('flags', 'units'),
    [('fpu amx_bf16 avx512_bf16', ['AMX', 'AVX-512']), ('fp asimd bf16', ['Arm']), ('fpu avx512f', [])],
)
def test_flags_of_the_cpu(flags, units, tmp_path):
    (tmp_path / 'cpuinfo').write_text(f'flags : {flags}\n')
    assert bfloat16_units(tmp_path / 'cpuinfo') == units
    assert bfloat16_units(tmp_path / 'absent') == []


def test_the_name_of_the_processor(tmp_path):
    (tmp_path / 'cpuinfo').write_text('processor : 0\nmodel name\t: A CPU\n')
    assert cpu_name(tmp_path / 'cpuinfo') == 'A CPU'
    assert cpu_name(tmp_path / 'absent')

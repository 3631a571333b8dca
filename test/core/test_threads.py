"""Importing the core configures torch's thread pool, without importing torch."""

import os
import subprocess
import sys
from unittest import mock

import pytest

from instructsam.core.threads import SPINS, configure_threads

CORE_FIRST = """
import os, sys
from instructsam.core.threads import report_late
assert 'torch' not in sys.modules
report_late(2)
print(os.environ['GOMP_SPINCOUNT'])
"""
TORCH_FIRST = """
import torch
from instructsam.core.threads import report_late
report_late(1)
report_late(2)
report_late(2)
"""
CLEAN = {name: value for name, value in os.environ.items() if name not in ('GOMP_SPINCOUNT', 'OMP_WAIT_POLICY')}


def run(program, **variables):
    return subprocess.run(
        [sys.executable, '-c', program], env={**CLEAN, **variables}, text=True, capture_output=True, check=True
    )


def test_importing_the_core_configures_the_thread_pool_without_torch():
    done = run(CORE_FIRST)
    assert (done.stdout.strip(), done.stderr) == (SPINS, '')


def test_a_torch_that_was_imported_first_is_reported_once_with_what_to_do():
    reports = [line for line in run(TORCH_FIRST).stderr.splitlines() if 'GOMP_SPINCOUNT' in line]
    assert len(reports) == 1
    assert f'start the program with GOMP_SPINCOUNT={SPINS}' in reports[0]


@pytest.mark.parametrize('variables', [{'GOMP_SPINCOUNT': '7'}, {'OMP_WAIT_POLICY': 'passive'}])
def test_settings_of_the_user_are_respected(variables):
    with mock.patch.dict(os.environ, {**CLEAN, **variables}, clear=True):
        configure_threads()
        assert dict(os.environ) == {**CLEAN, **variables}


def test_unknown_names():
    import instructsam.core

    with pytest.raises(AttributeError, match='no attribute'):
        _ = instructsam.core.SomethingElse

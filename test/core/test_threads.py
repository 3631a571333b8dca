"""Importing the engine configures torch's thread pool; importing the rest of the core does not import torch."""

import os
import subprocess
import sys
from unittest import mock

import pytest

from instructsam.core.threads import SPINS, configure_threads

IMPORTS = """
import os, sys
import instructsam.core
assert 'torch' not in sys.modules
assert 'GOMP_SPINCOUNT' not in os.environ
from instructsam.core import InstructSAM
assert 'torch' in sys.modules
print(os.environ['GOMP_SPINCOUNT'])
"""
CLEAN = {name: value for name, value in os.environ.items() if name not in ('GOMP_SPINCOUNT', 'OMP_WAIT_POLICY')}


def test_the_thread_pool_is_configured_before_torch_is_imported():
    assert subprocess.check_output([sys.executable, '-c', IMPORTS], env=CLEAN, text=True).strip() == SPINS


@pytest.mark.parametrize('variables', [{'GOMP_SPINCOUNT': '7'}, {'OMP_WAIT_POLICY': 'passive'}])
def test_settings_of_the_user_are_respected(variables):
    with mock.patch.dict(os.environ, {**CLEAN, **variables}, clear=True):
        configure_threads()
        assert dict(os.environ) == {**CLEAN, **variables}


def test_unknown_names():
    import instructsam.core

    with pytest.raises(AttributeError, match='no attribute'):
        _ = instructsam.core.SomethingElse

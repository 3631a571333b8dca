"""Importing the engine configures torch's thread pool; importing the rest of the core does not import torch."""

import os
import subprocess
import sys

import pytest

IMPORTS = """
import os, sys
import instructsam.core
assert 'torch' not in sys.modules
assert os.environ.get('GOMP_SPINCOUNT') == {before!r}
from instructsam.core import InstructSAM
assert 'torch' in sys.modules
assert os.environ.get('GOMP_SPINCOUNT') == {after!r}
"""


@pytest.mark.parametrize(
    ('variables', 'before', 'after'),
    [
        ({}, None, '10000'),
        ({'GOMP_SPINCOUNT': '7'}, '7', '7'),
        ({'OMP_WAIT_POLICY': 'passive'}, None, None),
    ],
)
def test_the_thread_pool_is_configured_before_torch_is_imported(variables, before, after):
    env = {name: value for name, value in os.environ.items() if name not in ('GOMP_SPINCOUNT', 'OMP_WAIT_POLICY')}
    code = IMPORTS.format(before=before, after=after)
    subprocess.run([sys.executable, '-c', code], env=env | variables, check=True)


def test_unknown_names():
    import instructsam.core

    with pytest.raises(AttributeError, match='no attribute'):
        _ = instructsam.core.SomethingElse

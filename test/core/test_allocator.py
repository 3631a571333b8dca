"""Importing the core lets glibc keep the memory of freed tensors."""

import ctypes
import os
import subprocess
import sys

import pytest

from instructsam.core.allocator import VARIABLES

PAGES = """
import resource, sys, threading
import instructsam.core
import torch

def write():
    for _ in range(10):
        torch.ones(24 << 18)  # 24 MiB
        torch.ones(160 << 18)

def count():
    write()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    write()
    print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)

count()
thread = threading.Thread(target=count)
thread.start()
thread.join()
"""
SHARE = 10 * (24 + 160) * 256 // 100  # a hundredth of the 4 KiB pages that are written
CLEAN = {name: value for name, value in os.environ.items() if name not in VARIABLES}


def new_pages(**variables):
    """Return the new pages of repeated tensors in the first thread and in another one."""
    done = subprocess.run(
        [sys.executable, '-c', PAGES], env={**CLEAN, **variables}, text=True, capture_output=True, check=True
    )
    return list(map(int, done.stdout.split()))


@pytest.fixture(scope='module', autouse=True)
def glibc():
    if not hasattr(ctypes.CDLL(None), 'gnu_get_libc_version'):
        pytest.skip('the C library is not glibc, whose allocator this is about')


def test_repeated_tensors_need_no_new_pages():
    first, other = new_pages()
    assert first < SHARE
    assert other < SHARE


def test_settings_of_the_user_are_respected():
    first, other = new_pages(MALLOC_TRIM_THRESHOLD_='131072')
    assert min(first, other) > SHARE

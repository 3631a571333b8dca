"""Precision of the weights: `dtype: auto`, and what records of results hold."""

import argparse

import pytest
import torch

from instructsam.core import device
from instructsam.core.commands.options import precision
from instructsam.core.device import LARGE, resolve_dtype
from instructsam.core.model.checkpoint import load

CPU = torch.device('cpu')


@pytest.fixture(params=[['AMX'], []], ids=['bfloat16', 'none'])
def units(request, monkeypatch):
    monkeypatch.setattr(device, 'bfloat16_units', lambda: request.param)
    return request.param


def test_auto_on_a_cpu_depends_on_its_instructions_and_the_size_of_the_model(units):
    assert resolve_dtype('auto', CPU, LARGE) == (torch.bfloat16 if units else torch.float32)
    assert resolve_dtype('auto', CPU, LARGE - 1) == torch.float32
    assert resolve_dtype('auto', CPU) == torch.float32
    assert resolve_dtype('float32', CPU, LARGE) == torch.float32


def test_without_onednn_auto_is_float32(monkeypatch):
    monkeypatch.setattr(device, 'bfloat16_units', lambda: ['Arm'])
    monkeypatch.setattr(torch.backends.mkldnn, 'is_available', lambda: False)
    assert resolve_dtype('auto', CPU, LARGE) == torch.float32


@pytest.mark.parametrize('large', [1, LARGE])
def test_records_hold_the_precision_that_is_loaded(large, units, checkpoint, monkeypatch):
    monkeypatch.setattr(device, 'LARGE', large)
    model = load(checkpoint, CPU, 'auto')
    assert model.dtype == (torch.bfloat16 if units and large == 1 else torch.float32)
    args = argparse.Namespace(device='cpu', dtype='auto')
    assert f'torch.{precision(args, checkpoint)}' == str(model.dtype)


def test_a_given_precision_is_recorded_without_reading_the_model(tmp_path):
    assert precision(argparse.Namespace(device='cpu', dtype='float16'), tmp_path) == 'float16'

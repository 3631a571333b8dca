"""`dtype: auto` on CPUs: bfloat16 for large models, where the CPU multiplies it and a trial shows a gain."""

import logging

import pytest
import torch

from instructsam.core import device
from instructsam.core.cpu_precision import LARGE, ModelSize, cpu_precision
from instructsam.core.device import resolve_dtype
from instructsam.core.model.checkpoint import load

CPU = torch.device('cpu')
SIZE = ModelSize(LARGE, 2048, 6144)


@pytest.mark.parametrize(('gain', 'expected'), [(3, torch.bfloat16), (1.1, torch.float32)])
def test_bfloat16_must_gain(gain, expected, caplog):
    def time_product(dtype, rows):
        return rows / gain if dtype == torch.bfloat16 else float(rows)

    with caplog.at_level(logging.INFO):
        assert cpu_precision(SIZE, ['AMX'], time_product) == expected
    assert f'(bfloat16 by AMX), bfloat16 makes matrix products {gain:.1f} times' in caplog.text


def never(dtype, rows):
    raise AssertionError('nothing is tried')


@pytest.mark.parametrize(('size', 'units'), [(SIZE._replace(parameters=LARGE - 1), ['AMX']), (SIZE, [])])
def test_small_models_and_other_cpus_stay_at_float32_without_a_trial(size, units):
    assert cpu_precision(size, units, never) == torch.float32


def test_the_trial_runs_real_products():
    assert cpu_precision(ModelSize(LARGE, 32, 64), ['AMX']) in (torch.float32, torch.bfloat16)


def test_the_size_of_the_model_decides(checkpoint, monkeypatch):
    sizes = []
    monkeypatch.setattr(device, 'cpu_precision', lambda size: sizes.append(size) or torch.bfloat16)
    model = load(checkpoint, CPU, 'auto')
    assert model.dtype == torch.bfloat16
    text = model.config.text
    parameters = sum(parameter.numel() for parameter in model.parameters())
    assert sizes == [ModelSize(parameters, text.hidden_size, text.intermediate_size)]


def test_a_given_precision_is_kept():
    assert resolve_dtype('float32', CPU, SIZE) == torch.float32
    assert resolve_dtype('auto', CPU) == torch.float32

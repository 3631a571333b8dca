"""`dtype: auto` on CPUs: bfloat16 for large models, where the CPU multiplies it and a trial shows a gain."""

import logging

import pytest
import torch

from instructsam.core import device
from instructsam.core.cpu_precision import LARGE, ROWS, ModelSize, cpu_precision
from instructsam.core.device import resolve_dtype
from instructsam.core.model.checkpoint import load

CPU = torch.device('cpu')
SIZE = ModelSize(LARGE, 2048, 6144)


def products(many, single):
    """Return a clock on which bfloat16 is `many` and `single` times as fast as float32."""
    gains = {ROWS: many, 1: single}
    return lambda dtype, rows: 1.0 if dtype == torch.float32 else 1 / gains[rows]


@pytest.mark.parametrize(
    ('many', 'single', 'expected'),
    [(3, 2, torch.bfloat16), (1.1, 2, torch.float32), (3, 0.7, torch.float32)],
)
def test_bfloat16_must_gain(many, single, expected, caplog):
    with caplog.at_level(logging.INFO):
        assert cpu_precision(SIZE, ['AMX'], products(many, single)) == expected
    assert f'bfloat16 by AMX), it makes matrix products {many:.1f} times' in caplog.text


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

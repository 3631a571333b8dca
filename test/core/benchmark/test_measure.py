"""Counts of operations, and the order of measured stages."""

import itertools

import pytest
import torch
import torch.nn.functional as F

from instructsam.core.benchmark.machine import OtherPrograms
from instructsam.core.benchmark.measure import MAX_ROUNDS, MIN_ROUNDS, count_operations, measure
from instructsam.core.benchmark.stages import Stage

CPU = torch.device('cpu')


@pytest.mark.parametrize('kv_heads', [4, 2])
@pytest.mark.parametrize('masking', ['none', 'causal', 'mask'])
@torch.inference_mode()
def test_attention_counts(masking, kv_heads):
    query, keys = torch.randn(1, 4, 8, 16), torch.randn(1, kv_heads, 8, 16)
    options = {'causal': {'is_causal': True}, 'mask': {'attn_mask': torch.zeros(8, 8)}}.get(masking, {})

    def attend(_):
        F.scaled_dot_product_attention(query, keys, keys, enable_gqa=kv_heads != 4, **options)

    assert count_operations(Stage('attention', attend)) == 4 * 2 * 8 * 8 * (16 + 16)


@torch.inference_mode()
def test_operations_are_per_unit_and_without_the_preparation():
    values, weight = torch.randn(5, 7), torch.randn(3, 7)
    stage = Stage('products', lambda state: F.linear(state, weight), lambda: values @ values.T @ values, units=2)
    assert count_operations(stage) == 2 * 5 * 7 * 3 // 2


def test_stages_take_turns_until_the_time_is_over():
    ran, clock = [], itertools.count()
    stages = [Stage(name, ran.append, lambda name=name: name, units=2) for name in 'ab']
    times = measure(stages, CPU, 1e-3, warm_ups=1, clock=lambda: float(next(clock)))
    assert ran == ['a', 'b'] * (1 + MIN_ROUNDS)
    assert [[each.wall_s for each in times[name]] for name in 'ab'] == [[0.5] * MIN_ROUNDS] * 2


def test_the_number_of_rounds_is_limited():
    stage = Stage('nothing', lambda _: None)
    assert len(measure([stage], CPU, 1e6, clock=lambda: 0.0)['nothing']) == MAX_ROUNDS


def test_other_programs(tmp_path):
    statistics = tmp_path / 'stat'
    statistics.write_text('cpu  100 0 50 9999 5 1 1 3 0 0\ncpu0 ...\n')
    others = OtherPrograms(statistics)
    assert others.cores() == 0
    statistics.write_text('cpu  100 0 50 9999 5 1 1 100003 0 0\n')  # time that other virtual machines took counts
    assert others.cores() > 1
    assert OtherPrograms(tmp_path / 'absent').cores() is None

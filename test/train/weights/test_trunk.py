"""The trunk's weights: EfficientNet-Lite0 with its normalisation folded in."""

import math

import pytest
import torch
import torch.nn.functional as F

from instructsam.core.model.trunk import Trunk
from instructsam.train.weights.trunk import NORM_EPS, trunk_weights

BLOCKS = [  # kernel, stride, expansion, input and output channels of the original's first 12 blocks
    (3, 1, 1, 32, 16),
    (3, 2, 6, 16, 24),
    (3, 1, 6, 24, 24),
    (5, 2, 6, 24, 40),
    (5, 1, 6, 40, 40),
    (3, 2, 6, 40, 80),
    (3, 1, 6, 80, 80),
    (3, 1, 6, 80, 80),
    (5, 1, 6, 80, 112),
    (5, 1, 6, 112, 112),
    (5, 1, 6, 112, 112),
    (5, 2, 6, 112, 192),
]
MAPS = {'fine': (1, 2), 'middle': (3, 4), 'coarse': (8, 9, 10)}  # the blocks whose sum a map is


@pytest.fixture(scope='module')
def lite0():
    """Random weights of the original, under its names and in its order, up to one block more than the trunk has."""
    generator = torch.Generator().manual_seed(1)
    weights = {}

    def add(convolution, norm, *shape):
        weights[f'{convolution}.weight'] = torch.randn(shape, generator=generator) / math.prod(shape[1:]) ** 0.5
        weights[f'{norm}.weight'] = 0.5 + torch.rand(shape[0], generator=generator)
        weights[f'{norm}.bias'] = torch.randn(shape[0], generator=generator)
        weights[f'{norm}.running_mean'] = 0.1 * torch.randn(shape[0], generator=generator)
        weights[f'{norm}.running_var'] = 0.5 + torch.rand(shape[0], generator=generator)
        weights[f'{norm}.num_batches_tracked'] = torch.tensor(0)

    add('_conv_stem', '_bn0', 32, 3, 3, 3)
    for index, (kernel, _, expansion, channels, out) in enumerate(BLOCKS):
        block, width = f'_blocks.{index}', channels * expansion
        if expansion > 1:
            add(f'{block}._expand_conv', f'{block}._bn0', width, channels, 1, 1)
        add(f'{block}._depthwise_conv', f'{block}._bn1', width, 1, kernel, kernel)
        add(f'{block}._project_conv', f'{block}._bn2', out, width, 1, 1)
    return weights


def original(lite0, pixels):
    """Return the output of each block, computed one operation after another."""

    def conv(values, convolution, norm, kernel=1, stride=1, groups=1):
        total = kernel - stride if values.shape[-1] % stride == 0 else kernel - 1
        low, high = total // 2, total - total // 2  # TensorFlow's padding SAME
        padded = F.pad(values, (low, high, low, high))
        result = F.conv2d(padded, lite0[f'{convolution}.weight'], stride=stride, groups=groups)
        mean, variance = lite0[f'{norm}.running_mean'], lite0[f'{norm}.running_var']
        return F.batch_norm(result, mean, variance, lite0[f'{norm}.weight'], lite0[f'{norm}.bias'], eps=NORM_EPS)

    values = F.relu6(conv(pixels, '_conv_stem', '_bn0', 3, 2))
    outputs = []
    for index, (kernel, stride, expansion, channels, out) in enumerate(BLOCKS):
        block, inner = f'_blocks.{index}', values
        if expansion > 1:
            inner = F.relu6(conv(inner, f'{block}._expand_conv', f'{block}._bn0'))
        inner = F.relu6(conv(inner, f'{block}._depthwise_conv', f'{block}._bn1', kernel, stride, inner.shape[1]))
        inner = conv(inner, f'{block}._project_conv', f'{block}._bn2')
        values = values + inner if stride == 1 and channels == out else inner
        outputs.append(values)
    return outputs


@torch.no_grad()
def test_maps_are_the_standardised_ones_of_the_original(lite0):
    trunk = Trunk()
    trunk.load_state_dict(trunk_weights(lite0))
    pixels = torch.rand(2, 3, 96, 96, generator=torch.Generator().manual_seed(2)) * 2 - 1
    outputs = original(lite0, pixels)
    for (name, blocks), found in zip(MAPS.items(), trunk(pixels), strict=True):
        mean = sum(lite0[f'_blocks.{block}._bn2.bias'] for block in blocks)
        deviation = sum(lite0[f'_blocks.{block}._bn2.weight'] ** 2 for block in blocks).sqrt()
        expected = (outputs[blocks[-1]] - mean[:, None, None]) / deviation[:, None, None]
        torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-3, msg=name)

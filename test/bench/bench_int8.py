"""Compare linear layers of a decoded token at the published size: float32, bfloat16 and weights of eight bits.

    python test/bench/bench_int8.py [--layers 7] [--rounds 5]

One row passes through the matrix products of the language model and through its head, with random weights; the time of
`layers` layers is scaled to 28. `int8, torch` is torch._weight_int8pack_mm, which is not part of torch's interface;
`int8, torchao` is Int8WeightOnlyConfig of torchao without a compiler, if torchao is installed.
"""

import argparse
import statistics
import time

import torch
from torch import nn

LAYERS, WIDTH, VOCABULARY = 28, 2048, 151_936
SHAPES = ((WIDTH, 4096), (WIDTH, WIDTH), (WIDTH, 12_288), (6144, WIDTH))  # joint q/k/v, output, gate and up, down


class TorchInt8(nn.Module):
    """A linear layer whose rows have eight bits and a scale."""

    def __init__(self, linear):
        super().__init__()
        scale = linear.weight.float().abs().amax(1, keepdim=True) / 127
        self.weight = nn.Buffer((linear.weight.float() / scale).round().to(torch.int8))
        self.scale = nn.Buffer(scale[:, 0].bfloat16())

    def forward(self, x):
        return torch._weight_int8pack_mm(x, self.weight, self.scale)


def linear_layers(layers, dtype):
    """Return the layers and the head, with the same weights for every call."""
    torch.manual_seed(0)
    shapes = [*SHAPES * layers, (WIDTH, VOCABULARY)]
    return [nn.Linear(*shape, bias=False, dtype=dtype).requires_grad_(False) for shape in shapes]


def variants(layers):
    bfloat16 = linear_layers(layers, torch.bfloat16)
    yield 'float32', linear_layers(layers, torch.float32)
    yield 'bfloat16', bfloat16
    yield 'int8, torch', [TorchInt8(linear) for linear in bfloat16]
    try:
        from torchao.quantization import Int8WeightOnlyConfig, quantize_
    except ImportError:
        print('int8, torchao: torchao is not installed')
        return
    quantized = nn.ModuleList(linear_layers(layers, torch.bfloat16))
    quantize_(quantized, Int8WeightOnlyConfig())
    yield 'int8, torchao', list(quantized)


def token_s(modules, dtype, layers):
    x = torch.ones(1, max(inputs for inputs, _ in SHAPES), dtype=dtype)
    inputs = [shape[0] for shape in SHAPES] * layers
    start = time.perf_counter()
    for width, module in zip(inputs, modules, strict=False):
        module(x[:, :width])
    middle = time.perf_counter()
    modules[-1](x[:, :WIDTH])
    return (middle - start) * LAYERS / layers + time.perf_counter() - middle


@torch.inference_mode()
def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--layers', type=int, default=7)
    parser.add_argument('--rounds', type=int, default=5)
    args = parser.parse_args()
    kinds = dict(variants(args.layers))
    times = {kind: [] for kind in kinds}
    for _ in range(args.rounds):
        for kind, modules in kinds.items():
            dtype = torch.float32 if kind == 'float32' else torch.bfloat16
            times[kind].append(token_s(modules, dtype, args.layers))
    for kind, values in times.items():
        values = sorted(values[1:])  # the first round warms up
        print(f'{kind:14s} {1e3 * statistics.median(values):5.0f} ms per token', end=' ')
        print(f'({1e3 * values[0]:.0f} to {1e3 * values[-1]:.0f})')


if __name__ == '__main__':
    main()

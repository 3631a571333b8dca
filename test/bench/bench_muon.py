"""Time of Muon's orthogonal updates in bfloat16 and float32, in turn, for the matrices of the built-in model.

    python test/bench/bench_muon.py [--threads 1] [--rounds 9]

Prints the processor time of each and their ratio, by shape.
"""

import argparse
import statistics
import time
from unittest.mock import patch

import torch

from instructsam.core.cpu_info import bfloat16_units, cpu_name
from instructsam.train.optimizers import muon

SHAPES = (12, 160, 448), (10, 480, 160), (20, 160, 160), (8, 400, 160)  # number of matrices, rows, columns


def seconds(matrices, dtype):
    with patch.object(muon, '_precision', lambda device_type: dtype):
        start_s = time.process_time()
        muon.orthogonalise(matrices)
        return time.process_time() - start_s


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--threads', type=int, default=1)
    parser.add_argument('--rounds', type=int, default=9)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    print(f'{cpu_name()}, bfloat16 by {", ".join(bfloat16_units()) or "no instructions"}, ms of processor time')
    print(f'{"shape":<16}{"bfloat16":>10}{"float32":>10}{"ratio":>8}')
    for shape in SHAPES:
        matrices, times = torch.randn(shape), {torch.bfloat16: [], torch.float32: []}
        for _ in range(args.rounds):
            for dtype, each in times.items():
                each.append(seconds(matrices, dtype))
        lower, full = (statistics.median(each) for each in times.values())
        print(f'{shape!s:<16}{lower * 1e3:>10.1f}{full * 1e3:>10.1f}{lower / full:>8.2f}')


if __name__ == '__main__':
    main()

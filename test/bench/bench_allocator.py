"""Compare the processor time of SAM3's encoder with and without glibc keeping the memory of freed tensors.

    python test/bench/bench_allocator.py [--rounds 15] [--layers 3] [--thread]

Two processes of one thread take turns: one as `core/allocator.py` configures it, one with glibc's own settings. Each
runs some layers of the published size, the last of which attends to the whole image, on random weights. The ratio is
the median over the rounds of the processor times, and pages are those that the kernel has cleared per run. With
--thread the network runs in another thread than the first one, as in the node.
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import tempfile
import threading
from pathlib import Path

from workers import Worker, in_turn, package_of, serve, timed

SETTING = 'MALLOC_TRIM_THRESHOLD_'


def work(layers: int) -> None:
    """Answer each request by the seconds and the new pages of one run, and the peak of the memory in MB."""
    import torch
    from transformers.models.sam3.configuration_sam3 import Sam3ViTConfig

    from instructsam.core.model.layers.sam3_modules import sam3
    from instructsam.core.model.layers.sam_attention import use_rotary_attention

    torch.set_num_threads(1)
    config = Sam3ViTConfig(num_hidden_layers=layers, global_attn_indexes=[layers - 1])
    config._attn_implementation = 'sdpa'
    encoder = sam3.Sam3ViTModel(config).eval().requires_grad_(False)
    use_rotary_attention(encoder)
    for layer in encoder.layers:
        layer.attention.join()
    image = torch.randn(1, 3, config.image_size, config.image_size)

    @torch.inference_mode()
    def answer(_: object) -> list[float]:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        seconds, _ = timed(lambda: encoder(image))
        usage = resource.getrusage(resource.RUSAGE_SELF)
        return [seconds, usage.ru_minflt - before, usage.ru_maxrss / 1024]

    serve(answer)


def main() -> None:
    """Run the rounds and print the ratio."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--rounds', type=int, default=15, help='(default: %(default)s)')
    parser.add_argument('--layers', type=int, default=3, help='of the encoder (default: %(default)s)')
    parser.add_argument('--thread', action='store_true', help='run in another thread than the first one')
    parser.add_argument('--worker', choices=('kept', 'returned'), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        if args.worker == 'returned':
            os.environ[SETTING] = ''  # too late for glibc, but core/allocator.py then leaves it alone
        import instructsam.core  # noqa: F401 (before the thread starts, as in the node)

        if args.thread:
            thread = threading.Thread(target=work, args=(args.layers,))
            thread.start()
            thread.join()
        else:
            work(args.layers)
        return
    with tempfile.TemporaryDirectory() as folder:
        paths = [package_of(Path(__file__).parents[2], Path(folder))]
        options = ['--layers', str(args.layers), *(['--thread'] if args.thread else [])]
        kept, returned = (Worker(name, __file__, ['--worker', name, *options], paths) for name in ('kept', 'returned'))
        rounds = in_turn(kept, returned, range(2 + args.rounds))[2:]  # the first two warm up
        for worker in (kept, returned):
            worker.close()
    for name, column in zip(('kept', 'returned'), zip(*rounds, strict=True), strict=True):
        seconds, pages, memory = (statistics.median(values) for values in zip(*column, strict=True))
        print(f'{name:10}{seconds:8.2f} s{pages:12,.0f} pages{memory:8,.0f} MB')
    ratios = sorted(mine[0] / other[0] for mine, other in rounds)
    print(f'kept / returned: {statistics.median(ratios):.3f} ({ratios[0]:.3f} to {ratios[-1]:.3f})')


if __name__ == '__main__':
    main()

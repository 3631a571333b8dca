"""Time per answer while other processes use the cores: threads that sleep early against threads that spin.

    python test/bench/bench_busy_cores.py [--answers 25]

Runs the built-in model on the CPU in four processes, one after the other: with the GOMP_SPINCOUNT that importing the
engine sets and with the thread pool's default, on an idle machine and beside one busy process per core.
"""

import argparse
import os
import subprocess
import sys
import time

from instructsam.core.threads import SPINS as OURS

BUSY = 'while True: pass'
SPINS = {'ours': OURS, 'default': '300000'}


def answer_times_ms(answers):
    """Return the median and the 95th percentile."""
    import numpy as np

    from instructsam.core import InstructSAM

    engine = InstructSAM.from_pretrained('tabletop', device='cpu')
    image = np.random.default_rng(0).integers(0, 256, (480, 640, 3), dtype=np.uint8)
    times_s = []
    for _ in range(answers):
        start = time.perf_counter()
        engine.segment(engine.encode(image), 'red mug', answer=engine.answer_for(['red mug']))
        times_s.append(time.perf_counter() - start)
    return np.percentile(times_s, [50, 95]) * 1e3


def measure_in_a_process(spins, answers):
    """Return the median and the 95th percentile, ms, with this GOMP_SPINCOUNT."""
    env = {**os.environ, 'GOMP_SPINCOUNT': spins}
    command = [sys.executable, __file__, '--answers', str(answers), '--inside']
    return [float(ms) for ms in subprocess.check_output(command, env=env, text=True).split()]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--answers', type=int, default=25)
    parser.add_argument('--inside', action='store_true', help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.inside:
        print(*answer_times_ms(arguments.answers))
        return
    print('ms per answer       median      p95')
    for title, count in (('idle machine', 0), ('busy cores', os.cpu_count())):
        others = [subprocess.Popen([sys.executable, '-c', BUSY]) for _ in range(count)]
        try:
            medians = {}
            for name, spins in SPINS.items():
                medians[name], p95 = measure_in_a_process(spins, arguments.answers)
                print(f'{title:13} {name:8}{medians[name]:8.0f} {p95:8.0f}', flush=True)
            print(f'{title:13} default / ours: {medians["default"] / medians["ours"]:.2f}', flush=True)
        finally:
            for other in others:
                other.kill()
                other.wait()


if __name__ == '__main__':
    main()

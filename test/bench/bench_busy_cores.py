"""How long an answer takes while other processes want the cores: threads that soon sleep against threads that spin.

    python test/bench/bench_busy_cores.py [--answers 25]

Runs the built-in model on the CPU in four processes, one after the other: with GOMP_SPINCOUNT as importing the engine
sets it and as the thread pool's default is, on an idle machine and beside a busy process for each core.
"""

import argparse
import os
import subprocess
import sys
import time

BUSY = 'while True: pass'
SPINS = {'ours': '10000', 'default': '300000'}


def answer_times(answers):
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


def measured(spins, answers):
    env = {**os.environ, 'GOMP_SPINCOUNT': spins}
    command = [sys.executable, __file__, '--answers', str(answers), '--inside']
    return [float(ms) for ms in subprocess.check_output(command, env=env, text=True).split()]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--answers', type=int, default=25)
    parser.add_argument('--inside', action='store_true', help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.inside:
        print(*answer_times(arguments.answers))
        return
    print('ms an answer        median      p95')
    for title, count in (('idle machine', 0), ('busy cores', os.cpu_count())):
        others = [subprocess.Popen([sys.executable, '-c', BUSY]) for _ in range(count)]
        try:
            medians = {}
            for name, spins in SPINS.items():
                medians[name], p95 = measured(spins, arguments.answers)
                print(f'{title:13} {name:8}{medians[name]:8.0f} {p95:8.0f}', flush=True)
            print(f'{title:13} default / ours: {medians["default"] / medians["ours"]:.2f}', flush=True)
        finally:
            for other in others:
                other.kill()
                other.wait()


if __name__ == '__main__':
    main()

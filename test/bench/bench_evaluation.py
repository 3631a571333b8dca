"""Time and memory of the figures of many records: from the lines of a run's folder to the whole table.

    python test/bench/bench_evaluation.py [--records 100000]

Writes made-up results (0 to 3 targets of 480x640 px and as many predictions, slightly shifted, at random scores), then
reads and measures them in a separate process; masks stay run lengths. Exits with 1 if that takes more than a minute or
4 GB for 100,000 records.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from instructsam.core.rle import Rle
from instructsam.train.evaluation.figures.summary import summarise
from instructsam.train.evaluation.query import Order, Outcome, Query
from instructsam.train.evaluation.running.run_folder import ResultWriter, read_run

SIZE = (480, 640)
NUM_RECORDS, LIMIT_S, LIMIT_GB = 100_000, 60, 4
NUM_SHAPES, QUERIES_PER_IMAGE = 200, 4


def make_pairs(rng: np.random.Generator) -> Iterator[tuple[Rle, Rle]]:
    """Yield (target, prediction) with borders as ragged as those of real masks."""
    y, x = np.mgrid[: SIZE[0], : SIZE[1]]
    for _ in range(NUM_SHAPES):
        cx, cy, rx, ry = rng.uniform((100, 100, 20, 20), (540, 380, 120, 100))
        target, prediction = (
            Rle.encode(((x - cx - dx) / rx) ** 2 + ((y - cy - dy) / ry) ** 2 < 1 + rng.normal(0, 0.02, SIZE))
            for dx, dy in ((0, 0), rng.normal(0, 8, 2))
        )
        yield target, prediction


def write_results(folder: str, num_records: int) -> None:
    """Write a run with made-up results."""
    rng = np.random.default_rng(0)
    pairs = list(make_pairs(rng))
    with ResultWriter(folder, 0, {'made': 'up'}) as writer:
        for index in range(num_records):
            chosen = [pairs[number] for number in rng.integers(NUM_SHAPES, size=rng.integers(4))]
            targets = tuple(target for target, _ in chosen)
            masks = [prediction for _, prediction in chosen] + [pairs[0][1]] * (index % 5 == 0)
            scores = tuple(sorted(rng.uniform(0.3, 1, len(masks)).tolist(), reverse=True))
            image, number = divmod(index, QUERIES_PER_IMAGE)
            writer.add(
                Outcome(
                    Order(image, number, QUERIES_PER_IMAGE),
                    f'{image}.jpg',
                    Query(str(index), 'the object', targets, groups={'kind': 'abc'[index % 3]}),
                    masks=tuple(masks),
                    scores=scores,
                    timings_ms={'segment': 1.0},
                )
            )


def measure(folder: str) -> dict[str, float]:
    """Return the times (s) and the peak memory (GB) of this process, and two figures."""
    start = time.perf_counter()
    outcomes = read_run(folder).outcomes
    read_s = time.perf_counter() - start
    summary = summarise(outcomes, 0.5)
    return {
        'queries': summary['all']['queries'],
        'mAP': summary['all']['mAP'],
        'read_s': read_s,
        'all_s': time.perf_counter() - start,
        'peak_gb': resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9,
    }


def main() -> int:
    """Run the benchmark and return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--records', type=int, default=NUM_RECORDS)
    parser.add_argument('--measure', help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.measure:
        print(json.dumps(measure(args.measure)))
        return 0
    with tempfile.TemporaryDirectory() as folder:
        write_results(folder, args.records)
        size_gb = sum(file.stat().st_size for file in Path(folder).iterdir()) / 1e9
        command = [sys.executable, __file__, '--measure', folder]
        measured = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
    print(json.dumps({**measured, 'results_gb': size_gb}, indent=1))
    return int(measured['all_s'] > LIMIT_S * args.records / NUM_RECORDS or measured['peak_gb'] > LIMIT_GB)


if __name__ == '__main__':
    sys.exit(main())

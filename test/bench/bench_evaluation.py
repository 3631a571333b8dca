"""Figures of many records: from the lines of a run's folder to the whole table, masks as run lengths throughout.

    python test/bench/bench_evaluation.py [--records 100000]

Writes made-up results (0 to 3 true masks of 480x640 px, as many predictions, moved a little, at random scores), then
reads and measures them in a process of its own. Exits with 1 where that took a minute or 4 GB for 100,000.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from instructsam.core.rle import Rle
from instructsam.train.evaluation.figures.summary import summarise
from instructsam.train.evaluation.query import Outcome, Query
from instructsam.train.evaluation.running.run_folder import Writer, read_run

SIZE = (480, 640)
GOAL_S, GOAL_GB, OF_RECORDS = 60, 4, 100_000
SHAPES, QUERIES_AN_IMAGE = 200, 4


def pairs(rng):
    """(true mask, prediction), with a border as ragged as that of a real mask."""
    y, x = np.mgrid[: SIZE[0], : SIZE[1]]
    for _ in range(SHAPES):
        cx, cy, rx, ry = rng.uniform((100, 100, 20, 20), (540, 380, 120, 100))
        shift = rng.normal(0, 8, 2)
        yield tuple(
            Rle.encode(((x - cx - dx) / rx) ** 2 + ((y - cy - dy) / ry) ** 2 < 1 + rng.normal(0, 0.02, SIZE))
            for dx, dy in ((0, 0), shift)
        )


def write(folder, records):
    rng = np.random.default_rng(0)
    shapes = list(pairs(rng))
    with Writer(folder, 0, {'made': 'up'}) as writer:
        for index in range(records):
            chosen = [shapes[number] for number in rng.integers(SHAPES, size=rng.integers(4))]
            query = Query(str(index), 'the thing', tuple(true for true, _ in chosen), groups={'kind': 'abc'[index % 3]})
            found = [predicted for _, predicted in chosen] + [shapes[0][1]] * (index % 5 == 0)
            scores = tuple(sorted(rng.uniform(0.3, 1, len(found)).tolist(), reverse=True))
            order = (index // QUERIES_AN_IMAGE, index % QUERIES_AN_IMAGE, QUERIES_AN_IMAGE)
            writer.add(
                Outcome(
                    order,
                    f'{index // QUERIES_AN_IMAGE}.jpg',
                    query,
                    masks=tuple(found),
                    scores=scores,
                    timings_ms={'segment': 1.0},
                )
            )


def measure(folder):
    """{what: s or GB} of this process."""
    start = time.perf_counter()
    outcomes = read_run(folder).outcomes
    read_s = time.perf_counter() - start
    found = summarise(outcomes, 0.5)
    return {
        'queries': found['all']['queries'],
        'mAP': found['all']['mAP'],
        'read_s': read_s,
        'all_s': time.perf_counter() - start,
        'peak_gb': resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9,
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--records', type=int, default=OF_RECORDS)
    parser.add_argument('--measure', help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        print(json.dumps(measure(arguments.measure)))
        return 0
    with tempfile.TemporaryDirectory() as folder:
        write(folder, arguments.records)
        size_gb = sum(file.stat().st_size for file in Path(folder).iterdir()) / 1e9
        command = [sys.executable, __file__, '--measure', folder]
        found = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
    print(json.dumps({**found, 'results_gb': size_gb}, indent=1))
    return int(found['all_s'] > GOAL_S * arguments.records / OF_RECORDS or found['peak_gb'] > GOAL_GB)


if __name__ == '__main__':
    sys.exit(main())

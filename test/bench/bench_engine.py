"""The data engine's runner without images and models: rows per second, memory, and 100 kills at random instants.

    python test/bench/bench_engine.py [--rows 100000] [--kills 100] [--kill-rows 3000]

Five stages, whose functions make up questions, boxes and masks of the usual size at once, write their files as in a
real run: what is measured is the runner, the files and JSON. Each stage of the long run is a process of its own, so its
peak memory is its own. In the second part, a process that runs all stages is killed (SIGKILL) at random instants and
started again until it was killed as often as asked; then it may finish, and its files are compared with those of an
undisturbed run, byte by byte.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import multiprocessing
import os
import random
import resource
import shutil
import signal
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np

from instructsam.core.rle import Rle
from instructsam.train.data_engine.rows import (
    STAGES,
    EngineImage,
    Evidence,
    Ground,
    ObjectMask,
    Question,
    Rejection,
    Row,
    SegmentedObject,
    StageRecord,
)
from instructsam.train.data_engine.runners.local import RunSettings, run_stage
from instructsam.train.data_engine.runners.store import StageFile

FORK = multiprocessing.get_context('fork')


def blob() -> str:
    """Return the run lengths of a mask of the usual length."""
    y, x = np.mgrid[:480, :640]
    radius = 120 + 30 * np.sin(7 * np.arctan2(y - 240, x - 320))
    return Rle.encode((y - 240) ** 2 + (x - 320) ** 2 < radius**2).to_coco()['counts']


MASK = blob()


def images(row: Row) -> Row:
    """Make up an image."""
    digest = hashlib.sha256(b'%d' % row.order).hexdigest()
    name = f'{row.order:07}.jpg'
    image = EngineImage(digest, name, False, 480, 640, 'made-up', 'own', name, 99.5, digest[:16])
    return replace(row, image=image).with_record(StageRecord('images'))


async def questions(row: Row) -> Row:
    """Make up five questions, as an asynchronous stage that waits for something."""
    await asyncio.sleep(0)
    made = tuple(
        Question(f'q{n}', f'Find the {n} things beside number {row.order}.', f'{n} things', Ground('count', n % 3 + 1))
        for n in range(5)
    )
    return replace(row, questions=made).with_record(StageRecord('questions', 'made-up', '0' * 16, 1, 1200, 300))


async def objects(row: Row) -> Row:
    """Make up three objects."""
    await asyncio.sleep(0)
    found = tuple(SegmentedObject(f'o{n}', f'thing {n}', (10.0 * n, 20.0, 300.5, 400.25)) for n in range(3))
    asked = tuple(
        replace(each, object_ids=tuple(f'o{n}' for n in range(each.ground.count or 0))) for each in row.questions
    )
    return replace(row, questions=asked, objects=found).with_record(StageRecord('objects', 'made-up', '1' * 16, 1))


def masks(row: Row) -> Row:
    """Make up masks."""
    mask = ObjectMask((480, 640), MASK, 0.91, 0.97, 3.5, 0.88)
    return replace(row, objects=tuple(replace(each, mask=mask) for each in row.objects))


def filtered(row: Row) -> Row:
    """Make up evidence and a rejection."""
    evidence = tuple(Evidence(each.id, 0.9, 1, each.object_ids, True) for each in row.questions)
    rejection = Rejection('filter', 'counts.plural', f'q{row.order % 5}', value=2, limit=1)
    return replace(row, evidence=evidence).with_rejections([rejection])


FUNCTIONS = {'images': images, 'questions': questions, 'objects': objects, 'masks': masks, 'filter': filtered}


def run(folder: Path, stage: str, count: int, workers: int) -> None:
    """Run a stage on the rows that its file lacks."""
    before = STAGES.index(stage) - 1
    source = StageFile(folder / f'{STAGES[before]}.jsonl') if before >= 0 else None
    with StageFile(folder / f'{stage}.jsonl', {'rows': count}) as file:
        orders = range(count) if source is None else source.orders()
        inputs = (Row(order, None) if source is None else source.read(order) for order in orders if order not in file)
        for _ in run_stage(FUNCTIONS[stage], inputs, file, RunSettings(workers=workers)):
            pass


def run_all(folder: Path, count: int, workers: int) -> None:
    """Run all stages."""
    for stage in STAGES:
        run(folder, stage, count, workers)


def measured(queue, folder: Path, stage: str, count: int, workers: int) -> None:
    """Run a stage and report its time and the peak of the process's memory."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start = time.perf_counter()
    run(folder, stage, count, workers)
    seconds = time.perf_counter() - start
    queue.put((seconds, before / 1024, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024))


def digests(folder: Path) -> list[str]:
    """Return the SHA-256 of each stage's file."""
    return [hashlib.sha256((folder / f'{stage}.jsonl').read_bytes()).hexdigest() for stage in STAGES]


def bench_throughput(root: Path, count: int) -> None:
    """Print rows per second and memory of each stage, and compare the files of 1, 2 and 8 workers."""
    columns = ('1 worker, rows/s', '2 workers', '8 workers', 'memory at start, MB', 'peak, MB', 'file, MB')
    print(f'| stage ({count:,} rows) | {" | ".join(columns)} |')
    print('|---|---|---|---|---|---|---|')
    rates: dict[str, list[str]] = {stage: [] for stage in STAGES}
    peaks: dict[str, tuple[float, float]] = {}
    found = []
    for workers in (1, 2, 8):
        folder = root / f'workers{workers}'
        for stage in STAGES:
            queue = FORK.SimpleQueue()
            process = FORK.Process(target=measured, args=(queue, folder, stage, count, workers))
            process.start()
            seconds, before, peak = queue.get()
            process.join()
            rates[stage].append(f'{count / seconds:,.0f}')
            peaks[stage] = (before, max(peak, peaks.get(stage, (0.0, 0.0))[1]))
        found.append(digests(folder))
        if workers < 8:
            shutil.rmtree(folder)
    for stage in STAGES:
        size = (root / 'workers8' / f'{stage}.jsonl').stat().st_size / 1e6
        before, peak = peaks[stage]
        print(f'| {stage} | {" | ".join(rates[stage])} | {before:.0f} | {peak:.0f} | {size:.0f} |')
    print(f'\nfiles of 1, 2 and 8 workers: {"equal" if found[0] == found[1] == found[2] else "DIFFERENT"}')
    start = time.perf_counter()
    with StageFile(root / 'workers8' / 'filter.jsonl') as file:
        print(f'opening the last file, with all checksums: {time.perf_counter() - start:.1f} s, {len(file):,} rows')


def bench_kills(root: Path, count: int, kills: int, seed: int) -> None:
    """Kill a run at random instants, let it finish, and compare it with an undisturbed one."""
    whole, killed = root / 'whole', root / 'killed'
    start = time.perf_counter()
    run_all(whole, count, 8)
    seconds = time.perf_counter() - start
    start = time.perf_counter()
    run_all(whole, count, 8)  # everything is there: the time to open the files
    opening = time.perf_counter() - start
    rng = random.Random(seed)
    done = cut = 0
    while done < kills:
        process = FORK.Process(target=run_all, args=(killed, count, 8))
        process.start()
        # Long enough on average for a hundredth of the run, so that the kills are spread over all of it.
        process.join(rng.uniform(0, 2 * opening + 2 * seconds / kills))
        if process.exitcode is not None:
            shutil.rmtree(killed)  # it has finished: the next kills hit another run
            continue
        os.kill(process.pid, signal.SIGKILL)
        process.join()
        done += 1
        files = [killed / f'{stage}.jsonl' for stage in STAGES]
        cut += any(path.exists() and path.stat().st_size and not path.read_bytes().endswith(b'\n') for path in files)
    run_all(killed, count, 8)
    same = digests(whole) == digests(killed)
    print(
        f'{kills} kills (SIGKILL) during a run of {len(STAGES)} stages with {count:,} rows ({seconds:.1f} s), '
        f'{cut} of which cut a line off: the files are {"equal to" if same else "DIFFERENT from"} those of the '
        f'undisturbed run'
    )


def main() -> None:
    """Run both parts."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--rows', type=int, default=100_000)
    parser.add_argument('--kills', type=int, default=100)
    parser.add_argument('--kill-rows', type=int, default=3000)
    parser.add_argument('--seed', type=int, default=0)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        bench_throughput(Path(folder), args.rows)
    with tempfile.TemporaryDirectory() as folder:
        bench_kills(Path(folder), args.kill_rows, args.kills, args.seed)


if __name__ == '__main__':
    main()

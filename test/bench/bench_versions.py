"""Compare the processor time of the engine, or of 3D and ids, with that of another checkout, side by side.

    git worktree add /tmp/before 3d7e5bd
    python test/bench/bench_versions.py /tmp/before [--part spatial] [--rounds 15] [--model FOLDER]

Each checkout runs in a process of its own, with one thread. They take turns: a new frame with an instruction, another
instruction on it, and one with the phrase given; without it, nine tokens are decoded (the answer's end does not stop
it). With --part spatial: the ids and the 3D boxes of ten masks that fill half of an image of 1280x720. The ratio is the
median over the rounds of this checkout's time and the other's; answers, scores and mask areas, or ids and boxes within
a nanometre, must be the same.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
from workers import Worker, in_turn, package_of, serve

OWN = Path(__file__).parents[2]
SCENERY = OWN / 'test' / 'ros' / 'support'
STEPS = {'engine': ('encode', 'new frame', 'nine tokens', 'phrase given'), 'spatial': ('ids', '3D')}
TOKENS = 9
INSTRUCTIONS = ('the red mug', 'all bowls left of the box', 'the blue cup', 'the largest object')


def picture(seed: int) -> np.ndarray:
    """Return [480, 640, 3] uint8 RGB: a few coloured blobs on a table."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:480, :640]
    pixels = np.stack([150 + x // 16, 130 + y // 8, 110 + (x + y) // 20], axis=-1).astype(np.uint8)
    for _ in range(6):
        row, column, radius = rng.integers(80, 400), rng.integers(80, 560), rng.integers(25, 70)
        pixels[(y - row) ** 2 + (x - column) ** 2 < radius**2] = rng.integers(0, 256, 3)
    return pixels


def work(model: str) -> None:
    """Answer the number of a round by the seconds per step, and what was found."""
    import torch  # after it, so that its settings of threads count

    from instructsam.core import InstructSAM  # of the checkout on the path

    torch.set_num_threads(1)
    engine = InstructSAM.from_pretrained(model, device='cpu', dtype='float32')
    engine.stop_ids = frozenset()

    def answer(number: int) -> list:
        image, instruction = picture(number), INSTRUCTIONS[number % len(INSTRUCTIONS)]
        marks = [time.process_time()]
        encoded = engine.encode(image)
        marks.append(time.process_time())
        results = [engine.segment(encoded, instruction, max_new_tokens=TOKENS)]
        marks.append(time.process_time())
        other = INSTRUCTIONS[(number + 1) % len(INSTRUCTIONS)]
        results.append(engine.segment(encoded, other, max_new_tokens=TOKENS))
        marks.append(time.process_time())
        results.append(engine.segment(encoded, instruction, answer=engine.answer_for(['red mug'])))
        marks.append(time.process_time())
        encode, first, decoded, given = np.diff(marks).tolist()
        found = [[r.answer, [[i.slot, i.mask.area, round(i.score, 4)] for i in r.instances]] for r in results]
        return [[encode, encode + first, decoded, given], found]

    serve(answer)


def work_on_masks() -> None:
    """Answer the number of a round by the seconds per step, and ids and boxes."""
    import cv2
    from scenery import ellipses, table

    from instructsam.core.result import Instance, Result  # of the checkout on the path
    from instructsam.core.rle import Rle
    from instructsam.core.spatial.camera_model import CameraModel
    from instructsam.core.spatial.geometry import locate
    from instructsam.core.spatial.tracking import Tracker

    cv2.setNumThreads(1)  # as the node does
    height, width = 720, 1280
    instances = tuple(Instance(Rle.encode(mask), 0.9, 'box', slot) for slot, mask in enumerate(ellipses(height, width)))
    result = Result('boxes', '', height, width, instances)
    camera = CameraModel(height, width, [[width, 0, width / 2], [0, width, height / 2], [0, 0, 1]])
    still, depth, tracker = cv2.resize(picture(0), (width, height)), table(height, width), Tracker()

    def answer(number: int) -> list:
        image = np.roll(still, 2 * number, axis=1)
        start = time.process_time()
        tracked = tracker.update(result, image)
        middle = time.process_time()
        located = locate(result, depth, camera)
        seconds = [middle - start, time.process_time() - middle]
        boxes = [each.geometry for each in located.instances]
        found = [np.round([box.center, box.size_m, *box.rotation], 9).tolist() for box in boxes]
        return [seconds, [[each.track_id for each in tracked.instances], found]]

    serve(answer)


def main() -> None:
    """Run the rounds and print the ratios."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('checkout', nargs='?', type=Path, help='the other checkout')
    parser.add_argument('--model', default='tabletop', help='model folder or built-in model (default: %(default)s)')
    parser.add_argument('--part', choices=STEPS, default='engine', help='measured part (default: %(default)s)')
    parser.add_argument('--rounds', type=int, default=15, help='(default: %(default)s)')
    parser.add_argument('--worker', action='store_true', help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        work(args.model) if args.part == 'engine' else work_on_masks()
        return
    arguments = '--worker', '--model', args.model, '--part', args.part
    times: list[list[list[float]]] = []  # [round][own, other][step]
    differing = 0
    with tempfile.TemporaryDirectory() as folder:
        own, other = (
            Worker(f'the {name} checkout', __file__, arguments, [package_of(checkout, Path(folder) / name), SCENERY])
            for name, checkout in (('own', OWN), ('other', args.checkout))
        )
        for pair in in_turn(own, other, [2, 1, *range(args.rounds)])[2:]:  # the first two warm up
            times.append([seconds for seconds, _ in pair])
            differing += pair[0][1] != pair[1][1]
        for worker in (own, other):
            worker.close()
    print(f'{"step":16}{"this":>10}{"other":>10}{"ratio":>8}   (ms, medians of {args.rounds} rounds)')
    for index, step in enumerate(STEPS[args.part]):
        pairs = [(round_[0][index], round_[1][index]) for round_ in times]
        mine, theirs = (1e3 * statistics.median(column) for column in zip(*pairs, strict=True))
        print(f'{step:16}{mine:10.2f}{theirs:10.2f}{statistics.median(a / b for a, b in pairs):8.2f}')
    print(f'rounds with other results: {differing}')


if __name__ == '__main__':
    main()

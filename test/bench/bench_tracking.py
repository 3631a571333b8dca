"""Stability of track ids on rendered sequences of a moving camera and moving objects.

    python test/bench/bench_tracking.py [--sequences 20] [--seconds 8] [--rate 5] [--predicted]

Every object of the scene is an instance with its ground-truth mask, in random order, randomly dilated or eroded, and
one in ten is missing for some results. A link connects an object to itself in the last result where it was visible, and
counts as swapped if the two ids differ. --predicted: uses the masks that the built-in model predicts for one category
per scene, matched to the objects by an IoU over 0.5. Exits with 1 if 2 % of the links or more are swapped.
"""

import argparse
import statistics
import sys
import time

import cv2
import numpy as np

from instructsam.core.result import Instance, Result
from instructsam.core.rle import Rle, ious
from instructsam.core.spatial.tracking import Tracker
from instructsam.train.tabletop.scenes.motion import Motion
from instructsam.train.tabletop.scenes.scene import photograph_objects, stage_scene
from instructsam.train.tabletop.world.splits import generator

GOAL = 0.02  # share of swapped links
MIN_PX = 60  # objects with fewer pixels count as invisible
HIDDEN_SHARE = 0.1  # share of the objects that are missing in a result
HIDDEN_RESULTS = (1, 6)  # range of the number of results that they miss, the upper end excluded
SIZE, LARGE_SIZE = (448, 336), (1280, 720)  # width and height, px


def sequence(index, seed, seconds, rate_hz, size=SIZE):
    """Yield scenes of one table over time."""
    objects, room, camera = stage_scene('test', index, seed, size)
    motion = Motion(seed + index, objects, room, camera)
    for number in range(round(seconds * rate_hz)):
        rng = generator('test', seed, index, 'sensor')
        yield photograph_objects(*_then(motion, room, number / rate_hz), rng)


def _then(motion, room, time_s):
    objects, camera = motion.at(time_s)
    return objects, room, camera


def degraded(made, rng, hidden):
    """Return [(id of the object, Instance)] of a scene, with the errors of a detector."""
    instances = []
    for item in made.objects:
        if item.seen_px < MIN_PX:
            continue
        if item.id in hidden:
            hidden[item.id] -= 1
            if not hidden[item.id]:
                del hidden[item.id]
            continue
        if rng.random() < HIDDEN_SHARE / np.mean(HIDDEN_RESULTS):
            hidden[item.id] = int(rng.integers(*HIDDEN_RESULTS))
        mask = (made.ids == item.id).astype(np.uint8)
        kernel = np.ones((int(rng.integers(1, 4)),) * 2, np.uint8)
        mask = cv2.dilate(mask, kernel) if rng.random() < 0.5 else cv2.erode(mask, kernel)
        if mask.any():
            instances.append((item.id, Instance(Rle.encode(mask), 0.9, item.category, 0)))
    return [instances[i] for i in rng.permutation(len(instances))]


def predicted(engine, made, category):
    """Return [(id of the object, Instance)] of the model's predictions; the id is None if no object matches."""
    found = engine.segment(engine.encode(made.rgb), f'the {category}s').instances
    objects = [item for item in made.objects if item.seen_px >= MIN_PX]
    overlap = ious([each.mask for each in found], [Rle.encode(made.ids == item.id) for item in objects])
    return [
        (objects[row.argmax()].id if row.size and row.max() > 0.5 else None, each)
        for each, row in zip(found, overlap, strict=True)
    ]


def links(frames):
    """Return the number of links and of swaps in one sequence of (scene, [(id of the object, Instance)])."""
    tracker, last, total, swaps = Tracker(), {}, 0, 0
    for made, instances in frames:
        height, width = made.ids.shape
        result = Result('', '', height, width, tuple(instance for _, instance in instances))
        tracked = tracker.update(result, made.rgb)
        for (owner, _), instance in zip(instances, tracked.instances, strict=True):
            if owner is None:
                continue
            if owner in last:
                total += 1
                swaps += last[owner] != instance.track_id
            last[owner] = instance.track_id
    return total, swaps


def update_ms(seed):
    """Return the median time of an update with ten instances at 1280x720."""
    frames = [(made, degraded(made, np.random.default_rng(0), {})) for made in sequence(0, seed, 2, 5, LARGE_SIZE)]
    tracker, times_ms = Tracker(), []
    for made, instances in frames:
        ten = [instances[i % len(instances)][1] for i in range(10)]
        result = Result('', '', *made.ids.shape, tuple(ten))
        start = time.perf_counter()
        tracker.update(result, made.rgb)
        times_ms.append(1e3 * (time.perf_counter() - start))
    return statistics.median(times_ms)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--sequences', type=int, default=20)
    parser.add_argument('--seconds', type=float, default=8.0)
    parser.add_argument('--rate', type=float, default=5.0, help='results per second (default: %(default)s)')
    parser.add_argument('--seed', type=int, default=123)
    parser.add_argument('--predicted', action='store_true', help='use the masks of the built-in model')
    args = parser.parse_args()

    if args.predicted:
        from instructsam.core import InstructSAM

        engine = InstructSAM.from_pretrained('tabletop')
    total = swaps = 0
    for index in range(args.sequences):
        rng, hidden, frames = np.random.default_rng((args.seed, index)), {}, []
        for made in sequence(index, args.seed, args.seconds, args.rate):
            if args.predicted:
                categories = [item.category for item in made.objects]
                frames.append((made, predicted(engine, made, max(set(categories), key=categories.count))))
            else:
                frames.append((made, degraded(made, rng, hidden)))
        linked, swapped = links(frames)
        total, swaps = total + linked, swaps + swapped
        print(f'sequence {index}: {swapped} of {linked} links swapped', flush=True)
    print(
        f'{swaps} of {total} links swapped ({100 * swaps / max(total, 1):.2f} %), '
        f'{update_ms(args.seed):.1f} ms per update with ten instances at 1280x720'
    )
    return int(swaps >= GOAL * total)


if __name__ == '__main__':
    sys.exit(main())

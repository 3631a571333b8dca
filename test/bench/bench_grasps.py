"""Grasps: how often the object that an instruction means is lifted by the best candidate, with a simulated gripper.

    python test/bench/bench_grasps.py [--picks 200] [--split test] [--seed 123] [--size 640x480] [--json FILE]

Of each instruction that means one object, a picture, the depth as the simulated camera publishes it, and a mask: the
true one, and that of the best instance that the built-in model finds. From mask and depth come the box and the
candidates, the first is tried in MuJoCo (train/tabletop/gripper.py). Anything but the meant object lifted is a failure.
With --json outcomes are kept, and the same call goes on where it was stopped.
"""

import argparse
import json
import sys
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path

from instructsam.core.engine import InstructSAM
from instructsam.core.errors import GeometryError
from instructsam.core.spatial.geometry import CameraModel, measure
from instructsam.core.spatial.grasping import grasp_candidates
from instructsam.train.tabletop.generate import depth_mm
from instructsam.train.tabletop.language.picks import picks
from instructsam.train.tabletop.physics.gripper import lifts
from instructsam.train.tabletop.scenes.scene import staged

NOTHING, UNMEASURED, NO_CANDIDATE = 'nothing found', 'not measured', 'no candidate'
SAME_IOU = 0.5  # what overlaps the true mask by more is the meant object


@dataclass(frozen=True)
class Outcome:
    """Of one pick. true and predicted: what a grasp with that mask led to, a Lift's reason or one of the above."""

    text: str
    kind: str
    category: str
    iou: float  # of the predicted mask
    true: str
    predicted: str


def grasped(mask, depth, camera, things, target):
    """What comes of the best candidate for `mask` [H, W] bool, or None; depth: [H, W] uint16 mm."""
    if mask is None:
        return NOTHING
    try:
        found = measure(mask, depth, CameraModel(*depth.shape, camera.intrinsics))
    except GeometryError:
        return UNMEASURED
    candidates = grasp_candidates(found.moved(camera.rotation, camera.position), limit=1)
    return lifts(things, target, candidates[0]).reason if candidates else NO_CANDIDATE


def tried(pick, engine, frame, things):
    """The Outcome of a pick."""
    seen, depth = pick.scene, depth_mm(pick.scene.depth)
    true = seen.ids == pick.target.id
    instances = engine.segment(frame, pick.instruction.text).instances
    predicted = instances[0].mask.decode().astype(bool) if instances else None
    iou = 0.0 if predicted is None else float((predicted & true).sum() / (predicted | true).sum())
    results = [grasped(mask, depth, seen.camera, things, pick.target.id) for mask in (true, predicted)]
    return Outcome(pick.instruction.text, pick.instruction.kind, pick.target.category, iou, *results)


def run(args, size, outcomes):
    """Adds to `outcomes` what is missing, and yields each."""
    engine, index = InstructSAM.from_pretrained('tabletop'), None
    for number, pick in enumerate(picks(args.split, args.seed, args.picks, size)):
        if number < len(outcomes):
            continue
        if pick.index != index:
            index, frame = pick.index, engine.encode(pick.scene.rgb)
            things, _, _ = staged(args.split, index, args.seed, size)
        outcomes.append(tried(pick, engine, frame, things))
        yield number, outcomes[-1]


def share(results):
    """'lifted/all (percent)'."""
    lifted = results.count('lifted')
    return f'{lifted}/{len(results)}' + (f' ({100 * lifted / len(results):.0f} %)' if results else '')


def report(outcomes):
    """Prints success by type of instruction and by category, and the reasons."""
    for field in ('kind', 'category'):
        print(f'\n{"lifted, by " + field:<26}{"true mask":>16}{"predicted":>18}{f"where IoU > {SAME_IOU}":>20}')
        for name in [*sorted({getattr(one, field) for one in outcomes}), 'together']:
            rows = [one for one in outcomes if name in (getattr(one, field), 'together')]
            same = [one.predicted for one in rows if one.iou > SAME_IOU]
            columns = share([one.true for one in rows]), share([one.predicted for one in rows]), share(same)
            print(f'{name:<26}{columns[0]:>16}{columns[1]:>18}{columns[2]:>20}')
    counts = [Counter(getattr(one, field) for one in outcomes) for field in ('true', 'predicted')]
    print(f'\n{"what happened":<26}{"true mask":>16}{"predicted":>18}')
    for reason in sorted(counts[0] | counts[1], key=lambda reason: -counts[0][reason]):
        print(f'{reason:<26}{counts[0][reason]:>16}{counts[1][reason]:>18}')


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--picks', type=int, default=200)
    parser.add_argument('--split', default='test')
    parser.add_argument('--seed', type=int, default=123)
    parser.add_argument('--size', default='640x480', help='of the images, px (default: %(default)s)')
    parser.add_argument('--json', type=Path, help='keep the outcomes in this file, and go on from it')
    args = parser.parse_args()
    size = tuple(map(int, args.size.split('x')))

    of_what = {'split': args.split, 'seed': args.seed, 'size': list(size)}
    kept = json.loads(args.json.read_text()) if args.json and args.json.exists() else {**of_what, 'outcomes': []}
    if {name: kept.get(name) for name in of_what} != of_what:
        parser.error(f'{args.json} has outcomes of other pictures than {of_what}: name another file, or delete it')
    outcomes = [Outcome(**each) for each in kept['outcomes']]
    for number, one in run(args, size, outcomes):
        print(f'{number:3d}  {one.true:<28}IoU {one.iou:.2f}  {one.predicted:<28}{one.kind}: {one.text}', flush=True)
        if args.json:
            part = args.json.with_name(args.json.name + '.part')
            part.write_text(json.dumps({**of_what, 'outcomes': [asdict(each) for each in outcomes]}, indent=1))
            part.replace(args.json)
    report(outcomes[: args.picks])
    return 0


if __name__ == '__main__':
    sys.exit(main())

"""Share of simulated picks in which the best grasp candidate lifts the object that an instruction means.

    python test/bench/bench_grasps.py [--picks 200] [--split test] [--seed 123] [--size 640x480] [--json FILE]

Every instruction that means one object comes with an image, the depth as the simulated camera publishes it, and two
masks: the ground truth, and that of the best instance that the built-in model finds. Box and candidates are computed
from mask and depth, and the best candidate is executed in MuJoCo (train/tabletop/physics/gripper.py). Every outcome but
lifting the right object is a failure. --json keeps the outcomes, and the same call resumes a run that was stopped.
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
from instructsam.train.tabletop.language.picks import sample_picks
from instructsam.train.tabletop.physics.gripper import try_grasp
from instructsam.train.tabletop.scenes.scene import stage_scene

NOTHING, UNMEASURED, NO_CANDIDATE = 'nothing found', 'not measured', 'no candidate'
SAME_IOU = 0.5  # a prediction that overlaps the ground truth by more is the right object


@dataclass(frozen=True)
class Outcome:
    """Outcome of one pick. `true` and `predicted`: a GraspOutcome's reason or one of the above, with that mask."""

    text: str
    kind: str
    category: str
    iou: float  # IoU of the predicted mask
    true: str
    predicted: str


def grasped(mask, depth, camera, objects, target):
    """Return the outcome of the best candidate for mask [H, W] bool or None. depth: [H, W] uint16 mm."""
    if mask is None:
        return NOTHING
    try:
        found = measure(mask, depth, CameraModel(*depth.shape, camera.intrinsics))
    except GeometryError:
        return UNMEASURED
    candidates = grasp_candidates(found.moved(camera.rotation, camera.position), limit=1)
    return try_grasp(objects, target, candidates[0]).reason if candidates else NO_CANDIDATE


def attempt(pick, engine, frame, objects):
    """Return the Outcome of a pick."""
    seen, depth = pick.scene, depth_mm(pick.scene.depth)
    true = seen.ids == pick.target.id
    instances = engine.segment(frame, pick.instruction.text).instances
    predicted = instances[0].mask.decode().astype(bool) if instances else None
    iou = 0.0 if predicted is None else float((predicted & true).sum() / (predicted | true).sum())
    results = [grasped(mask, depth, seen.camera, objects, pick.target.id) for mask in (true, predicted)]
    return Outcome(pick.instruction.text, pick.instruction.kind, pick.target.category, iou, *results)


def run(args, size, outcomes):
    """Append the missing outcomes, and yield each with its number."""
    engine, index = InstructSAM.from_pretrained('tabletop'), None
    for number, pick in enumerate(sample_picks(args.split, args.seed, args.picks, size)):
        if number < len(outcomes):
            continue
        if pick.index != index:
            index, frame = pick.index, engine.encode(pick.scene.rgb)
            objects, _, _ = stage_scene(args.split, index, args.seed, size)
        outcomes.append(attempt(pick, engine, frame, objects))
        yield number, outcomes[-1]


def share(results):
    """Return 'lifted/all (percent)'."""
    lifted = results.count('lifted')
    return f'{lifted}/{len(results)}' + (f' ({100 * lifted / len(results):.0f} %)' if results else '')


def report(outcomes):
    """Print the share lifted by type of instruction and by category, and the count of each outcome."""
    for field in ('kind', 'category'):
        print(f'\n{"lifted, by " + field:<26}{"ground truth":>16}{"predicted":>18}{f"where IoU > {SAME_IOU}":>20}')
        for name in [*sorted({getattr(one, field) for one in outcomes}), 'together']:
            rows = [one for one in outcomes if name in (getattr(one, field), 'together')]
            same = [one.predicted for one in rows if one.iou > SAME_IOU]
            columns = share([one.true for one in rows]), share([one.predicted for one in rows]), share(same)
            print(f'{name:<26}{columns[0]:>16}{columns[1]:>18}{columns[2]:>20}')
    counts = [Counter(getattr(one, field) for one in outcomes) for field in ('true', 'predicted')]
    print(f'\n{"outcome":<26}{"ground truth":>16}{"predicted":>18}')
    for reason in sorted(counts[0] | counts[1], key=lambda reason: -counts[0][reason]):
        print(f'{reason:<26}{counts[0][reason]:>16}{counts[1][reason]:>18}')


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--picks', type=int, default=200)
    parser.add_argument('--split', default='test')
    parser.add_argument('--seed', type=int, default=123)
    parser.add_argument('--size', default='640x480', help='size of the images, px (default: %(default)s)')
    parser.add_argument('--json', type=Path, help='keep the outcomes in this file, and resume from it')
    args = parser.parse_args()
    size = tuple(map(int, args.size.split('x')))

    images = {'split': args.split, 'seed': args.seed, 'size': list(size)}
    kept = json.loads(args.json.read_text()) if args.json and args.json.exists() else {**images, 'outcomes': []}
    if {name: kept.get(name) for name in images} != images:
        parser.error(f'{args.json} has outcomes of other images than {images}: name another file, or delete it')
    outcomes = [Outcome(**each) for each in kept['outcomes']]
    for number, one in run(args, size, outcomes):
        print(f'{number:3d}  {one.true:<28}IoU {one.iou:.2f}  {one.predicted:<28}{one.kind}: {one.text}', flush=True)
        if args.json:
            part = args.json.with_name(args.json.name + '.part')
            part.write_text(json.dumps({**images, 'outcomes': [asdict(each) for each in outcomes]}, indent=1))
            part.replace(args.json)
    report(outcomes[: args.picks])
    return 0


if __name__ == '__main__':
    sys.exit(main())

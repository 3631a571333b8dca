"""Share of simulated picks in which the best grasp candidate lifts the object that an instruction means.

    python test/bench/bench_grasps.py [--picks 200] [--split test] [--seed 123] [--size 640x480] [--json FILE]

Every instruction that means one object comes with an image, the depth as the simulated camera publishes it, and two
masks: the ground truth, and that of the best instance that the built-in model finds. Box and candidates are computed
from mask and depth, and the best candidate is executed in MuJoCo (train/tabletop/physics/gripper.py). Every outcome but
lifting the right object is a failure.

No method lifts a book that is wider than the gripper opens. An object counts as graspable if a grasp that is computed
from its complete true surface lifts it among its true neighbours (graspable.py), or if a candidate under test did. The
report has the share lifted of the graspable objects, and for the others the share that is named as not graspable
instead of tried. --json keeps the outcomes, and the same call resumes a run that was stopped.
"""

import argparse
import json
import sys
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path

from graspable import BLOCKED, NO, YES, graspable

from instructsam.core.engine import InstructSAM
from instructsam.core.errors import GeometryError
from instructsam.core.spatial.geometry import CameraModel, measure
from instructsam.core.spatial.grasping import find_grasps
from instructsam.train.tabletop.generate import depth_mm
from instructsam.train.tabletop.language.picks import sample_picks
from instructsam.train.tabletop.physics.gripper import try_grasp
from instructsam.train.tabletop.scenes.scene import stage_scene

LIFTED, NOTHING, UNMEASURED, NO_CANDIDATE = 'lifted', 'nothing found', 'not measured', 'no candidate'
SAME_IOU = 0.5  # a prediction that overlaps the ground truth by more is the right object


@dataclass(frozen=True)
class Outcome:
    """Outcome of one pick. `true` and `predicted`: a GraspOutcome's reason or one of the above, with that mask.

    If there is no candidate, `true_reason` and `predicted_reason` say why.
    """

    text: str
    kind: str
    category: str
    iou: float  # IoU of the predicted mask
    graspable: str  # YES, BLOCKED or NO
    true: str
    predicted: str
    true_reason: str
    predicted_reason: str


def grasped(mask, depth, camera, objects, target):
    """Return the outcome of the best candidate for mask [H, W] bool or None, and the reason if there is no candidate.

    depth: [H, W] uint16 mm.
    """
    if mask is None:
        return NOTHING, ''
    try:
        found = measure(mask, depth, CameraModel(*depth.shape, camera.intrinsics))
    except GeometryError as error:
        return UNMEASURED, str(error)
    grasps = find_grasps(found.moved(camera.rotation, camera.position), limit=1)
    if not grasps.candidates:
        return NO_CANDIDATE, grasps.reason
    return try_grasp(objects, target, grasps.candidates[0]).reason, ''


def attempt(pick, engine, frame, objects, known):
    """Return the Outcome of a pick. known: earlier outcomes by object, which are the same for all of its picks."""
    seen, depth, target = pick.scene, depth_mm(pick.scene.depth), pick.target.id
    true = seen.ids == target
    instances = engine.segment(frame, pick.instruction.text).instances
    predicted = instances[0].mask.decode().astype(bool) if instances else None
    iou = 0.0 if predicted is None else float((predicted & true).sum() / (predicted | true).sum())
    if target not in known:
        result = grasped(true, depth, seen.camera, objects, target)
        known[target] = result, YES if result[0] == LIFTED else graspable(objects, target)
    true_result, can = known[target]
    result = grasped(predicted, depth, seen.camera, objects, target)
    if result[0] == LIFTED:
        can = YES
    return Outcome(
        text=pick.instruction.text,
        kind=pick.instruction.kind,
        category=pick.target.category,
        iou=iou,
        graspable=can,
        true=true_result[0],
        predicted=result[0],
        true_reason=true_result[1],
        predicted_reason=result[1],
    )


def run(args, size, outcomes):
    """Append the missing outcomes, and yield each with its number."""
    engine, index = InstructSAM.from_pretrained('tabletop'), None
    for number, pick in enumerate(sample_picks(args.split, args.seed, args.picks, size)):
        if number < len(outcomes):
            continue
        if pick.index != index:
            index, frame, known = pick.index, engine.encode(pick.scene.rgb), {}
            objects, _, _ = stage_scene(args.split, index, args.seed, size)
        outcomes.append(attempt(pick, engine, frame, objects, known))
        yield number, outcomes[-1]


def share(results, of=LIFTED):
    """Return 'count/all (percent)'."""
    count = results.count(of)
    return f'{count}/{len(results)}' + (f' ({100 * count / len(results):.0f} %)' if results else '')


def report(outcomes):
    """Print the shares lifted and named by type of instruction and by category, and the count of each outcome."""
    can = [one for one in outcomes if one.graspable == YES]
    for field in ('kind', 'category'):
        print(f'\n{"lifted of graspable, by " + field:<32}{"ground truth":>16}{"predicted":>18}', end='')
        print(f'{f"where IoU > {SAME_IOU}":>20}')
        for name in [*sorted({getattr(one, field) for one in can}), 'together']:
            rows = [one for one in can if name in (getattr(one, field), 'together')]
            same = [one.predicted for one in rows if one.iou > SAME_IOU]
            columns = share([one.true for one in rows]), share([one.predicted for one in rows]), share(same)
            print(f'{name:<32}{columns[0]:>16}{columns[1]:>18}{columns[2]:>20}')
    print(f'\n{"named as not graspable":<52}{"ground truth":>16}{"predicted":>18}')
    for kind in (NO, BLOCKED, YES):
        rows = [one for one in outcomes if one.graspable == kind]
        columns = [share([getattr(one, mask) for one in rows], NO_CANDIDATE) for mask in ('true', 'predicted')]
        print(f'{kind:<52}{columns[0]:>16}{columns[1]:>18}')
    columns = [share([getattr(one, mask) for one in outcomes]) for mask in ('true', 'predicted')]
    print(f'\n{"lifted of all picks":<52}{columns[0]:>16}{columns[1]:>18}')
    counts = [Counter(getattr(one, field) for one in outcomes) for field in ('true', 'predicted')]
    print(f'\n{"outcome":<32}{"ground truth":>16}{"predicted":>18}')
    for reason in sorted(counts[0] | counts[1], key=lambda reason: -counts[0][reason]):
        print(f'{reason:<32}{counts[0][reason]:>16}{counts[1][reason]:>18}')


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
        if one.true != LIFTED:
            print(f'     {one.graspable} {one.category}; {one.true_reason or one.true}', flush=True)
        if args.json:
            part = args.json.with_name(args.json.name + '.part')
            part.write_text(json.dumps({**images, 'outcomes': [asdict(each) for each in outcomes]}, indent=1))
            part.replace(args.json)
    report(outcomes[: args.picks])
    return 0


if __name__ == '__main__':
    sys.exit(main())

#!/usr/bin/env python3
"""Pick all objects of one category: find them, choose a grasp, move, and find again until none is left.

    python examples/pick_loop.py "the spoons"

The arm is simulated: it prints where it would move. For a real arm, replace SimulatedArm, set the node's parameter
target_frame to the arm's base frame, and check each grasp for reach and collisions before the arm executes it: the hand
keeps clear of the objects of the answer, but not of others, which the answer does not contain.
"""

import sys

from instructsam.core.spatial.grasping import Grasp, find_grasps, points_of_others
from instructsam_ros.client import Detections, Instance, Perception


class SimulatedArm:
    """Stand-in for an arm driver."""

    def pick(self, grasp: Grasp, frame_id: str) -> bool:
        """Pick the object at `grasp`, a pose in `frame_id`, and put it away; return whether it was lifted."""
        position = ', '.join(f'{value:.3f}' for value in grasp.position)
        print(f'  open to {grasp.opening_m * 1e3:.0f} mm, go to ({position}) m in {frame_id}, close, lift')
        return True


def choose(detections: Detections, picked: set[int]) -> tuple[Instance, Grasp] | None:
    """Return the best object that was not picked yet, with its best grasp; None if no object can be grasped."""
    for instance in detections:
        if instance.track_id in picked or instance.center is None:
            continue
        grasps = find_grasps(instance, limit=1, around=points_of_others(detections, instance))
        if grasps.candidates:
            return instance, grasps.candidates[0]
        print(f'  #{instance.track_id} {instance.phrase} cannot be grasped: {grasps.reason}')
    return None


def main(instruction: str) -> None:
    """Pick all objects that `instruction` names."""
    arm, picked = SimulatedArm(), set()
    with Perception() as perception:
        while True:
            detections = perception.find(instruction, timeout=20.0, freshness='next')
            choice = choose(detections, picked)
            if choice is None:
                left = sum(each.track_id not in picked for each in detections)
                print(f'{len(picked)} picked; {left} left that cannot be grasped')
                return
            target, grasp = choice
            print(f'#{target.track_id} {target.phrase}, score {target.score:.2f}')
            if arm.pick(grasp, detections.frame_id):
                picked.add(target.track_id)


if __name__ == '__main__':
    main(*sys.argv[1:])

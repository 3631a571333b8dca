#!/usr/bin/env python3
"""A pick loop: ask, choose a grasp, move, ask again, until nothing that was asked for is left.

    python examples/pick_loop.py "the spoons"

The arm is simulated: it says where it would go. For a real one, replace SimulatedArm, give the node its target_frame
(the arm's base), and check each grasp for reach and collision before it is carried out.
"""

import sys

from instructsam.core.spatial.grasping import grasp_candidates
from instructsam_ros.client import Perception


class SimulatedArm:
    """Stands in for a driver: picks and puts away."""

    def pick(self, grasp, frame_id):
        """Whether the object was lifted. `grasp` is a core.grasping.Grasp in `frame_id`."""
        place = ', '.join(f'{value:.3f}' for value in grasp.position)
        print(f'  open to {grasp.opening_m * 1e3:.0f} mm, go to ({place}) m in {frame_id}, close, lift')
        return True


def grasps(instance):
    """Candidates for an Instance of the client, best first; none where it was not measured."""
    return grasp_candidates(instance) if instance.center is not None else []


def main(instruction):
    arm, done = SimulatedArm(), set()
    with Perception() as perception:
        while True:
            found = perception.find(instruction, timeout=20.0, fresh='next')
            left = [each for each in found if each.track_id not in done]
            choice = next(((each, options[0]) for each in left if (options := grasps(each))), None)
            if choice is None:
                print(f'{len(done)} picked; {len(left)} left that cannot be grasped')
                return
            target, grasp = choice
            print(f'#{target.track_id} {target.phrase}, score {target.score:.2f}')
            if arm.pick(grasp, found.frame_id):
                done.add(target.track_id)


if __name__ == '__main__':
    main(*sys.argv[1:])

#!/usr/bin/env python3
"""Find one object: where is it, how large, how sure.

ros2 launch instructsam_ros perception.launch.py ...        # or any other way to run the node
python examples/find_one.py "the red mug"
"""

import sys

from instructsam_ros.client import Perception, PerceptionError


def main(instruction):
    with Perception() as perception:
        try:
            found = perception.find(instruction, timeout=10.0, fresh='next')
        except PerceptionError as error:
            return f'no answer: {error}'
    if not found:
        return f'nothing matches {instruction!r}'
    best = found[0]
    print(f'{best.phrase}, score {best.score:.2f}, {best.mask.sum()} pixels')
    if best.center is None:
        print(f'not located: {best.why_not or found.message.geometry_message}')
    else:
        x, y, z = best.center
        print(f'at x {x:.3f} y {y:.3f} z {z:.3f} m in {found.frame_id}, {len(best.points)} points')
        print('length x width x height: ' + ' x '.join(f'{side:.3f}' for side in best.size_m) + ' m')
    return 0


if __name__ == '__main__':
    sys.exit(main(*sys.argv[1:]))

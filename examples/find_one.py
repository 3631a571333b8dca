#!/usr/bin/env python3
"""Find one object and print its position, its size and its score.

ros2 launch instructsam_ros perception.launch.py ...        # or any other way to run the node
python examples/find_one.py "the red mug"
"""

import sys

from instructsam_ros.client import Perception, PerceptionError


def main(instruction: str) -> int | str:
    """Find `instruction` in the next image; return 0, or the reason why there is no object."""
    with Perception() as perception:
        try:
            detections = perception.find(instruction, timeout=10.0, freshness='next')
        except PerceptionError as error:
            return f'no answer: {error}'
    if not detections:
        return f'nothing matches {instruction!r}'
    best = detections[0]
    print(f'{best.phrase}, score {best.score:.2f}, {best.mask.sum()} pixels')
    if best.center is None:
        print(f'not located: {best.geometry_message or detections.message.geometry_message}')
    else:
        x, y, z = best.center
        print(f'at x {x:.3f} y {y:.3f} z {z:.3f} m in {detections.frame_id}, {len(best.points)} points')
        print('length x width x height: ' + ' x '.join(f'{side:.3f}' for side in best.size_m) + ' m')
    return 0


if __name__ == '__main__':
    sys.exit(main(*sys.argv[1:]))

#!/usr/bin/env python3
"""Print every result of one instruction, with track ids that stay the same while objects move.

python examples/watch_stream.py "the mugs" [results]
"""

import sys
from itertools import islice

from instructsam_ros.client import Instance, Perception


def describe(instance: Instance) -> str:
    """Return the id, phrase, score and, if it was measured, position of one object."""
    text = f'#{instance.track_id} {instance.phrase} {instance.score:.2f}'
    if instance.center is not None:
        x, y, z = instance.center
        text += f' at ({x:.2f}, {y:.2f}, {z:.2f}) m'
    return text


def main(instruction: str, results: str = '20') -> None:
    """Print `results` results, then end the instruction."""
    with Perception() as perception:
        for detections in islice(perception.watch(instruction, timeout=30.0), int(results)):
            objects = ', '.join(map(describe, detections)) or 'nothing'
            print(f'{detections.stamp_s:.3f} s: {objects}', flush=True)
        perception.stop()


if __name__ == '__main__':
    main(*sys.argv[1:])

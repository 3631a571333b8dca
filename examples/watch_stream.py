#!/usr/bin/env python3
"""Watch a stream: every result of an instruction, with ids that stay while objects move.

python examples/watch_stream.py "the mugs" [results]
"""

import sys
from itertools import islice

from instructsam_ros.client import Perception


def main(instruction, results='20'):
    with Perception() as perception:
        for found in islice(perception.watch(instruction, timeout=30.0), int(results)):
            objects = [
                f'#{each.track_id} {each.phrase} {each.score:.2f}'
                + ('' if each.center is None else ' at ({:.2f}, {:.2f}, {:.2f}) m'.format(*each.center))
                for each in found
            ]
            print(f'{found.stamp_s:.3f} s: {", ".join(objects) or "nothing"}', flush=True)
        perception.stop()


if __name__ == '__main__':
    main(*sys.argv[1:])

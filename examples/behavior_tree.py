#!/usr/bin/env python3
"""Ask the perception node from a behavior tree of py_trees.

    pip install py_trees   # or ros-$ROS_DISTRO-py-trees
    python examples/behavior_tree.py "the red mug"

Why not py_trees_ros.action_clients: its behaviors do not tell the reason that is in an answer, nor repeat a goal whose
response got lost; the Python client does both.
"""

import sys
import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from instructsam.core.errors import InstructSAMError
from instructsam_ros.client import Detections, Perception

try:
    import py_trees
    from py_trees.common import Access, Status
except ImportError:
    sys.exit('this example needs py_trees: `pip install py_trees` or `sudo apt install ros-$ROS_DISTRO-py-trees`')

PERIOD_S = 0.1  # between two ticks


class AskPerception(py_trees.behaviour.Behaviour):
    """Ask one instruction about the next image of the camera, by the action ~/segment.

    RUNNING until there is an answer; SUCCESS if something matches, with the Detections on the blackboard as `key`;
    FAILURE if nothing does or there is no answer, with the reason as the feedback message. When the behavior is
    interrupted, its goal is cancelled.
    """

    def __init__(self, name: str, instruction: str, key: str = 'detections', timeout_s: float = 10.0) -> None:
        super().__init__(name)
        self._instruction, self._key, self._timeout_s = instruction, key, timeout_s
        self._blackboard = self.attach_blackboard_client(name)
        self._blackboard.register_key(key, access=Access.WRITE)
        self._is_interrupted = threading.Event()

    def setup(self, *, perception: Perception, **_: Any) -> None:
        """Take the client, which the behaviors of a tree share."""
        self._perception = perception
        self._thread = ThreadPoolExecutor(1)

    def initialise(self) -> None:
        """Send the goal."""
        self._is_interrupted = threading.Event()
        self._answer: Future[Detections] = self._thread.submit(
            self._perception.find,
            self._instruction,
            self._timeout_s,
            freshness='next',
            on_stage=self._report,
            cancelled=self._is_interrupted.is_set,
        )

    def update(self) -> Status:
        """Return how far the goal is."""
        if not self._answer.done():
            return Status.RUNNING
        try:
            detections = self._answer.result()
        except InstructSAMError as error:
            self.feedback_message = str(error)
            return Status.FAILURE
        self._blackboard.set(self._key, detections)
        self.feedback_message = (
            f'{len(detections)} found' if len(detections) else f'nothing matches {self._instruction!r}'
        )
        return Status.SUCCESS if len(detections) else Status.FAILURE

    def terminate(self, new_status: Status) -> None:
        """Cancel the goal if it has not ended."""
        self._is_interrupted.set()

    def shutdown(self) -> None:
        """End the thread."""
        self._thread.shutdown()

    def _report(self, stage: str) -> None:
        self.feedback_message = stage


def main(instruction: str) -> int | str:
    """Tick a tree of one behavior until it has ended; return 0, or the reason of its failure."""
    ask = AskPerception('ask', instruction)
    tree = py_trees.trees.BehaviourTree(ask)
    with Perception() as perception:
        tree.setup(perception=perception)
        tree.tick()
        while ask.status == Status.RUNNING:
            time.sleep(PERIOD_S)
            tree.tick()
        tree.shutdown()
    print(py_trees.display.unicode_tree(tree.root, show_status=True))
    return 0 if ask.status == Status.SUCCESS else ask.feedback_message


if __name__ == '__main__':
    sys.exit(main(*sys.argv[1:]))

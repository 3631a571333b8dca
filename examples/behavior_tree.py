#!/usr/bin/env python3
"""Ask the perception node from a behavior tree of py_trees.

    pip install py_trees   # or ros-$ROS_DISTRO-py-trees
    python examples/behavior_tree.py "the red mug"

Why not py_trees_ros.action_clients: it is not on PyPI, and its FAILURE does not tell the reason in the answer.
"""

import sys
import time
from typing import Any

import rclpy
from action_msgs.msg import GoalStatus
from rclpy.action import ActionClient
from rclpy.node import Node

from instructsam_ros.action import Segment
from instructsam_ros.msg import InstanceArray

try:
    import py_trees
    from py_trees.common import Access, Status
except ImportError:
    sys.exit('this example needs py_trees: `pip install py_trees` or `sudo apt install ros-$ROS_DISTRO-py-trees`')

GRACE_S = 2.0  # time for the response after the node's time limit


class AskPerception(py_trees.behaviour.Behaviour):
    """Ask one instruction about the next image of the camera.

    RUNNING until there is an answer; SUCCESS if something matches, with the InstanceArray on the blackboard as `key`;
    FAILURE if nothing does or there is no answer, with the reason as the feedback message. Whoever ticks the tree also
    spins the node.
    """

    def __init__(self, name: str, instruction: str, key: str = 'answer', timeout_s: float = 10.0) -> None:
        super().__init__(name)
        self._goal = Segment.Goal(instruction=instruction, freshness=Segment.Goal.NEXT, timeout_s=timeout_s)
        self._key = key
        self._blackboard = self.attach_blackboard_client(name)
        self._blackboard.register_key(key, access=Access.WRITE)
        self._sent: Any = None  # future of the goal handle
        self._response: Any = None  # future of the response

    def setup(self, *, node: Node, perception: str = '/perception', **_: Any) -> None:
        """Create the client of the action on `node`."""
        self._client = ActionClient(node, Segment, f'{perception}/segment')

    def initialise(self) -> None:
        """Send the goal when the behavior is entered."""
        self._sent = self._response = None
        self._end_s = time.monotonic() + self._goal.timeout_s + GRACE_S

    def update(self) -> Status:
        """Return how far the goal is."""
        if self._response is not None and self._response.done():
            return self._end(self._response.result())
        if time.monotonic() > self._end_s:
            self.feedback_message = 'there is no perception node, or it does not answer'
            return Status.FAILURE
        if self._sent is None and self._client.server_is_ready():
            self._sent = self._client.send_goal_async(self._goal, self._on_feedback)
        elif self._sent is not None and self._sent.done() and self._response is None:
            self._response = self._sent.result().get_result_async()
        return Status.RUNNING

    def terminate(self, new_status: Status) -> None:
        """Cancel a goal that has not ended, because the behavior was interrupted or gave up."""
        if self._sent is not None and (self._response is None or not self._response.done()):
            self._sent.add_done_callback(lambda sent: sent.result().cancel_goal_async())  # also if not accepted yet
        self._sent = self._response = None

    def _on_feedback(self, message: Any) -> None:
        self.feedback_message = message.feedback.stage

    def _end(self, response: Any) -> Status:
        answer = response.result.answer
        if response.status != GoalStatus.STATUS_SUCCEEDED or answer.status == InstanceArray.STATUS_ERROR:
            self.feedback_message = answer.message or 'the goal was aborted without a reason'
            return Status.FAILURE
        self._blackboard.set(self._key, answer)
        if answer.status == InstanceArray.STATUS_NO_TARGET:
            self.feedback_message = f'nothing matches {self._goal.instruction!r}'
            return Status.FAILURE
        self.feedback_message = f'{len(answer.instances)} found'
        return Status.SUCCESS


def main(instruction: str) -> int | str:
    """Tick a tree of one behavior until it has ended; return 0, or the reason of its failure."""
    ask = AskPerception('ask', instruction)
    tree = py_trees.trees.BehaviourTree(ask)
    rclpy.init()
    node = rclpy.create_node('behavior_tree')
    tree.setup(node=node)
    tree.tick()
    while ask.status == Status.RUNNING:
        rclpy.spin_once(node, timeout_sec=0.05)
        tree.tick()
    rclpy.shutdown()
    print(py_trees.display.unicode_tree(tree.root, show_status=True))
    return 0 if ask.status == Status.SUCCESS else ask.feedback_message


if __name__ == '__main__':
    sys.exit(main(*sys.argv[1:]))

"""The examples for MoveIt and behavior trees, with a node in another process; test_client.py has the others."""

import importlib.util
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip('rclpy', reason='needs ROS 2 or its wheels')

import yaml
from geometry_msgs.msg import PoseStamped
from robot import PATIENCE_S

from instructsam_ros.client import Detections, Instance, Perception
from instructsam_ros.msg import InstanceArray

EXAMPLES = Path(__file__).parents[2] / 'examples'
DEPTH = np.full((48, 64), 400, np.uint16)  # mm: a table, and an object near the stand-in's first ellipse
DEPTH[8:21, 2:11] = 350
OPTICAL = 'camera_color_optical_frame'


@pytest.fixture(scope='module')
def robot(lasting_robot):
    """A robot with a camera and an active node."""
    lasting_robot.start_active()
    is_done = threading.Event()

    def publish():
        while not is_done.wait(0.05):
            lasting_robot.measure(DEPTH, stamp=lasting_robot.frames + 1)
            lasting_robot.see()

    thread = threading.Thread(target=publish)
    thread.start()
    yield lasting_robot
    is_done.set()
    thread.join()


def load(name):
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f'{name}.py')
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def row_of_boxes(gap_m):
    """Return Detections of three boxes in a row, the middle one first; the fingers fit into the gaps or not."""
    x, y, z = np.meshgrid(np.linspace(-0.02, 0.02, 21), np.linspace(-0.05, 0.05, 51), np.linspace(-0.03, 0.03, 31))
    points = np.stack([x, y, z], axis=-1).reshape(-1, 3)
    rotation, size_m = np.array([[0, -1, 0], [1, 0, 0], [0, 0, 1.0]]), np.array([0.1, 0.04, 0.06])

    def box(track_id, number):
        at = np.array([number * (0.04 + gap_m), 0, 0])
        return Instance(np.ones((2, 2), bool), 0.9, 'box', track_id, at, rotation, size_m, points=points + at)

    return Detections((box(0, 0), box(1, -1), box(2, 1)), 'base_link', 0.0, InstanceArray())


@pytest.mark.parametrize(('gap_m', 'chosen'), [(0.1, 0), (0.01, None)])
def test_the_hand_keeps_clear_of_the_other_objects(gap_m, chosen):
    detections = row_of_boxes(gap_m)
    choice = load('pick_loop').choose(detections, set())
    assert (choice and choice[0].track_id) == chosen
    if chosen is None:
        with pytest.raises(LookupError, match='box: the hand would touch its surroundings'):
            load('moveit_scene').choose(detections)
    else:
        assert load('moveit_scene').choose(detections)[0].track_id == chosen


# MoveIt


def run_moveit_scene(robot, *arguments):
    return subprocess.run(
        [sys.executable, EXAMPLES / 'moveit_scene.py', *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        env=os.environ | {'ROS_DOMAIN_ID': str(robot.domain_id)},
    )


def test_the_scene_is_printed_without_moveit(robot):
    done = run_moveit_scene(robot, '--dry-run', 'the mugs')
    assert (done.returncode, done.stderr) == (0, '')
    printed = yaml.safe_load(done.stdout)
    scene, pick = printed['collision_object'], printed['pick_pose']
    assert scene['id'] == 'box_0'
    assert scene['header'] == pick['header']
    assert scene['header']['frame_id'] == OPTICAL
    (box,) = scene['primitives']
    assert box['type'] == 1
    assert all(0 < side < 0.2 for side in box['dimensions'])
    apart = [pick['pose']['position'][axis] - scene['pose']['position'][axis] for axis in 'xyz']
    assert np.linalg.norm(apart) < 0.1
    orientation = pick['pose']['orientation']
    assert (
        1 - 2 * (orientation['x'] ** 2 + orientation['y'] ** 2) > 0.9
    )  # the approach is away from the camera, towards the table


def test_the_scene_is_published(robot, moveit_msgs):
    robot.views.clear()
    robot.node.create_subscription(moveit_msgs.CollisionObject, '/collision_object', robot.keep(robot.views), 1)
    robot.node.create_subscription(PoseStamped, '/pick_pose', robot.keep(robot.views), 1)
    done = run_moveit_scene(robot, 'the mugs')
    assert (done.returncode, done.stderr) == (0, '')
    robot.wait(lambda: robot.views)
    scene = next(each for each in robot.views if isinstance(each, moveit_msgs.CollisionObject))
    printed = yaml.safe_load(done.stdout)['collision_object']
    assert (scene.id, scene.operation) == (printed['id'], moveit_msgs.CollisionObject.ADD)
    assert list(scene.primitives[0].dimensions) == printed['primitives'][0]['dimensions']
    assert scene.pose.position.x == printed['pose']['position']['x']
    assert len(scene.primitive_poses) == 1


@pytest.mark.parametrize(
    ('instruction', 'says'), [('nothing', 'nothing matches'), ('fail on purpose', 'RuntimeError: on purpose')]
)
def test_the_reason_for_no_scene(robot, monkeypatch, capsys, instruction, says):
    robot.nodes[0].expected = 'Traceback'
    monkeypatch.setenv('ROS_DOMAIN_ID', str(robot.domain_id))
    monkeypatch.setattr(sys, 'argv', ['moveit_scene.py', '--dry-run', instruction])
    assert says in load('moveit_scene').main()
    assert capsys.readouterr().out == ''


def test_without_moveit_it_says_what_to_install(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, 'moveit_msgs.msg', None)  # the module that is imported, possibly before
    monkeypatch.setattr(sys, 'argv', ['moveit_scene.py', 'the mugs'])
    with pytest.raises(SystemExit, match='2'):
        load('moveit_scene').main()
    assert 'sudo apt install ros-$ROS_DISTRO-moveit-msgs' in capsys.readouterr().err


# Behavior trees


@pytest.fixture(scope='module')
def example():
    pytest.importorskip('py_trees', reason='needs py_trees, which is in the extra `test`')
    return load('behavior_tree')


class Tree:
    """A tree that is ticked until a test has seen what it waits for."""

    def __init__(self, py_trees, root, perception):
        self.statuses = []
        self._tree = py_trees.trees.BehaviourTree(root)
        self._tree.setup(perception=perception)

    def tick_until(self, condition):
        end_s = time.monotonic() + PATIENCE_S
        while True:
            self._tree.tick()
            self.statuses.append(self._tree.root.status.name)
            if condition():
                return
            assert time.monotonic() < end_s, (self.statuses[-1], self._tree.root.feedback_message)
            time.sleep(0.02)  # the period of the tree

    def tick_until_it_ends(self):
        self.tick_until(lambda: self.statuses[-1] != 'RUNNING')

    def close(self):
        self._tree.shutdown()


@pytest.fixture
def grow(example, robot, monkeypatch):
    """A function that makes the Tree of a root and the client of a node."""
    monkeypatch.setenv('ROS_DOMAIN_ID', str(robot.domain_id))
    grown = []

    def grow(root, node='perception'):
        perception = Perception(node)
        grown.append((Tree(example.py_trees, root, perception), perception))
        return grown[-1][0]

    yield grow
    for tree, perception in grown:
        tree.close()
        perception.close()


def test_an_answer_is_a_success_on_the_blackboard(example, grow):
    ask = example.AskPerception('ask', 'the mugs', timeout_s=30.0)
    tree = grow(ask)
    tree.tick_until_it_ends()
    assert set(tree.statuses[:-1]) == {'RUNNING'}
    assert (tree.statuses[-1], ask.feedback_message) == ('SUCCESS', '9 found')
    first = example.py_trees.blackboard.Blackboard.get('detections')
    assert (first.message.instruction, len(first)) == ('the mugs', 9)
    tree.tick_until_it_ends()  # asked anew
    assert example.py_trees.blackboard.Blackboard.get('detections').stamp_s > first.stamp_s


@pytest.mark.parametrize(
    ('instruction', 'says'),
    [('nothing', "nothing matches 'nothing'"), ('fail on purpose', 'RuntimeError: on purpose'), ('', 'is empty')],
)
def test_a_failure_has_its_reason(example, robot, grow, instruction, says):
    robot.nodes[0].expected = 'Traceback'
    ask = example.AskPerception('ask', instruction, timeout_s=30.0)
    tree = grow(ask)
    tree.tick_until_it_ends()
    assert tree.statuses[-1] == 'FAILURE'
    assert says in ask.feedback_message


def test_a_node_that_is_not_there_is_a_failure(example, grow):
    ask = example.AskPerception('ask', 'the mugs', timeout_s=0.2)
    tree = grow(ask, node='nobody')
    tree.tick_until_it_ends()
    assert tree.statuses[-1] == 'FAILURE'
    assert 'there is no node /nobody' in ask.feedback_message


def test_a_behavior_that_is_interrupted_cancels_its_goal(example, robot, grow):
    """As by a behavior of higher priority, here a guard that begins to run while the answer is computed."""
    before = int(robot.status()['goals_canceled'])
    robot.nodes[0].log.clear()
    ask = example.AskPerception('ask', 'sleep 60', timeout_s=60.0)
    is_alarm = threading.Event()

    class Guard(example.py_trees.behaviour.Behaviour):
        def update(self):
            return example.Status.RUNNING if is_alarm.is_set() else example.Status.FAILURE

    root = example.py_trees.composites.Selector('root', memory=False, children=[Guard('guard'), ask])
    tree = grow(root)
    tree.tick_until(lambda: robot.nodes[0].logged("begins 'sleep 60'"))
    assert ask.status == example.Status.RUNNING
    is_alarm.set()
    tree.tick_until(lambda: int(robot.status()['goals_canceled']) == before + 1)
    assert ask.status == example.Status.INVALID


def test_the_program(example, robot, monkeypatch, capsys):
    monkeypatch.setenv('ROS_DOMAIN_ID', str(robot.domain_id))
    assert example.main('the mugs') == 0
    assert '9 found' in capsys.readouterr().out


def test_without_py_trees_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, 'py_trees', None)
    with pytest.raises(SystemExit, match='pip install py_trees'):
        load('behavior_tree')

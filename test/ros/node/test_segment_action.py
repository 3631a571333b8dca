"""The action `segment` over real DDS: every goal has a defined end, and the node keeps running."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip('rclpy', reason='needs ROS 2 or its wheels')

from action_msgs.msg import GoalStatus
from builtin_interfaces.msg import Time
from robot import Robot
from std_msgs.msg import Header

from instructsam_ros.action import Segment
from instructsam_ros.conversions.instances import image_msg
from instructsam_ros.msg import InstanceArray

SUCCEEDED, ABORTED, CANCELED = GoalStatus.STATUS_SUCCEEDED, GoalStatus.STATUS_ABORTED, GoalStatus.STATUS_CANCELED
CANCELED_S = 3.0  # generous for a busy machine; the model would continue for longer
NEXT, STAMP = Segment.Goal.NEXT, Segment.Goal.STAMP
FOREVER = 'sleep 60'


@pytest.fixture
def robot(lasting_robot):
    """A robot whose node is active, has images, no instruction and an empty log; shared by most tests."""
    robot = lasting_robot
    if not robot.nodes:
        robot.start_active()
    robot.say('')
    while robot.status()['instruction']:
        pass
    robot.see_several()
    robot.results.clear()
    robot.nodes[0].log.clear()
    return robot


def succeeded(robot):
    """Return how many goals have succeeded so far."""
    return int(robot.status()['goals_succeeded'])


def test_answer_on_the_newest_image(robot):
    newest, before = robot.see_several(), succeeded(robot)
    goal = robot.ask('the mugs')
    status, answer = goal.end()
    assert (status, answer.status, answer.header.stamp.sec) == (SUCCEEDED, InstanceArray.STATUS_OK, newest)
    assert (answer.instruction, answer.instruction_id, len(answer.instances)) == ('the mugs', 0, 9)
    # rclpy drops feedback that it takes after the result, so the last stages may be missing.
    assert goal.stages == ['queued', 'encoding', 'segmenting', 'locating'][: len(goal.stages)]
    assert not robot.results  # results of goals are not published on the topic
    status, answer = robot.ask('the mugs', score_threshold=0.92).end()
    assert len(answer.instances) == 1
    assert robot.ask('nothing').end()[1].status == InstanceArray.STATUS_NO_TARGET
    assert succeeded(robot) == before + 3


def test_next_image(robot):
    goal = robot.ask('the mugs', freshness=NEXT)
    robot.wait(lambda: goal.stages == ['waiting'])
    stamp = robot.see()
    assert goal.end()[1].header.stamp.sec == stamp


def test_image_of_a_stamp_in_hand_to_come_or_gone_by(robot):
    newest = robot.see_several(4)

    def asked(sec):
        goal = Segment.Goal()
        goal.stamp.sec = sec
        return robot.ask('the mugs', freshness=STAMP, stamp=goal.stamp)

    assert asked(newest - 2).end()[1].header.stamp.sec == newest - 2
    to_come = asked(newest + 2)
    robot.wait(lambda: to_come.stages == ['waiting'])
    robot.see(), robot.see()
    assert to_come.end()[1].header.stamp.sec == newest + 2
    robot.see_several(12)
    status, answer = asked(newest).end()
    assert status == ABORTED
    assert 'no image with the stamp' in answer.message


def test_own_image_is_asked_about(robot):
    image = image_msg(np.zeros((20, 30, 3), np.uint8), Header(frame_id='elsewhere'))
    status, answer = robot.ask('the mugs', image=image).end()
    assert (status, answer.height, answer.width, answer.header.frame_id) == (SUCCEEDED, 20, 30, 'elsewhere')
    image.encoding = 'rainbow'
    status, answer = robot.ask('the mugs', image=image).end()
    assert (status, answer.status) == (ABORTED, InstanceArray.STATUS_ERROR)
    assert 'rainbow' in answer.message


@pytest.mark.parametrize('work', ['waiting', 'queued', 'sleep 60', 'burn 60', 'stuck 6'])
def test_cancel_at_any_stage(robot, work):
    """The client is notified at once, even if the model cannot be interrupted."""
    node = robot.nodes[0]
    if work == 'queued':
        blocking = robot.ask(FOREVER)
        robot.wait(lambda: node.logged('begins'))
    goal = robot.ask('the mugs' if work in ('waiting', 'queued') else work, freshness=NEXT * (work == 'waiting'))
    if work in ('waiting', 'queued'):
        robot.wait(lambda: goal.stages)
    else:
        robot.wait(lambda: node.logged('begins'))
    start = time.monotonic()
    assert goal.cancel()
    status, answer = goal.end()
    assert time.monotonic() - start < CANCELED_S
    assert (status, answer.status, answer.message) == (CANCELED, InstanceArray.STATUS_ERROR, 'canceled by the client')
    if work == 'queued':
        assert blocking.cancel()
    assert robot.ask('the mugs').end()[0] == SUCCEEDED


@pytest.mark.parametrize('work', [FOREVER, 'stuck 6', 'waiting'])
def test_time_limit(robot, work):
    robot.ask('the mugs').end()
    freshness = NEXT * (work == 'waiting')
    start = time.monotonic()
    status, answer = robot.ask(work, freshness=freshness, timeout_s=0.3).end()
    assert 0.3 < time.monotonic() - start < 0.3 + CANCELED_S
    assert status == ABORTED
    assert answer.message == 'no result within the 0.3 s that the goal allows'
    assert robot.ask('the mugs').end()[0] == SUCCEEDED


def test_goals_go_before_the_stream_which_resumes(robot):
    node = robot.nodes[0]
    assert robot.ask('the cups').end()[0] == SUCCEEDED  # the connection takes its time once
    robot.say('sleep 3')
    robot.wait(lambda: node.logged("begins 'sleep"))
    assert robot.ask('the mugs').end()[0] == SUCCEEDED
    assert not robot.results  # work for the topic was cancelled
    assert robot.next_result().instruction == 'sleep 3'
    stamp = robot.see()
    assert robot.result_of(stamp).instruction == 'sleep 3'


def test_equal_goals_on_one_image_are_computed_once(robot):
    node = robot.nodes[0]
    blocking = robot.ask(FOREVER)
    robot.wait(lambda: node.logged('begins'))
    same = [robot.ask('the mugs') for _ in range(5)]
    other = robot.ask('the mugs', score_threshold=0.92)
    robot.wait(lambda: other.stages and all(goal.stages for goal in same))
    blocking.cancel()
    assert {len(goal.end()[1].instances) for goal in same} == {9}
    assert len(other.end()[1].instances) == 1
    robot.say('the mugs')
    assert robot.next_result().status == InstanceArray.STATUS_OK
    # One job for the five equal goals, one for the other goal, and one for the stream, which has its own object ids.
    robot.wait(lambda: len(node.logged("begins 'the mugs'")) >= 3)
    assert len(node.logged("begins 'the mugs'")) == 3
    assert robot.ask('the mugs').end()[0] == SUCCEEDED
    assert len(node.logged("begins 'the mugs'")) == 3  # shares the answer of the stream


def test_twenty_clients_at_once(robot):
    """Each client receives the answer to its own goal."""
    before = succeeded(robot)
    robots = [Robot(robot.domain_id, f'robot_{number}') for number in range(3)]
    try:
        assert {each.ask('the cups').end()[0] for each in [robot, *robots]} == {SUCCEEDED}
        goals = [each.ask(f'the mugs {number}') for number in range(5) for each in [robot, *robots]]
        ends = [goal.end() for goal in goals]
    finally:
        for each in robots:
            each.close()
    assert [answer.instruction for _, answer in ends] == [f'the mugs {number // 4}' for number in range(20)]
    assert {status for status, _ in ends} == {SUCCEEDED}
    assert succeeded(robot) == before + 24


def test_client_that_dies(robot):
    """Its goal is completed, its result is not fetched, and the next client is served."""
    node, before = robot.nodes[0], succeeded(robot)
    code = (
        'import time; from robot import Robot; import os; '
        f'robot = Robot({robot.domain_id}); robot.ask("sleep 0.5").handle; print("asked", flush=True); time.sleep(60)'
    )
    client = subprocess.Popen(
        [sys.executable, '-c', code], stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[1] / 'support'
    )
    try:
        assert client.stdout.readline().strip() == 'asked'
        robot.wait(lambda: node.logged("begins 'sleep 0.5'"))
    finally:
        client.send_signal(signal.SIGKILL)
        client.wait()
    assert robot.ask('the mugs').end()[0] == SUCCEEDED
    while succeeded(robot) != before + 2:
        pass


def test_deactivation_during_a_goal(robot):
    node = robot.nodes[0]
    running, waiting = robot.ask('stuck 2'), robot.ask('the mugs', freshness=NEXT)
    robot.wait(lambda: node.logged('begins') and waiting.stages)
    assert robot.change_state('deactivate')
    for goal in (running, waiting):
        status, answer = goal.end()
        assert (status, answer.message) == (ABORTED, 'the node was deactivated')
    status, answer = robot.ask('the mugs').end()
    assert status == ABORTED
    assert 'not active' in answer.message
    assert robot.change_state('activate')
    goal = robot.ask('the mugs', freshness=NEXT)
    while not robot.wait_or_time_out(lambda: goal.response, 0.05):
        robot.see()
    assert goal.end()[0] == SUCCEEDED


def test_a_node_that_ends_notifies_its_clients(lone_robot):
    robot = lone_robot
    node = robot.start_active()
    robot.see_several()
    goal = robot.ask(FOREVER)
    robot.wait(lambda: node.logged('begins'))
    node.interrupt()
    status, answer = goal.end()
    assert (status, answer.message) == (ABORTED, 'the node is shutting down')


def test_goals_that_cannot_be_served_say_why(lone_robot):
    robot = lone_robot
    node = robot.start_active()
    robot.see_several()
    node.expected = 'Traceback'
    for fields, says in (
        ({'instruction': ' '}, 'the instruction is empty'),
        ({'camera': 'left'}, "no camera 'left'"),
        ({'freshness': 9}, 'freshness is'),
        ({'score_threshold': 2.0}, 'score_threshold is'),
        ({'score_threshold': float('nan')}, 'score_threshold is'),
        ({'timeout_s': -1.0}, 'timeout_s is'),
        ({'timeout_s': float('nan')}, 'timeout_s is'),
        ({'timeout_s': float('inf')}, 'timeout_s is'),
        ({'timeout_s': 1e10}, 'timeout_s is seconds up to 31622400'),  # over 2^63 ns
        ({'timeout_s': 1.7e308}, 'timeout_s is'),
        ({'camera': 'left\x1b[2J' + 'x' * 1000}, "no camera 'left\\x1b[2Jx"),
        ({'instruction': 'bad words'}, 'words'),
        ({'instruction': 'fail at once'}, 'RuntimeError: at once'),
    ):
        status, answer = robot.ask(**{'instruction': 'the mugs', **fields}).end()
        assert (status, answer.status) == (ABORTED, InstanceArray.STATUS_ERROR), fields
        assert says in answer.message, fields
    assert robot.ask('the mugs').end()[0] == SUCCEEDED


def test_odd_numbers_that_can_be_served_are_served(robot):
    """No stamp, however odd, and no time limit up to a year ends the node."""
    assert robot.ask('the mugs', timeout_s=3e7).end()[0] == SUCCEEDED
    assert robot.ask(FOREVER, timeout_s=5e-324).end()[0] == ABORTED
    for sec, nanosec in ((2**31 - 1, 999_999_999), (2**31 - 1, 2**32 - 1), (-(2**31), 0), (-1, 4 * 10**9)):
        stamp = Time(sec=sec, nanosec=nanosec)
        image = image_msg(np.zeros((20, 30, 3), np.uint8), Header(stamp=stamp))
        depth = image_msg(np.ones((20, 30), np.uint16), image.header)
        status, answer = robot.ask('the mugs', image=image, depth=depth).end()
        assert answer.header.stamp == stamp
        is_possible = sec >= 0 and nanosec < 1e9
        assert status == (SUCCEEDED if is_possible else ABORTED)
        assert ('header stamp' in answer.message) != is_possible
        assert robot.ask('the mugs', freshness=STAMP, stamp=stamp, timeout_s=0.1).end()[0] == ABORTED


def test_every_goal_of_a_burst_has_an_end(robot):
    """More at once than the depth of any queue, and more than may wait."""
    goals = [robot.ask(f'the mugs {number}') for number in range(300)]
    ends = [goal.end() for goal in goals]
    assert {status for status, _ in ends} <= {SUCCEEDED, ABORTED}
    assert all('goals are waiting already' in answer.message for status, answer in ends if status == ABORTED)
    assert [answer.instruction for _, answer in ends] == [f'the mugs {number}' for number in range(300)]
    assert robot.ask('the mugs').end()[0] == SUCCEEDED


def test_a_storm_of_cancels(robot):
    """All goals at once, each several times, while some of them are answered."""
    before = {state: int(robot.status()[f'goals_{state}']) for state in ('succeeded', 'canceled', 'aborted')}
    goals = [robot.ask(f'sleep 0.0{number % 5}') for number in range(60)]
    for _ in range(3):
        for goal in goals:
            goal.handle.cancel_goal_async()
    assert {goal.end()[0] for goal in goals} <= {SUCCEEDED, CANCELED}
    assert robot.ask('the mugs').end()[0] == SUCCEEDED
    while sum(int(robot.status()[f'goals_{state}']) for state in before) < sum(before.values()) + 61:
        pass
    assert robot.status()['unexpected_errors'] == '0'


def test_the_images_of_ended_goals_are_dropped(lone_robot):
    """Goals and results are kept for a minute after their end; only their small parts may be."""
    robot = lone_robot
    robot.start_active()
    robot.see_several()
    image = image_msg(np.zeros((1000, 2000, 3), np.uint8), Header(frame_id='camera'))  # 6 MB
    for _ in range(10):
        assert robot.ask('nothing', image=image).end()[0] == SUCCEEDED
    before_mb = int(robot.status()['memory_mb'])
    for _ in range(20):
        assert robot.ask('nothing', image=image).end()[0] == SUCCEEDED
    assert int(robot.status()['memory_mb']) < before_mb + 60  # 120 MB have passed


def test_log_entries_cannot_be_forged_and_do_not_flood(robot):
    node = robot.nodes[0]
    evil = 'bad \x1b[2J\n[ERROR] [node]: forged ' + 'x' * 100_000
    for number in range(30):
        status, answer = robot.ask(f'{evil}{number}').end()
        assert (status, answer.instruction) == (ABORTED, f'{evil}{number}')
    entries = node.logged('aborted: ')
    assert 0 < len(entries) <= 12
    assert all('\\x1b[2J [ERROR] [node]: forged xxx' in entry and len(entry) < 1000 for entry in entries)
    assert not [line for line in node.log if line.startswith('[ERROR] [node]')]

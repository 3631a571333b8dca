"""The node while the model is busy: it answers requests, and it ends when it is signalled."""

import signal
import subprocess
import sys
import time
from itertools import product

import pytest

pytest.importorskip('rclpy', reason='needs ROS 2 or its wheels')

from instructsam_ros.node import perception_node

ANSWER_S = 0.1  # the promised response time
END_S = 15.0  # far below the 60 s for which the model is busy; about 1 s on an idle machine
PERIOD_S = 0.1  # period of the stand-in's diagnostics
CALLS = 15


def seconds(function, *arguments):
    start = time.monotonic()
    function(*arguments)
    return time.monotonic() - start


def response_s(function, *arguments):
    """Return the lower quartile over several calls: on a busy machine the others may wait for the processor.

    A node that waits for its model would make all of them slow.
    """
    return sorted(seconds(function, *arguments) for _ in range(CALLS))[CALLS // 4]


@pytest.mark.parametrize('work', ['sleep 60', 'burn 60', 'stuck 60'])
def test_parameters_lifecycle_and_diagnostics_answer_while_the_model_is_busy(robot, work):
    node = robot.start_active()
    robot.get('model'), robot.state(), robot.set('score_threshold', 0.4)  # the first calls wait for discovery
    robot.say(work)
    robot.wait(lambda: node.logged('begins'))
    assert response_s(robot.get, 'score_threshold') < ANSWER_S
    assert response_s(robot.state) < ANSWER_S
    assert response_s(robot.set, 'score_threshold', 0.3) < ANSWER_S
    assert response_s(robot.status) < PERIOD_S + ANSWER_S
    assert not node.logged('ends')
    assert not robot.results


def test_node_answers_while_the_model_loads(robot):
    node = robot.start('model:=slow 600')
    robot.wait(lambda: node.logged("loading model 'slow 600'"))  # logged within the transition
    assert robot.state() == 'configuring'
    assert robot.get('model').string_value == 'slow 600'
    assert robot.set('score_threshold', 0.3) == (True, '')
    assert 'configuring' in robot.set('model', 'other')[1]
    assert robot.status()['state'] == 'configuring'
    node.interrupt()
    assert seconds(node.exit_code) < END_S


def test_deactivate_does_not_wait_for_the_model(robot):
    node = robot.start_active()
    robot.state()
    robot.say('stuck 10')
    robot.wait(lambda: node.logged('begins'))
    assert robot.change_state('deactivate')
    assert robot.state() == 'inactive'
    robot.say('the mugs')
    robot.wait(lambda: node.logged('instruction 2'))
    assert not node.logged('ends')
    assert robot.change_state('cleanup')  # waits for the model to return
    assert robot.wait_or_time_out(lambda: node.logged('ends'), 3)
    assert not robot.results


@pytest.mark.parametrize(
    ('work', 'signals'),
    [
        *product(['the mugs', 'stuck 60'], ['SIGINT', 'SIGINT SIGINT', 'SIGTERM', 'SIGINT SIGTERM', 'SIGHUP']),
        *product(['sleep 60', 'burn 60'], ['SIGINT', 'SIGTERM']),
    ],
)
def test_signals_end_the_node_cleanly_and_soon(robot, work, signals):
    node = robot.start_active(f'instruction:={work}')
    start = time.monotonic()
    for name in signals.split():
        if node.process.poll() is None:
            node.interrupt(signal.Signals[name])
    assert node.exit_code() == 0
    assert time.monotonic() - start < END_S
    assert not [line for line in node.log if 'Traceback' in line or 'Exception' in line or 'ERROR' in line]


def test_a_hangup_is_ignored_under_nohup(robot):
    handler = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # the child process inherits this
    try:
        node = robot.start_active()
    finally:
        signal.signal(signal.SIGHUP, handler)
    node.interrupt(signal.SIGHUP)
    robot.say('the mugs')
    assert robot.next_result().instruction == 'the mugs'


def test_second_interrupt_within_the_shutdown(robot):
    for delay_s in (0.0, 0.01, 0.03, 0.1, 0.3):
        node = robot.start('instruction:=stuck 60')
        robot.wait(lambda node=node: node.logged("model 'tabletop'"))
        node.interrupt()
        time.sleep(delay_s)
        if node.process.poll() is None:
            node.interrupt()
        assert node.exit_code() == 0
        assert not node.logged('Traceback')


def test_module_is_light():
    """Parameters, --help and waiting for `configure` need no deep-learning library."""
    code = 'import sys, instructsam_ros.node.perception_node; print({"torch", "transformers"} & set(sys.modules))'
    assert subprocess.check_output([sys.executable, '-c', code], text=True).strip() == 'set()'


def test_diagnostics_come_once_a_second():
    assert perception_node.DIAGNOSTICS_PERIOD_S == 1.0

"""States and parameters of the node."""

import random
import threading
from types import SimpleNamespace

import pytest

pytest.importorskip('rclpy', reason='needs ROS 2 or its wheels')

import rclpy
from diagnostic_msgs.msg import DiagnosticStatus
from lifecycle_msgs.srv import GetState
from rcl_interfaces.msg import Parameter as ParameterMsg
from rcl_interfaces.msg import ParameterValue
from rcl_interfaces.srv import SetParameters, SetParametersAtomically
from rclpy.parameter import Parameter

from instructsam_ros.msg import InstanceArray
from instructsam_ros.node import perception_node
from instructsam_ros.node.guarded_executor import GuardedExecutor
from instructsam_ros.node.lifecycle import AsyncLifecycleNode
from instructsam_ros.node.perception_node import PerceptionNode


def test_through_every_state_to_another_model_and_back(robot):
    node = robot.start('autostart:=false', 'model:=first', 'trigger:=on_instruction')
    assert robot.state() == 'unconfigured'
    assert not node.logged('first image')
    assert not node.logged("model 'first'")
    assert robot.change_state('configure')
    assert robot.state() == 'inactive'
    assert node.logged("model 'first'")
    assert robot.change_state('activate')
    robot.connect(node)
    robot.say('the mugs')
    assert robot.next_result().instruction == 'the mugs'

    assert robot.change_state('deactivate')
    robot.say('the cups')  # received, and answered when the node is active again
    robot.wait(lambda: node.logged('instruction 2'))
    robot.see()
    assert robot.status()['state'] == 'inactive'
    assert not robot.results
    assert robot.change_state('activate')
    robot.wait_until_heard()
    while not robot.wait_or_time_out(lambda: robot.results, 0.05):
        robot.see()
    assert robot.next_result().instruction == 'the cups'

    assert robot.change_state('deactivate')
    assert robot.change_state('cleanup')
    assert robot.status()['device'] == ''
    assert robot.set('model', 'second') == (True, '')
    assert robot.change_state('configure')
    assert robot.change_state('activate')
    status = robot.status()
    assert (status['state'], status['model'], status['device']) == ('active', 'second', 'auto')
    robot.connect(node)
    robot.say('the spoons')
    result = robot.next_result()
    assert (result.instruction_id, result.status) == (3, InstanceArray.STATUS_OK)
    assert robot.change_state('shutdown')
    assert robot.state() == 'finalized'


def test_model_that_does_not_load_can_be_corrected(robot):
    node = robot.start('model:=missing')
    robot.wait(lambda: node.logged('there is no such model'))
    assert len(node.logged('there is no such model')) == 1
    while (status := robot.status())['state'] == 'configuring':  # the log entry precedes the end of the transition
        pass
    assert (status['level'], status['state']) == (DiagnosticStatus.ERROR, 'unconfigured')
    assert 'there is no such model' in status['']
    assert not robot.change_state('configure')
    assert robot.set('model', 'right') == (True, '')
    assert robot.change_state('configure')
    assert robot.change_state('activate')
    assert robot.status()['level'] != DiagnosticStatus.ERROR
    robot.connect(node)
    robot.say('the mugs')
    assert robot.next_result().status == InstanceArray.STATUS_OK


def test_impossible_transitions_are_refused_and_the_node_keeps_running(robot):
    node = robot.start('autostart:=false')
    assert not robot.change_state('activate')
    assert not robot.change_state('cleanup')
    assert not robot.change_state('no such thing \x1b[2J\u202e')
    robot.wait(lambda: node.logged(r"transition 'no such thing \x1b[2J\u202e' refused"))
    assert robot.change_state('configure')
    assert not robot.change_state('configure')
    assert robot.state() == 'inactive'


@pytest.fixture
def robot_in(lasting_robot):
    """Return a function that returns the robot of all refused values, whose node it brings to a state."""

    def bring_to(state):
        if not lasting_robot.nodes:
            lasting_robot.start('autostart:=false')
        if lasting_robot.state() != state:
            assert lasting_robot.change_state({'inactive': 'configure', 'unconfigured': 'cleanup'}[state])
        return lasting_robot

    return bring_to


@pytest.mark.parametrize(
    ('name', 'value', 'why'),
    [
        ('model', 'other', 'only while the node is unconfigured, not inactive: deactivate and clean up first'),
        ('device', 'cpu', 'only while'),
        ('dtype', 'float32', 'only while'),
        ('mode', 'reference', 'only while'),
        ('image_transport', 'compressed', 'only while'),
        ('autostart', False, 'read-only'),
        ('instruction', 'the mugs', 'read-only'),
        ('trigger', 'sometimes', "trigger is one of continuous, on_instruction, got 'sometimes'"),
        ('score_threshold', 1.5, 'out of range'),
        ('score_threshold', float('nan'), 'out of range'),
        ('score_threshold', 1, 'expected'),
        ('max_new_tokens', 0, 'out of range'),
        ('time_budget_s', -1.0, 'out of range'),
        ('suppress_duplicates', 'yes', 'expected'),
        ('no_such_parameter', 1, 'undeclared parameter'),
    ],
)
def test_bad_values_are_refused_with_a_reason(robot_in, name, value, why):
    successful, reason = robot_in('inactive').set(name, value)
    assert not successful
    assert why in reason


@pytest.mark.parametrize(
    ('name', 'value', 'why'),
    [
        ('mode', 'fast', "mode is one of consistent, reference, got 'fast'"),
        ('device', 'gpu', "device is auto, cpu, mps, cuda or cuda:N, got 'gpu'"),
        ('model', ' ', 'got an empty string'),
    ],
)
def test_bad_models_are_refused_with_a_reason(robot_in, name, value, why):
    successful, reason = robot_in('unconfigured').set(name, value)
    assert not successful
    assert why in reason


def test_changed_parameter_counts_from_the_next_image_on(robot):
    robot.start_active('instruction:=the mugs')
    assert len(robot.result_of(robot.see()).instances) == 9
    assert robot.set('score_threshold', 0.9) == (True, '')
    assert len(robot.result_of(robot.see()).instances) == 1
    assert robot.set('trigger', 'on_instruction') == (True, '')
    robot.see_several()
    assert not robot.results
    robot.say('the cups')
    assert robot.next_result().instruction == 'the cups'
    assert robot.set('trigger', 'continuous') == (True, '')
    assert robot.result_of(robot.see()).instruction == 'the cups'


def test_a_parameter_cannot_be_deleted(robot):
    """`ros2 param delete` would leave the node without a setting that it needs for every image."""
    robot.start_active('instruction:=the mugs')
    for name in ('score_threshold', 'trigger', 'cameras', 'target_frame'):
        successful, reason = robot.set(name, None)
        assert not successful
        assert reason
    assert robot.result_of(robot.see()).status == InstanceArray.STATUS_OK


def test_parameters_of_a_type_that_does_not_exist_are_refused(robot):
    """Rclpy's callback raises on them."""
    robot.start('autostart:=false')
    robot.get('model')
    unknown = ParameterMsg(name='model', value=ParameterValue(type=99))
    known = Parameter('score_threshold', value=0.25).to_parameter_msg()
    for service, kind in (('set_parameters', SetParameters), ('set_parameters_atomically', SetParametersAtomically)):
        response = robot.call(kind, service, kind.Request(parameters=[known, unknown]))
        results = response.results if kind is SetParameters else [response.result]
        assert len(results) == (2 if kind is SetParameters else 1)
        for result in results:
            assert not result.successful
            assert result.reason.startswith('model is of type 99, expected one of 0 to 9')
    assert robot.get('model').string_value == 'tabletop'
    assert robot.get('score_threshold').double_value == 0.5
    assert robot.status()['unexpected_errors'] == '0'


def test_a_service_whose_callback_raises_is_answered_and_reported(domain_id):
    context = rclpy.Context()
    rclpy.init(context=context, domain_id=domain_id)
    node = AsyncLifecycleNode('node', context=context)
    try:
        service = node.create_service(GetState, 'broken', lambda request, response: 1 / 0)
        response = GetState.Response()
        assert service.callback(GetState.Request(), response) is response
        assert node.statistics.bugs == 1
    finally:
        node.destroy_node()
        context.try_shutdown()


def test_a_storm_of_transitions_in_any_order(robot):
    """Every request is answered, none waits forever, and the node can still be activated."""
    robot.start('autostart:=false')
    rng = random.Random(0)
    for _ in range(60):
        robot.change_state(rng.choice(('configure', 'activate', 'deactivate', 'cleanup', 'no such thing', '')))
    assert robot.state() in ('unconfigured', 'inactive', 'active')
    for label in ('deactivate', 'cleanup', 'configure', 'activate'):
        robot.change_state(label)
    robot.change_state('configure'), robot.change_state('activate')
    assert robot.state() == 'active'
    assert robot.status()['unexpected_errors'] == '0'


def test_misspelt_parameter_is_reported(robot):
    node = robot.start('autostart:=false', 'scor_threshold:=0.9')
    robot.wait(lambda: node.logged("there is no parameter 'scor_threshold'"))
    assert len(node.logged('there is no parameter')) == 1


def test_silent_camera_is_reported(robot):
    node = robot.start_active()  # discovery may take longer than the node tolerates silence
    robot.say('the mugs')
    robot.wait(lambda: node.logged('no image on /image'))
    assert '(1 publishers)' in node.logged('no image on /image')[0]
    status = robot.status()
    assert status['level'] == DiagnosticStatus.WARN
    assert status[''].startswith('no image for')


def test_a_shutdown_closes_the_subscriptions_in_the_executor_s_thread(domain_id):
    """The transition runs in the model's thread, while the executor may be taking a message."""
    context = rclpy.Context()
    rclpy.init(context=context, domain_id=domain_id)
    arguments = ['--ros-args', '-p', 'autostart:=false']
    node = PerceptionNode(
        lambda **_: SimpleNamespace(name='model', device='cpu', precision='float32', warning=''),
        context=context,
        cli_args=arguments,
    )
    executor = GuardedExecutor(node.log.report_bug, context=context)
    executor.add_node(node)
    destroyed_in, destroy = [], node.destroy_subscription

    def destroy_subscription(subscription):
        destroyed_in.append(threading.current_thread())
        return destroy(subscription)

    node.destroy_subscription = destroy_subscription
    try:
        node.trigger_configure()
        node.trigger_activate()
        node.submit(node.trigger_shutdown)
        while node.state != 'finalized' or len(destroyed_in) < 3:
            executor.spin_once(0.1)
        assert destroyed_in == [threading.current_thread()] * 3
    finally:
        node.close()
        executor.shutdown()
        node.destroy_node()
        context.try_shutdown()


def test_another_node_of_the_same_name_is_reported(domain_id, monkeypatch):
    monkeypatch.setattr(perception_node, 'NAMESAKE_S', 0.0)
    context = rclpy.Context()
    rclpy.init(context=context, domain_id=domain_id)
    node = PerceptionNode(context=context, cli_args=['--ros-args', '-p', 'autostart:=false'])
    executor, said = GuardedExecutor(node.log.report_bug, context=context), []
    executor.add_node(node)
    monkeypatch.setattr(node.log, 'warning', lambda kind, text: said.append(text))
    publications = []
    monkeypatch.setattr(node._diagnostics, 'publish', publications.append)
    try:
        while len(publications) < 2:
            executor.spin_once(0.1)
        assert said == []
        namesake = rclpy.create_node('perception', context=context)
        while not said:
            executor.spin_once(0.1)
        assert 'another node is named /perception as well' in said[0]
        namesake.destroy_node()
    finally:
        node.close()
        node.destroy_node()
        context.try_shutdown()

"""The Python client, and the examples that use it, with a node in another process."""

import math
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip('rclpy', reason='needs ROS 2 or its wheels')

from depth_messages import compressed_depth, png
from rclpy.action.client import ClientGoalHandle
from rclpy.task import Future
from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from std_msgs.msg import Header, String

from instructsam.core import CancelledError
from instructsam.core.spatial.grasping import grasp_candidates
from instructsam_ros.client import MOST_UNCARRIED, Perception, PerceptionError, _read
from instructsam_ros.conversions.instances import depth_msg, image_msg
from instructsam_ros.detections import detections_from_msg
from instructsam_ros.node import qos

EXAMPLES = Path(__file__).parents[2] / 'examples'
K = [60.0, 0.0, 31.5, 0.0, 60.0, 23.5, 0.0, 0.0, 1.0]
INFO = CameraInfo(header=Header(frame_id='hand'), height=48, width=64, k=K)


def depth_image():
    """Return [48, 64] uint16 mm: a table 40 cm away, and an object 5 cm high near the stand-in's first ellipse."""
    depth = np.full((48, 64), 400, np.uint16)
    depth[8:21, 2:11] = 350
    return depth


@pytest.fixture(scope='module')
def robot(lasting_robot):
    lasting_robot.start_active()
    return lasting_robot


@pytest.fixture
def perception(robot, monkeypatch):
    monkeypatch.setenv('ROS_DOMAIN_ID', str(robot.domain_id))
    robot.see_several()
    with Perception() as perception:
        yield perception


def test_find(robot, perception):
    stages = []
    detections = perception.find('the mugs', timeout=20.0, on_stage=stages.append)
    assert len(detections) == 9
    assert detections.stamp_s == robot.frames
    assert detections.message.instruction == 'the mugs'
    assert [each.score for each in detections] == sorted((each.score for each in detections), reverse=True)
    assert detections[0].mask.shape == (48, 64)
    assert detections[0].mask.dtype == bool
    assert detections[0].mask.any()
    assert detections[0].center is None
    assert detections[0].points is None
    assert detections.frame_id == ''
    assert 'no depth' in detections.message.geometry_message
    # rclpy drops feedback that it takes after the result, so the last stages may be missing.
    assert stages == ['queued', 'encoding', 'segmenting', 'locating'][: len(stages)]
    assert len(perception.find('the mugs', timeout=20.0, score_threshold=0.92)) == 1
    assert not perception.find('nothing', timeout=20.0)


def test_own_image_with_depth(perception):
    header = Header(frame_id='hand')
    depth = depth_msg(depth_image(), header)
    image = image_msg(np.zeros((48, 64, 3), np.uint8), header)
    detections = perception.find('the mugs', timeout=20.0, image=image, depth=depth, camera_info=INFO)
    best = detections[0]
    assert detections.frame_id == 'hand'
    assert best.geometry_message == ''
    assert best.center.shape == (3,)
    assert best.points.shape[1] == 3
    assert len(best.points) > 50
    np.testing.assert_allclose(best.rotation @ best.rotation.T, np.eye(3), atol=1e-6)
    assert np.abs(best.points.mean(axis=0) - best.center).max() < 0.1
    candidates = grasp_candidates(best)  # works on the client's Instance
    assert all(np.linalg.norm(each.position - best.center) < 0.2 for each in candidates)


def test_own_compressed_image_with_compressed_depth(perception):
    image = CompressedImage(header=Header(frame_id='hand'), format='png', data=png(np.zeros((48, 64, 3), np.uint8)))
    metres = (depth_image() / 1000).astype(np.float32)
    depth = compressed_depth(metres, header=image.header)
    best = perception.find('the mugs', timeout=20.0, image=image, depth=depth, camera_info=INFO)[0]
    raw = depth_msg(metres, image.header)
    expected = perception.find('the mugs', timeout=20.0, image=image, depth=raw, camera_info=INFO)[0]
    np.testing.assert_allclose(best.center, expected.center, atol=1e-3)
    depth.data = depth.data[: len(depth.data) // 2]
    with pytest.raises(PerceptionError, match='the image is damaged'):
        perception.find('the mugs', timeout=20.0, image=image, depth=depth, camera_info=INFO)


def test_next_image_and_one_with_a_stamp(robot, perception):
    answers, is_waiting = [], threading.Event()

    def on_stage(stage):
        if stage == 'waiting':
            is_waiting.set()

    asking = threading.Thread(
        target=lambda: answers.append(perception.find('the mugs', timeout=20.0, freshness='next', on_stage=on_stage))
    )
    before = robot.frames
    asking.start()
    assert is_waiting.wait(20)
    while asking.is_alive():
        robot.see()
        asking.join(0.2)
    assert answers[0].stamp_s > before
    stamp = answers[0].message.header.stamp
    newest = robot.see_several()
    detections = perception.find('the mugs', timeout=20.0, freshness=type(stamp)(sec=newest - 1))
    assert detections.stamp_s == newest - 1


@pytest.mark.parametrize(
    ('fields', 'says'),
    [
        ({'instruction': 'bad words'}, 'words'),
        ({'instruction': ''}, 'the instruction is empty'),
        ({'camera': 'left'}, "no camera 'left'"),
        ({'instruction': 'sleep 60', 'timeout': 0.5}, 'no result within'),
        ({'image': Image()}, 'the image has no data'),
    ],
)
def test_the_reason_why_there_is_no_answer(perception, fields, says):
    perception.find('the mugs', timeout=20.0)  # waits until the node has been discovered
    with pytest.raises(PerceptionError, match=says):
        perception.find(**{'instruction': 'the mugs', 'timeout': 20.0, **fields})


def test_an_error_of_the_callers_callback_reaches_the_caller(perception):
    def on_stage(_):
        raise KeyError('of the caller')

    with pytest.raises(KeyError, match='of the caller'):
        perception.find('sleep 1', timeout=20.0, on_stage=on_stage)
    assert perception.find('the mugs', timeout=20.0)


def test_freshness_is_checked_before_anything_is_sent(perception):
    with pytest.raises(ValueError, match="'newest', 'next' or a stamp"):
        perception.find('the mugs', timeout=20.0, freshness='newer')


@pytest.mark.parametrize(
    ('arguments', 'topic'),
    [(('perception',), '/instruction'), (('/robot/perception',), '/robot/instruction'), (('a/b', 'text'), '/text')],
)
def test_the_topic_of_instructions_is_in_the_namespace_of_the_node(arguments, topic):
    with Perception(*arguments) as perception:
        assert perception._instruction.topic_name == topic


def test_watch(robot, perception):
    results = perception.watch('the mugs', timeout=20.0)
    with robot.stream():
        seen = [next(results) for _ in range(3)]
    results.close()
    assert [detections.stamp_s for detections in seen] == sorted({detections.stamp_s for detections in seen})
    assert {tuple(each.track_id for each in detections) for detections in seen} == {tuple(range(9))}
    perception.stop()
    while robot.status()['instruction']:
        pass


def wait_for_instruction(robot, text):
    end_s = time.monotonic() + 20
    while robot.status()['instruction'] != text:
        assert time.monotonic() < end_s


@pytest.fixture
def recorder(robot):
    """Another reader of the instructions, which a client may discover before the node."""
    subscription = robot.node.create_subscription(String, 'instruction', lambda _: None, qos.LATCHED)
    yield subscription
    robot.in_executor(lambda: robot.node.destroy_subscription(subscription))


def test_a_new_client_ends_the_instruction(robot, recorder, monkeypatch):
    monkeypatch.setenv('ROS_DOMAIN_ID', str(robot.domain_id))
    for number in range(3):
        robot.say(f'the mugs {number}')
        wait_for_instruction(robot, f'the mugs {number}')
        with Perception() as perception:
            perception.stop()
        wait_for_instruction(robot, '')


def test_an_instruction_that_no_node_reads_is_an_error(robot, recorder, monkeypatch):
    monkeypatch.setenv('ROS_DOMAIN_ID', str(robot.domain_id))
    with Perception('nobody') as perception:
        says = '/nobody does not read instructions on /instruction: start it, or check its name'
        with pytest.raises(PerceptionError, match=says):
            perception.stop(timeout=0.5)
        with pytest.raises(PerceptionError, match=says):
            next(perception.watch('the mugs', timeout=0.5))


def test_an_instruction_that_the_node_does_not_confirm_is_an_error(robot, perception):
    perception.stop()  # the node is known now
    node = robot.nodes[0].process
    node.send_signal(signal.SIGSTOP)
    try:
        with pytest.raises(PerceptionError, match='/perception has not confirmed'):
            perception.stop(timeout=0.5)
    finally:
        node.send_signal(signal.SIGCONT)
    perception.stop()


def test_watch_at_camera_rate(robot, perception):
    results = perception.watch('a mug', timeout=20.0, tracked=True)
    with robot.stream():
        with pytest.raises(PerceptionError, match='track_rate_hz'):
            next(results)
        assert robot.set('track_rate_hz', 200.0)[0]
        assert robot.set('trigger', 'on_instruction')[0]
        results = perception.watch('the mugs', timeout=20.0, tracked=True)
        seen = [next(results) for _ in range(4)]
    results.close()
    assert robot.set('track_rate_hz', 0.0)[0]
    assert robot.set('trigger', 'continuous')[0]
    assert {tuple(each.track_id for each in detections) for detections in seen} == {tuple(range(9))}
    assert seen[-1].age_s >= 3
    assert seen[-1].stamp_s - seen[0].stamp_s == seen[-1].age_s - seen[0].age_s
    assert all(0.9 < each.confidence <= 1 for each in seen[-1])
    perception.stop()
    while robot.status()['instruction']:
        pass


def test_watch_at_a_lower_rate_than_that_of_the_answers(robot, perception):
    assert robot.set('track_rate_hz', 1.0)[0]
    results = perception.watch('the mugs', timeout=20.0, tracked=True)
    with robot.stream():
        next(results)
        robot.results.clear()
        seen = [next(results) for _ in range(2)]
        assert len(robot.results) > MOST_UNCARRIED
    results.close()
    assert robot.set('track_rate_hz', 0.0)[0]
    assert {len(detections) for detections in seen} == {9}
    perception.stop()
    while robot.status()['instruction']:
        pass


def test_watch_raises_errors_and_timeouts(robot, perception):
    robot.nodes[0].expected = 'Traceback'
    results = perception.watch('fail on purpose', timeout=20.0)
    with pytest.raises(PerceptionError, match='RuntimeError: on purpose'):
        next(results)
    results = perception.watch('sleep 60', timeout=0.5)
    with pytest.raises(PerceptionError, match=r'no result of /perception for 0.5 s'):
        next(results)
    perception.stop()


@pytest.mark.parametrize(
    ('arguments', 'says'),
    [
        (['find_one.py', 'the mugs'], 'box, score 0.95, '),
        (['watch_stream.py', 'the mugs', '2'], '#0 box 0.95'),
        (['pick_loop.py', 'the mugs'], '1 picked; 8 left that cannot be grasped'),
    ],
    ids=['find one', 'watch a stream', 'pick loop'],
)
def test_examples(robot, arguments, says):
    with robot.stream(depth=depth_image()):
        done = subprocess.run(
            [sys.executable, EXAMPLES / arguments[0], *arguments[1:]],
            capture_output=True,
            text=True,
            timeout=60,
            env=os.environ | {'ROS_DOMAIN_ID': str(robot.domain_id)},
        )
    assert done.returncode == 0, done.stdout + done.stderr
    assert says in done.stdout
    assert not done.stderr


def test_requests_are_sent_from_the_thread_that_takes_the_responses(perception, monkeypatch):
    """A response that another thread takes between the sending and the registering of a request is lost by rclpy."""
    senders, send = [], perception._goals.action.send_goal_async

    def recorded(*arguments):
        senders.append(threading.current_thread())
        return send(*arguments)

    monkeypatch.setattr(perception._goals.action, 'send_goal_async', recorded)
    perception.find('the mugs', timeout=30.0)
    assert set(senders) == {perception._ros.thread}


def test_twenty_clients_at_once(robot, perception, capfd):
    """Each receives the answer to its own goal."""
    answers = {}
    clients = [Perception() for _ in range(20)]

    def ask(number):
        answers[number] = clients[number].find(f'the mugs {number}', timeout=30.0).message.instruction

    asking = [threading.Thread(target=ask, args=(number,)) for number in range(20)]
    for thread in asking:
        thread.start()
    for thread in asking:
        thread.join()
    for client in clients:
        client.close()
    assert answers == {number: f'the mugs {number}' for number in range(20)}
    assert 'WARN' not in capfd.readouterr().err


def test_closing_ends_calls_in_other_threads(robot, perception, monkeypatch):
    refused, cancellations, answered, stop = [], [], [], perception._ros.stop

    def cancel(handle):
        cancellations.append(cancel_goal_async(handle))
        return cancellations[-1]

    def stop_and_look():
        answered.append([future.done() for future in cancellations])
        stop()

    cancel_goal_async = ClientGoalHandle.cancel_goal_async
    monkeypatch.setattr(ClientGoalHandle, 'cancel_goal_async', cancel)
    monkeypatch.setattr(perception._ros, 'stop', stop_and_look)

    def ask():
        try:
            perception.find('sleep 60', timeout=60.0)
        except PerceptionError as error:
            refused.append(str(error))

    asking, before = threading.Thread(target=ask), int(robot.status()['goals_canceled'])
    robot.nodes[0].log.clear()
    asking.start()
    robot.wait(lambda: robot.nodes[0].logged('begins'))
    perception.close()
    asking.join(10)
    assert refused == ['the client was closed']
    assert answered[0] == [True]  # otherwise the request may never reach the node
    robot.wait(lambda: int(robot.status()['goals_canceled']) == before + 1)  # the node stops computing the answer


def test_a_closed_client_says_so(perception):
    perception.close()
    for call in (lambda: perception.find('the mugs'), lambda: next(perception.watch('the mugs')), perception.stop):
        with pytest.raises(PerceptionError, match='the client was closed'):
            call()


def test_closing_ends_the_wait_for_a_node(robot, monkeypatch):
    monkeypatch.setenv('ROS_DOMAIN_ID', str(robot.domain_id))
    client, refused, is_waiting = Perception(node='nobody'), [], threading.Event()

    def ask():
        try:
            client.find('the mugs', timeout=60.0, cancelled=is_waiting.set)
        except PerceptionError as error:
            refused.append(str(error))

    asking = threading.Thread(target=ask)
    asking.start()
    assert is_waiting.wait(20)
    client.close()
    asking.join(20)
    assert refused == ['the client was closed']


def test_a_goal_whose_response_is_late_is_cancelled(robot, perception, monkeypatch):
    """The request is repeated, which makes a second goal; the answer is that of the goal whose response came first."""
    first, late, send = [], Future(), perception._goals.action.send_goal_async

    def send_goal_async(*arguments):
        accepted = send(*arguments)
        if not first:
            first.append(accepted)
            return late
        accepted.add_done_callback(lambda _: late.set_result(first[0].result()))
        return accepted

    monkeypatch.setattr(perception._goals.action, 'send_goal_async', send_goal_async)
    monkeypatch.setattr('instructsam_ros.goal_sender.RETRY_S', 0.5)
    before = int(robot.status()['goals_canceled'])
    assert perception.find('sleep 2', timeout=60.0).message.instruction == 'sleep 2'
    robot.wait(lambda: int(robot.status()['goals_canceled']) == before + 1)


def test_a_request_that_is_cancelled_before_it_is_accepted(robot, perception):
    perception.find('the mugs', timeout=30.0)  # the node is known now
    before, node = int(robot.status()['goals_canceled']), robot.nodes[0].process
    checks = iter([False, False, True])
    node.send_signal(signal.SIGSTOP)
    try:
        with pytest.raises(CancelledError):
            perception.find('sleep 60', timeout=60.0, cancelled=lambda: next(checks))
    finally:
        node.send_signal(signal.SIGCONT)
    robot.wait(lambda: int(robot.status()['goals_canceled']) > before)


def test_a_malformed_answer_is_a_perception_error(perception):
    """Programs catch PerceptionError only; a position that is not finite must not reach a robot."""
    answer = perception.find('the mugs', timeout=20.0).message
    answer.instances[0].has_geometry = True
    answer.instances[0].geometry.pose.position.x = math.nan
    with pytest.raises(PerceptionError, match='the answer is malformed: a position is finite'):
        _read(detections_from_msg, answer)
    answer.instances[0].mask.counts = [1]
    with pytest.raises(PerceptionError, match='the answer is malformed: run lengths add up to 1'):
        _read(detections_from_msg, answer)


def test_missing_node(robot, monkeypatch):
    monkeypatch.setenv('ROS_DOMAIN_ID', str(robot.domain_id))
    start = time.monotonic()
    with Perception(node='nobody') as perception, pytest.raises(PerceptionError, match='there is no node /nobody'):
        perception.find('the mugs', timeout=0.5)
    assert time.monotonic() - start < 10

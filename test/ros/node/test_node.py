"""The node from image and instruction to result, in a process of its own with a stand-in engine (standin.py)."""

import json

import numpy as np
import pytest

pytest.importorskip('rclpy', reason='needs ROS 2 or its wheels')

from instructsam_ros.msg import InstanceArray

OK, NO_TARGET, ERROR = InstanceArray.STATUS_OK, InstanceArray.STATUS_NO_TARGET, InstanceArray.STATUS_ERROR


def work_of(result):
    """Return the counts of the engine's work so far: encoded, segmented, cancelled."""
    return json.loads(result.answer)


def test_result_says_what_it_answers(robot):
    robot.start_active('instruction:=the mugs')
    stamp = robot.see()
    result = robot.result_of(stamp)
    assert (result.header.stamp.sec, result.header.frame_id) == (stamp, 'camera_color_optical_frame')
    assert (result.instruction, result.instruction_id, result.status) == ('the mugs', 1, OK)
    assert (result.height, result.width, len(result.instances)) == (48, 64, 9)  # the tenth scores 0.5
    assert result.message == 'a stand-in, not a model'
    assert result.image_encoders_ms == 10
    assert result.prefill_ms == 6
    assert result.masks_ms == 1


def test_continuous_answers_every_newest_image(robot):
    robot.start_active()
    robot.say('the mugs')
    robot.next_result()
    for _ in range(3):
        stamp = robot.see()
        assert robot.next_result().header.stamp.sec == stamp


def test_on_instruction_answers_once_on_the_newest_image(robot):
    robot.start_active('trigger:=on_instruction')
    newest = robot.see_several()
    robot.say('the mugs')
    result = robot.next_result()
    assert result.header.stamp.sec == newest
    newest = robot.see_several()
    robot.say('the mugs')  # repeating the instruction asks again
    result = robot.next_result()
    assert (result.header.stamp.sec, result.instruction_id) == (newest, 2)
    robot.say('the cups')
    assert robot.next_result().instruction_id == 3
    assert not robot.results


def test_instruction_waits_for_the_first_image(robot):
    robot.say('the mugs')  # latched, so it may be published before the node runs
    node = robot.start('trigger:=on_instruction')
    robot.wait(lambda: node.logged("instruction 1: 'the mugs'"))
    robot.wait_until_heard()
    assert robot.status()['results'] == '0'
    while not robot.wait_or_time_out(lambda: robot.results, 0.05):
        robot.see()
    assert robot.next_result().instruction == 'the mugs'
    robot.see_several()
    assert not robot.results


def test_same_image_is_encoded_once_for_two_instructions(robot):
    robot.start_active('trigger:=on_instruction')
    robot.say('the mugs')
    first = robot.next_result()
    robot.say('the cups')
    second = robot.next_result()
    assert first.header == second.header
    assert work_of(first)['encoded'] == work_of(second)['encoded'] == 1
    assert (first.image_encoders_ms, first.prefill_ms) == (10, 6)
    assert (second.image_encoders_ms, second.prefill_ms) == (0, 1)


def test_new_instruction_supersedes_running_work_on_the_image_in_hand(robot):
    node = robot.start_active()
    robot.say('sleep 60')
    robot.wait(lambda: node.logged('begins'))
    robot.say('the mugs')
    result = robot.next_result()
    assert (result.instruction, result.instruction_id) == ('the mugs', 2)
    assert work_of(result)['encoded'] == 1
    assert work_of(result)['cancelled'] == 1
    assert robot.status()['results_superseded'] == '1'


def test_result_that_comes_too_late_is_not_published(robot):
    node = robot.start_active()
    robot.say('stuck 3')
    robot.wait(lambda: node.logged('begins'))
    robot.say('the mugs')
    result = robot.next_result()
    assert result.instruction == 'the mugs'
    assert work_of(result)['segmented'] == 2
    status = robot.status()
    assert (status['results'], status['results_superseded']) == ('1', '1')


def test_empty_instruction_stops(robot):
    node = robot.start_active()
    robot.say('sleep 60')
    robot.wait(lambda: node.logged('begins'))
    robot.say('')
    robot.wait(lambda: node.logged('stopped'))
    robot.see_several()
    assert robot.status()[''].startswith('waiting for an instruction')
    assert not robot.results
    robot.say('the mugs')
    result = robot.next_result()
    assert (result.instruction, result.instruction_id) == ('the mugs', 2)


def test_repeated_instruction_does_not_disturb(robot):
    node = robot.start_active()
    robot.say('sleep 0.3')
    robot.wait(lambda: node.logged('begins'))
    for _ in range(5):
        robot.say('sleep 0.3')
    result = robot.next_result()
    assert (result.instruction_id, work_of(result)['cancelled']) == (1, 0)


def test_nothing_found_is_no_failure(robot):
    robot.start_active('instruction:=nothing')
    result = robot.result_of(robot.see())
    assert (result.status, list(result.instances)) == (NO_TARGET, [])


def test_failure_of_the_engine_is_a_result_and_the_node_keeps_running(robot):
    node = robot.start_active()
    node.expected = 'Traceback'
    robot.say('fail out of memory')
    result = robot.next_result()
    assert (result.status, result.message) == (ERROR, 'RuntimeError: out of memory')
    assert (result.height, result.width) == (48, 64)
    for _ in range(10):
        assert robot.result_of(robot.see()).status == ERROR
    assert len(node.logged('Traceback')) == 1  # the traceback is logged once
    while (status := robot.status())['errors'] == '10':  # the message was under way when the last result came
        pass
    assert (status['errors'], status['']) == ('11', 'RuntimeError: out of memory')
    robot.say('the mugs')
    assert robot.next_result().status == OK


def test_instruction_that_cannot_be_used_is_refused_once(robot):
    robot.start_active()
    robot.say('bad words')
    result = robot.next_result()
    assert (result.status, result.message, result.instruction) == (ERROR, 'words', 'bad words')
    robot.see_several()
    assert robot.status()['errors'] == '1'
    robot.say('the mugs')
    assert robot.next_result().status == OK
    assert not robot.results


def test_huge_instruction_comes_back_whole(robot):
    robot.start_active()
    robot.say('bad ' + 'x' * 100_000)
    result = robot.next_result()
    assert (result.status, len(result.instruction)) == (ERROR, 100_004)


@pytest.mark.parametrize(
    'fields',
    [
        pytest.param({'encoding': 'rainbow'}, id='unknown encoding'),
        pytest.param({'height': 0, 'width': 0, 'data': b''}, id='empty'),
        pytest.param({'step': 3}, id='rows too short'),
        pytest.param({'encoding': 'rgb16'}, id='8 bits sent as 16'),
        pytest.param({'data': b'12'}, id='truncated data'),
    ],
)
def test_image_that_cannot_be_used_is_an_error_result(lasting_robot, fields):
    robot = lasting_robot
    if not robot.nodes:
        robot.start_active('instruction:=the mugs')
    result = robot.result_of(robot.see(**fields))
    assert result.status == ERROR
    assert result.message
    assert robot.result_of(robot.see()).status == OK


def test_compressed_images(robot):
    cv2 = pytest.importorskip('cv2')
    jpeg = cv2.imencode('.jpg', np.full((48, 64, 3), 128, np.uint8))[1].tobytes()
    node = robot.start('image_transport:=compressed', 'instruction:=the mugs')
    robot.connect(node, lambda: robot.see_compressed(jpeg))
    result = robot.result_of(robot.see_compressed(jpeg[:-100]))
    assert result.status == ERROR
    assert 'truncated' in result.message
    result = robot.result_of(robot.see_compressed(jpeg))
    assert (result.height, result.width, result.status) == (48, 64, OK)


def test_views_are_made_for_subscribers(robot):
    robot.start_active()
    robot.say('the mugs')
    robot.next_result()
    robot.look_at('perception/label_image')
    while not robot.views:  # until the node has discovered the subscription
        robot.see()
        robot.next_result()
    labels = robot.views.pop()
    assert (labels.encoding, labels.height, labels.width) == ('16UC1', 48, 64)
    assert set(np.frombuffer(labels.data, np.uint16)) == set(range(10))
    robot.look_at('perception/overlay')
    while not any(view.encoding == 'rgb8' for view in robot.views):
        stamp = robot.see()
        robot.next_result()
        robot.wait_or_time_out(lambda: any(view.encoding == 'rgb8' for view in robot.views), 0.2)
    overlay = next(view for view in robot.views if view.encoding == 'rgb8')
    assert overlay.header.stamp.sec <= stamp
    assert np.ptp(np.frombuffer(overlay.data, np.uint8)) > 0  # the image itself has one grey value


def test_every_image_is_counted(robot):
    robot.start_active()
    robot.say('sleep 0.05')
    for _ in range(100):
        newest = robot.see()
        robot.wait_or_time_out(lambda: False, 0.005)  # about 200 Hz
    robot.wait(lambda: robot.results and robot.results[-1].header.stamp.sec == newest)
    status = {key: int(value) for key, value in robot.status().items() if key.startswith('frames_')}
    assert status['frames_in'] == status['frames_used'] + status['frames_dropped'] + status['frames_waiting']
    assert status['frames_used'] == len(robot.results) < status['frames_in']


def test_answer_may_be_the_instruction_itself(robot):
    robot.start_active('answer:=instruction', 'instruction:=red mug')
    assert work_of(robot.result_of(robot.see()))['forced'] == ['red mug']
    assert robot.set('answer', 'generate') == (True, '')
    assert work_of(robot.result_of(robot.see()))['forced'] is None

"""The pipeline from a frame and a query to an answer, with a fake engine, depth and caller."""

from types import SimpleNamespace

import numpy as np
import pytest

pytest.importorskip('rclpy', reason='needs ROS 2 or its wheels')

from builtin_interfaces.msg import Time
from pipeline_world import STEPS, answer, camera_frame
from std_msgs.msg import Header

from instructsam.core import CancelledError, InstructionError
from instructsam_ros.conversions.images import ImageFormatError
from instructsam_ros.pipeline import localization
from instructsam_ros.pipeline.answer import CutOffError
from instructsam_ros.pipeline.localization import TransformError
from instructsam_ros.pipeline.protocols import Transform
from instructsam_ros.pipeline.settings import INSTRUCTION


def test_steps_in_order(world, trackers):
    result = answer(world, trackers, camera_frame())
    encoding, segmenting, locating = STEPS
    assert world.log == [encoding, 'encode', segmenting, 'segment', locating, 'find depth']
    (instance,) = result.result.instances
    assert instance.geometry is not None
    assert instance.track_id == 0
    assert (result.geometry_frame_id, result.geometry_message) == ('camera', '')
    assert list(result.times_ms) == ['conversion', 'image_encoders', 'prefill', 'masks', 'geometry', 'tracking']


def test_settings_reach_the_engine(world, trackers):
    answer(
        world,
        trackers,
        camera_frame(),
        answer=INSTRUCTION,
        score_threshold=0.3,
        max_new_tokens=7,
        time_budget_s=2.0,
        suppress_duplicates=False,
    )
    assert world.engine.arguments == {
        'answer': ['the mugs'],
        'score_threshold': 0.3,
        'max_new_tokens': 7,
        'time_budget_s': 2.0,
        'suppress_duplicates': False,
    }
    answer(world, trackers, camera_frame())
    assert (world.engine.arguments['answer'], world.engine.arguments['time_budget_s']) == (None, None)  # 0 is no limit


def test_message_of_an_answer(world, trackers):
    frame = camera_frame()
    result = answer(world, trackers, frame, target_frame='base')
    message = result.to_msg(frame.header, 'the mugs', 3)
    assert (message.header, message.instruction, message.instruction_id) == (frame.header, 'the mugs', 3)
    assert (message.geometry_frame_id, message.image_encoders_ms) == ('base', 10.0)
    header = result.geometry_header(frame.header)
    assert (header.stamp, header.frame_id) == (frame.header.stamp, 'base')


def test_an_answer_that_a_limit_ended_before_its_first_phrase_is_an_error(world, trackers):
    frame = camera_frame()
    world.engine.finish_reason, world.engine.finds = 'time_budget', 0
    with pytest.raises(CutOffError, match='before its first phrase was complete: raise time_budget_s'):
        answer(world, trackers, frame)
    world.engine.finds = 1
    assert len(answer(world, trackers, frame).result.instances) == 1


# One frame, several queries


def test_the_same_query_is_answered_from_memory(world, trackers):
    frame = camera_frame()
    first = answer(world, trackers, frame)
    world.log.clear()
    again = answer(world, trackers, frame)
    assert world.log == []
    assert again.result is first.result
    assert again.times_ms == {}
    assert first.times_ms


CHANGED = {
    'answer': INSTRUCTION,
    'score_threshold': 0.9,
    'max_new_tokens': 7,
    'time_budget_s': 2.0,
    'suppress_duplicates': False,
    'depth_tolerance_s': 0.1,
    'depth_timeout_s': 0.1,
    'target_frame': 'base',
    'max_megapixels': 1.0,
    'rectified': 'true',
    'frame_tolerance': 'camera=depth',
}


@pytest.mark.parametrize(
    'changed',
    [{'text': 'the cups'}, {'group': 'the mugs'}, *({name: value} for name, value in CHANGED.items())],
    ids=str,
)
def test_another_query_is_not(world, trackers, changed):
    world.info = {'p': [30.0, 0.0, 31.5, 0.0, 0.0, 30.0, 23.5, 0.0, 0.0, 0.0, 1.0, 0.0]}
    frame = camera_frame()
    assert answer(world, trackers, frame).geometry_frame_id == 'camera'
    world.log.clear()
    again = answer(world, trackers, frame, **changed)
    assert again.geometry_frame_id == changed.get('target_frame', 'camera')
    assert 'segment' in world.log
    assert 'encode' not in world.log  # the image is the same
    assert (again.times_ms['image_encoders'], again.times_ms['prefill']) == (0.0, 1.0)  # encoding counts once


@pytest.mark.parametrize('missing', ['depth', 'transform'])
def test_missing_geometry_is_looked_for_again(world, trackers, missing):
    """The depth or the transform may arrive between two queries about a frame; the rest is kept, ids included."""
    transform, frame = world.transform, camera_frame()
    world.has_depth, world.transform = missing != 'depth', None
    first = answer(world, trackers, frame, target_frame='base')
    assert first.geometry_message
    assert answer(world, trackers, frame, target_frame='base').geometry_message == first.geometry_message
    world.has_depth, world.transform = True, transform
    world.log.clear()
    again = answer(world, trackers, frame, target_frame='base')
    assert world.log == [STEPS[2], 'find depth', 'transform camera to base at 7']
    assert (again.geometry_frame_id, again.geometry_message, again.times_ms) == ('base', '', {})
    (instance,) = again.result.instances
    assert (instance.track_id, instance.geometry is None) == (0, False)
    world.log.clear()
    assert answer(world, trackers, frame, target_frame='base').result is again.result
    assert world.log == []


def test_released_frames_are_computed_again(world, trackers):
    frame = camera_frame()
    answer(world, trackers, frame)
    frame.release()
    assert (frame.image, frame.answers) == (None, {})
    world.log.clear()
    answer(world, trackers, frame)
    assert 'encode' in world.log


# Cancellation


@pytest.mark.parametrize(
    ('cancel_at', 'last'),
    [
        (STEPS[0], 'encode'),  # the encoded image may serve another query, so it is finished
        ('encode', 'encode'),
        (STEPS[1], 'segment'),
        ('segment', 'segment'),
        (STEPS[2], 'find depth'),
        ('find depth', 'find depth'),
    ],
)
def test_cancellation_takes_effect_at_the_next_check(world, trackers, cancel_at, last):
    world.cancel_at = cancel_at
    frame = camera_frame()
    with pytest.raises(CancelledError):
        answer(world, trackers, frame)
    assert world.log[-1] == last
    assert frame.answers == {}


def test_a_cancelled_answer_does_not_advance_the_ids(world, trackers):
    world.cancel_at = 'find depth'
    with pytest.raises(CancelledError):
        answer(world, trackers, camera_frame())
    world.cancel_at = None
    assert answer(world, trackers, camera_frame()).result.instances[0].track_id == 0


def test_a_cancelled_answer_keeps_the_encoded_image(world, trackers):
    world.cancel_at = STEPS[1]
    frame = camera_frame()
    with pytest.raises(CancelledError):
        answer(world, trackers, frame)
    world.cancel_at = None
    answer(world, trackers, frame)
    assert world.log.count('encode') == 1


# Depth and transforms


def test_missing_depth_is_a_reason_and_not_an_error(world, trackers):
    world.has_depth = False
    result = answer(world, trackers, camera_frame())
    assert (result.geometry_frame_id, result.geometry_message) == ('', 'no depth image has been received')
    (instance,) = result.result.instances
    assert (instance.geometry, instance.track_id) == (None, 0)
    assert 'geometry' not in result.times_ms
    assert result.geometry_header(Header(frame_id='camera')).frame_id == 'camera'


def test_without_instances_no_depth_is_looked_for(world, trackers):
    world.engine.finds = 0
    result = answer(world, trackers, camera_frame())
    assert 'find depth' not in world.log
    assert (result.geometry_frame_id, result.geometry_message) == ('', '')


@pytest.mark.parametrize(
    ('changes', 'settings', 'says'),
    [
        ({'depth_frame': 'depth'}, {}, "depth is of the frame 'depth', the image of 'camera'"),
        (
            {'info': {'header': Header(frame_id='depth')}},
            {},
            "camera_info is of the frame 'depth', the image of 'camera'",
        ),
        ({'info': {'width': 128}}, {}, 'is of 128 x 48 pixels, the image is of 64 x 48'),
        ({'image_topic': '/image_rect', 'info': {'d': [0.1] * 5}}, {}, 'the image is rectified, but camera_info.p'),
        ({'info': {'d': [0.1] * 5}}, {'rectified': 'true'}, 'the image is rectified, but camera_info.p'),
    ],
    ids=['depth', 'camera info', 'size', 'rectified by name', 'rectified by parameter'],
)
def test_depth_that_does_not_fit_is_a_reason_and_not_an_error(world, trackers, changes, settings, says):
    for name, value in changes.items():
        setattr(world, name, value)
    result = answer(world, trackers, camera_frame(), **settings)
    assert result.geometry_frame_id == ''
    assert says in result.geometry_message
    assert result.result.instances[0].geometry is None


@pytest.mark.parametrize(
    ('changes', 'settings'),
    [
        ({'depth_frame': 'depth'}, {'frame_tolerance': 'camera=depth'}),
        ({'image_topic': '/image_rect', 'info': {'d': [0.1] * 5}}, {'rectified': 'false'}),
    ],
    ids=['frame tolerance', 'raw by parameter'],
)
def test_parameters_say_how_the_messages_are_meant(world, trackers, changes, settings):
    for name, value in changes.items():
        setattr(world, name, value)
    assert answer(world, trackers, camera_frame(), **settings).geometry_frame_id == 'camera'


def test_geometry_moves_to_the_target_frame(world, trackers):
    in_camera = answer(world, trackers, camera_frame()).result.instances[0].geometry
    world.transform = Transform(np.eye(3), np.array([1.0, 2.0, 3.0]))
    result = answer(world, trackers, camera_frame(), target_frame='base')
    assert 'transform camera to base at 7' in world.log
    assert result.geometry_frame_id == 'base'
    moved = result.result.instances[0].geometry
    np.testing.assert_allclose(moved.centroid, in_camera.centroid + np.array([1, 2, 3]))


@pytest.mark.parametrize(
    ('frame', 'target'), [('/camera', 'base'), ('camera', '/base'), ('/camera', 'camera'), ('camera', '/camera')]
)
def test_a_leading_slash_of_a_frame_makes_no_difference(world, trackers, frame, target):
    image = camera_frame(header=Header(frame_id=frame, stamp=Time(sec=7)))
    assert answer(world, trackers, image, target_frame=target).geometry_frame_id == target.strip('/')
    looked_up = [] if target.strip('/') == 'camera' else ['transform camera to base at 7']
    assert [each for each in world.log if each.startswith('transform')] == looked_up


def test_a_reason_is_one_line_of_limited_length(world, trackers, monkeypatch):
    def lookup(target, *_):
        raise TransformError(f'"{target}" does not exist')

    monkeypatch.setattr(world, 'lookup', lookup)
    message = answer(world, trackers, camera_frame(), target_frame='a\nb\x1b[31m').geometry_message
    assert message == r'"a b\x1b[31m" does not exist'
    assert len(answer(world, trackers, camera_frame(), target_frame='x' * 5000).geometry_message) < 1100


def test_a_missing_transform_is_a_reason_and_not_an_error(world, trackers):
    world.transform = None
    result = answer(world, trackers, camera_frame(), target_frame='base')
    assert (result.geometry_frame_id, result.geometry_message) == ('', 'no transform')
    assert result.result.instances[0].geometry is None


def test_depth_and_transform_are_waited_for_together(world, trackers, monkeypatch):
    waits_s, clock_s = [], iter([10.0, 10.3])

    def lookup(target, source, stamp, settings, caller):
        waits_s.append(settings.depth_timeout_s)
        raise TransformError('no transform')

    monkeypatch.setattr(world, 'lookup', lookup)
    monkeypatch.setattr(localization, 'time', SimpleNamespace(perf_counter=lambda: next(clock_s)))
    answer(world, trackers, camera_frame(), target_frame='base', depth_timeout_s=0.5)
    assert waits_s == [pytest.approx(0.2)]


def test_the_camera_s_own_frame_needs_no_transform(world, trackers):
    world.transform = None
    assert answer(world, trackers, camera_frame(), target_frame='camera').geometry_frame_id == 'camera'


# Errors


def test_an_image_that_cannot_be_decoded(world, trackers):
    with pytest.raises(ImageFormatError):
        answer(world, trackers, camera_frame(encoding='rainbow'))
    assert world.log == []


@pytest.mark.parametrize('error', [InstructionError('words'), RuntimeError('out of memory')], ids=repr)
def test_errors_of_the_engine_are_passed_on(world, trackers, error):
    world.engine.error = error
    frame = camera_frame()
    with pytest.raises(type(error), match=str(error)):
        answer(world, trackers, frame)
    assert frame.answers == {}

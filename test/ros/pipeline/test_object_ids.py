"""Object ids of the answers of one instruction: they persist, and the objects are followed while the model works."""

import dataclasses
import threading

import pytest

pytest.importorskip('rclpy', reason='needs ROS 2 or its wheels')

from pipeline_world import MUGS, answer, camera_frame

from instructsam.core import CancelledError
from instructsam.core.spatial.tracking import Tracker
from instructsam_ros.pipeline.tracker_pool import KEPT_TRACKERS


def track_ids(result):
    return [instance.track_id for instance in result.result.instances]


def test_ids_persist_within_a_track_group_only(world, trackers):
    other = dataclasses.replace(MUGS)  # the same words received again
    assert track_ids(answer(world, trackers, camera_frame(1.0))) == [0]
    world.engine.finds = 0
    answer(world, trackers, camera_frame(2.0))
    world.engine.finds = 1
    assert track_ids(answer(world, trackers, camera_frame(3.0))) == [0]
    assert track_ids(answer(world, trackers, camera_frame(4.0), group=other)) == [0]
    assert track_ids(answer(world, trackers, camera_frame(5.0), group=None)) == [-1]


def test_another_query_about_the_same_frame_gets_the_same_ids(world, trackers):
    """A goal with the instruction of the topic and a threshold of its own."""
    frame = camera_frame(1.0)
    assert track_ids(answer(world, trackers, frame)) == [0]
    assert track_ids(answer(world, trackers, frame, score_threshold=0.3)) == [0]
    assert track_ids(answer(world, trackers, camera_frame(2.0))) == [0]


def test_an_older_frame_gets_no_ids(world, trackers):
    answer(world, trackers, camera_frame(2.0))
    assert track_ids(answer(world, trackers, camera_frame(1.0))) == [-1]
    assert track_ids(answer(world, trackers, camera_frame(3.0))) == [0]


def test_objects_are_followed_while_the_model_works(world, trackers, monkeypatch):
    is_followed, segment = threading.Event(), world.engine.segment

    def follow(self, image):
        follow_now(self, image)
        is_followed.set()

    def wait_and_segment(*arguments, **options):
        assert is_followed.wait(20)
        return segment(*arguments, **options)

    follow_now = Tracker.follow
    monkeypatch.setattr(Tracker, 'follow', follow)
    monkeypatch.setattr(world.engine, 'segment', wait_and_segment)
    assert track_ids(answer(world, trackers, camera_frame(1.0))) == [0]


def test_a_frame_before_one_that_was_followed_and_not_answered_gets_no_ids(world, trackers):
    answer(world, trackers, camera_frame(1.0))
    world.cancel_at = 'segment'
    with pytest.raises(CancelledError):
        answer(world, trackers, camera_frame(3.0))
    world.cancel_at = None
    assert track_ids(answer(world, trackers, camera_frame(2.0))) == [-1]
    assert track_ids(answer(world, trackers, camera_frame(3.0))) == [0]


def test_an_error_of_the_flow_is_an_error_of_the_next_answer(world, trackers, monkeypatch):
    follow_now = Tracker.follow

    def follow(self, image):
        raise RuntimeError('no flow')

    monkeypatch.setattr(Tracker, 'follow', follow)
    world.cancel_at = 'segment'
    with pytest.raises(CancelledError):
        answer(world, trackers, camera_frame(1.0))
    world.cancel_at = None
    monkeypatch.setattr(Tracker, 'follow', follow_now)
    with pytest.raises(RuntimeError, match='no flow'):
        answer(world, trackers, camera_frame(2.0))
    assert track_ids(answer(world, trackers, camera_frame(2.0))) == [0]


def test_the_least_recently_used_group_starts_again(world, trackers):
    def next_id(group, received_s):
        result = answer(world, trackers, camera_frame(received_s), group=group)
        return track_ids(result)[0]

    frame = camera_frame(1.0)
    answer(world, trackers, frame, group='first')
    tracker = trackers._tracks['first'].tracker
    for number in range(KEPT_TRACKERS - 1):
        assert next_id(f'mug {number}', 1.0) == 0
    next_id('first', 2.0)  # used again, so that it is not the oldest
    next_id('one more', 1.0)
    assert trackers._tracks['first'].tracker is tracker
    assert 'mug 0' not in trackers._tracks

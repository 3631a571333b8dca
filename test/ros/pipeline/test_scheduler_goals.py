"""The scheduler's decisions about goals, call by call."""

from types import SimpleNamespace

import pytest

pytest.importorskip('rclpy', reason='needs ROS 2 or its wheels')

from scheduler_bench import Bench
from std_msgs.msg import Header

from instructsam_ros.action import Segment
from instructsam_ros.pipeline.camera_frame import CameraFrame
from instructsam_ros.pipeline.scheduling.camera_stream import KEPT_FRAMES, OVERTAKING
from instructsam_ros.pipeline.scheduling.goal import ABORTED
from instructsam_ros.pipeline.scheduling.scheduler import MOST_WAITING_BYTES, GoalWork
from instructsam_ros.pipeline.settings import Settings

NEXT, STAMP = Segment.Goal.NEXT, Segment.Goal.STAMP


@pytest.fixture
def bench():
    return Bench()


def test_goals_go_before_the_streams_which_resume_afterwards(bench):
    bench.scheduler.instruct('the mugs')
    frame = bench.see()
    work = bench.scheduler.next_work()
    request = bench.ask('the cups')
    assert bench.scheduler.is_superseded(work)
    assert not bench.scheduler.is_encoding_superseded(work)  # the goal can be answered on the same frame
    bench.scheduler.postpone(work)
    goal_work = bench.scheduler.next_work()
    assert isinstance(goal_work, GoalWork)
    assert (goal_work.frame, goal_work.requests) == (frame, (request,))
    request.succeed(None, None)
    bench.scheduler.finish_goals(goal_work)
    assert bench.answer_next().frame is frame
    assert bench.statistics.superseded == 0


def test_a_frame_that_the_stream_answers_next_stays_encoded(bench):
    bench.scheduler.instruct('the mugs')
    bench.see()
    bench.answer_next()
    request = bench.ask('the mugs', NEXT)
    frame = bench.see()
    frame.image = 'decoded'
    work = bench.scheduler.next_work()
    assert (work.frame, work.requests) == (frame, (request,))
    bench.scheduler.finish_goals(work)
    assert frame.image == 'decoded'
    assert bench.answer_next().frame is frame


def test_a_goal_whose_image_is_lost_is_aborted(bench):
    bench.see()
    request, other = bench.ask('the mugs', STAMP, stamp=2), bench.ask('the mugs', STAMP, stamp=9)
    bench._seconds += 1  # the image of 2 s is lost
    for _ in range(OVERTAKING - 1):
        bench.see()
    assert request.is_open  # it might have been overtaken
    bench.see()
    assert request.client.outcome.state == ABORTED
    assert 'no image with the stamp 2.000000000 is buffered' in request.client.outcome.answer.message
    assert other.is_open


def test_a_goal_on_another_frame_cancels_the_encoding(bench):
    bench.scheduler.instruct('the mugs')
    bench.see()
    work = bench.scheduler.next_work()
    bench.ask('the cups', own_frame=CameraFrame(SimpleNamespace(header=Header()), 0.0))
    assert bench.scheduler.is_encoding_superseded(work)


def test_a_frame_that_a_goal_takes_is_answered_by_the_stream_too(bench):
    bench.scheduler.instruct('the mugs')
    bench.see()
    bench.answer_next()
    frame = bench.see()
    request = bench.ask('the cups')
    work = bench.scheduler.next_work()
    assert (work.frame, work.requests) == (frame, (request,))
    request.succeed(None, None)
    bench.scheduler.finish_goals(work)
    assert bench.answer_next().frame is frame


def test_goals_are_served_in_order_of_arrival(bench):
    bench.see()
    requests = [bench.ask(f'mug {number}') for number in range(3)]
    assert [bench.scheduler.next_work().requests for _ in requests] == [(request,) for request in requests]


def test_equal_goals_about_the_same_frame_are_joined(bench):
    bench.see()
    same = [bench.ask('the mugs') for _ in range(3)]
    stricter, other = bench.ask('the mugs', score_threshold=0.9), bench.ask('the cups')
    later = bench.ask('the mugs', freshness=NEXT)
    assert bench.scheduler.next_work().requests == tuple(same)
    assert bench.scheduler.next_work().requests == (stricter,)
    assert bench.scheduler.next_work().requests == (other,)
    assert bench.scheduler.next_work() is None
    bench.see()
    assert bench.scheduler.next_work().requests == (later,)


@pytest.mark.parametrize('freshness', [NEXT, STAMP])
def test_a_goal_on_the_newest_frame_does_not_join_one_on_an_older_frame(bench, freshness):
    bench.see()
    older = bench.ask('the mugs', freshness, stamp=2)
    bench.see()
    newest_frame = bench.see()
    newest = bench.ask('the mugs')
    assert bench.scheduler.next_work().requests == (older,)
    work = bench.scheduler.next_work()
    assert (work.frame, work.requests) == (newest_frame, (newest,))


def test_a_goal_on_the_newest_frame_joins_one_that_waited_for_it(bench):
    waited = bench.ask('the mugs', NEXT)
    bench.see()
    newest = bench.ask('the mugs')
    assert bench.scheduler.next_work().requests == (waited, newest)


@pytest.mark.parametrize(
    'changed',
    [{'rectified': 'true'}, {'frame_tolerance': 'a=b'}, {'target_frame': 'base'}, {'depth_tolerance_s': 0.1}],
    ids=str,
)
def test_goals_under_other_parameters_are_not_joined(bench, changed):
    bench.see()
    before = bench.ask('the mugs')
    bench.settings.value = Settings(**changed)
    after = bench.ask('the mugs')
    assert [bench.scheduler.next_work().requests for _ in range(2)] == [(before,), (after,)]


def test_goals_with_their_own_image_are_not_joined(bench):
    frames = [CameraFrame(SimpleNamespace(header=Header()), 0.0) for _ in range(2)]
    requests = [bench.ask('the mugs', own_frame=frame) for frame in frames]
    for frame, request in zip(frames, requests, strict=True):
        work = bench.scheduler.next_work()
        assert (work.frame, work.requests) == (frame, (request,))


def test_a_goal_on_the_newest_frame_does_not_join_one_with_its_own_image(bench):
    bench.see()
    own = bench.ask('the mugs', own_frame=CameraFrame(SimpleNamespace(header=Header()), 0.0))
    newest = bench.ask('the mugs')
    assert bench.scheduler.next_work().requests == (own,)
    assert bench.scheduler.next_work().requests == (newest,)


def test_a_goal_for_the_next_frame_waits_for_it(bench):
    bench.see()
    request = bench.ask(freshness=NEXT)
    assert request.client.stages == [Segment.Feedback.WAITING]
    assert bench.scheduler.next_work() is None
    frame = bench.see()
    assert bench.scheduler.next_work().frame is frame
    assert bench.streams[0].mailbox.counts().used == 1  # counted at once, although the stream may take it later


def test_a_goal_for_a_stamp_gets_that_frame(bench):
    frames = [bench.see() for _ in range(4)]
    assert bench.ask(freshness=STAMP, stamp=2).frame is frames[1]
    assert bench.scheduler.next_work().frame is frames[1]
    later = bench.ask(freshness=STAMP, stamp=6)
    bench.see()
    assert not later.is_ready()
    frame = bench.see()
    assert later.frame is frame


def test_a_goal_for_a_stamp_that_has_passed_is_aborted(bench):
    for _ in range(KEPT_FRAMES + 1):
        bench.see()
    request = bench.ask(freshness=STAMP, stamp=1)
    assert request.client.outcome.state == ABORTED
    assert 'no image with the stamp 1.000000000' in request.client.outcome.answer.message


def test_goals_without_a_session_are_aborted(bench):
    bench.scheduler.deactivate()
    request = bench.ask()
    assert 'the node is not active' in request.client.outcome.answer.message
    assert request.client.stages == []


def test_too_many_waiting_goals_are_aborted(bench):
    bench.settings.value = Settings(max_waiting_goals=3)
    waiting = [bench.ask(freshness=NEXT) for _ in range(3)]
    request = bench.ask(freshness=NEXT)
    assert request.client.outcome.state == ABORTED
    assert '3 goals are waiting already' in request.client.outcome.answer.message
    assert all(each.is_open for each in waiting)


def test_the_images_of_waiting_goals_are_bounded(bench):
    goals = [bench.request() for _ in range(3)]
    for goal in goals:
        goal.size_bytes = MOST_WAITING_BYTES // 2
        bench.scheduler.ask(goal)
    assert [goal.is_open for goal in goals] == [True, True, False]
    assert 'take 1024 MB already' in goals[2].client.outcome.answer.message
    assert bench.ask(freshness=NEXT).is_open  # has no image of its own


def test_ended_goals_do_not_count_as_waiting(bench):
    bench.settings.value = Settings(max_waiting_goals=3)
    bench.see()
    for _ in range(2):
        bench.ask(freshness=NEXT).cancel()
    bench.ask()
    assert bench.scheduler.next_work() is not None
    requests = [bench.ask(freshness=NEXT) for _ in range(3)]
    assert all(request.is_open for request in requests)
    for request in requests:
        request.cancel()
        bench.scheduler.forget(request)
        bench.scheduler.forget(request)  # harmless: the goal may have been answered meanwhile
    assert all(bench.ask(freshness=NEXT).is_open for _ in range(3))


def test_a_canceled_goal_is_never_started(bench):
    bench.see()
    first, second = bench.ask('the mugs'), bench.ask('the cups')
    assert first.cancel()
    assert bench.scheduler.next_work().requests == (second,)
    assert not first.cancel()


def test_running_goals_are_abandoned_when_the_last_one_ends(bench):
    bench.see()
    first, second = bench.ask(), bench.ask()
    work = bench.scheduler.next_work()
    first.cancel()
    assert not bench.scheduler.is_abandoned(work)
    second.cancel()
    assert bench.scheduler.is_abandoned(work)


def test_a_canceled_goal_no_longer_supersedes_the_stream(bench):
    bench.scheduler.instruct('the mugs')
    bench.see()
    work = bench.scheduler.next_work()
    request = bench.ask('the cups')
    request.cancel()
    assert not bench.scheduler.is_superseded(work)


@pytest.mark.parametrize('is_needed', [True, False])
def test_frames_of_goals_are_released_when_nothing_needs_them(bench, is_needed):
    old = bench.see()
    bench.see()
    old.image = 'decoded'
    request = bench.ask(freshness=STAMP, stamp=1)
    work = bench.scheduler.next_work()
    if is_needed:
        bench.ask('the cups', freshness=STAMP, stamp=1)
    request.succeed(None, None)
    bench.scheduler.finish_goals(work)
    assert (old.image == 'decoded') == is_needed


def test_the_frame_of_a_goal_is_kept_if_the_stream_has_it(bench):
    frame = bench.see()
    request = bench.ask()
    work = bench.scheduler.next_work()
    frame.image = 'decoded'
    request.succeed(None, None)
    bench.scheduler.finish_goals(work)
    assert frame.image == 'decoded'


def test_a_camera_that_is_slower_than_its_goals_keeps_few_frames(bench):
    """The frame of a goal is still the newest one as the goal ends; it is released after the next one."""
    frames = []
    for _ in range(5):
        request = bench.ask(freshness=NEXT)
        frames.append(bench.see())
        work = bench.scheduler.next_work()
        work.frame.image = 'decoded'
        request.succeed(None, None)
        bench.scheduler.finish_goals(work)
        assert [frame for frame in frames if frame.image is not None] == frames[-1:]

"""The scheduler's decisions, call by call: no thread, no model, no ROS graph."""

from types import SimpleNamespace

import pytest

pytest.importorskip('rclpy', reason='needs ROS 2 or its wheels')

from builtin_interfaces.msg import Time
from fakes import FakeClient, FakePublisher, FakeSettings
from std_msgs.msg import Header

from instructsam_ros.action import Segment
from instructsam_ros.pipeline.camera_frame import CameraFrame
from instructsam_ros.pipeline.scheduling.camera_stream import KEPT_FRAMES, CameraStream
from instructsam_ros.pipeline.scheduling.goal import ABORTED, GoalRequest
from instructsam_ros.pipeline.scheduling.result_publisher import OutgoingMessage
from instructsam_ros.pipeline.scheduling.scheduler import MOST_WAITING_BYTES, GoalWork, Scheduler, StreamWork
from instructsam_ros.pipeline.scheduling.statistics import Statistics
from instructsam_ros.pipeline.settings import ON_INSTRUCTION, Settings

NEWEST, NEXT, STAMP = Segment.Goal.NEWEST, Segment.Goal.NEXT, Segment.Goal.STAMP


class Bench:
    """A scheduler in a session, its cameras, and shorthands for what the other threads do."""

    def __init__(self, cameras=1):
        self.settings = FakeSettings()
        self.statistics = Statistics()
        self.publisher = FakePublisher()
        names = ['left', 'right', 'rear'][:cameras]
        self.streams = [CameraStream(name, results=None) for name in names]
        self.scheduler = Scheduler(self.streams, self.settings, self.statistics)
        self.scheduler.activate()
        self._seconds = 0

    def see(self, stream=None):
        """Offer a new frame, whose stamp counts up from 1 s."""
        self._seconds += 1
        frame = CameraFrame(SimpleNamespace(header=Header(stamp=Time(sec=self._seconds))), float(self._seconds))
        self.scheduler.offer(stream or self.streams[0], frame)
        return frame

    def request(self, text='the mugs', freshness=NEWEST, stamp=0, score_threshold=0.0, own_frame=None):
        goal = Segment.Goal(instruction=text, freshness=freshness, score_threshold=score_threshold)
        goal.stamp.sec = stamp
        client = FakeClient()
        request = GoalRequest(goal, self.streams[0], self.settings.value, client, own_frame)
        request.client = client
        return request

    def ask(self, *args, **kwargs):
        request = self.request(*args, **kwargs)
        self.scheduler.ask(request)
        return request

    def publish(self, work, *, is_refused=False):
        """Deliver a result of `work`; return whether it was published."""
        message = OutgoingMessage(self.publisher, work)
        return self.scheduler.publish_if_current(work, [message], is_refused=is_refused)

    def answer_next(self):
        """Take the next work and publish its result; return the work."""
        work = self.scheduler.next_work()
        assert self.publish(work)
        return work


@pytest.fixture
def bench():
    return Bench()


# Frames and instructions


def test_no_work_without_an_instruction_a_frame_or_a_session(bench):
    bench.see()
    assert bench.scheduler.next_work() is None
    bench.scheduler.instruct('the mugs')
    bench.scheduler.deactivate()
    bench.see()
    assert bench.scheduler.next_work() is None
    bench.scheduler.activate()
    bench.scheduler.instruct('')
    assert bench.scheduler.next_work() is None
    assert Bench().scheduler.next_work() is None


def test_the_newest_frame_wins(bench):
    instruction = bench.scheduler.instruct('the mugs')
    bench.see(), bench.see()
    newest = bench.see()
    work = bench.scheduler.next_work()
    assert isinstance(work, StreamWork)
    assert (work.frame, work.instruction, work.settings) == (newest, instruction, Settings())
    assert bench.streams[0].mailbox.counts() == (3, 1, 2, 0)


def test_continuous_answers_each_newest_frame_once(bench):
    bench.scheduler.instruct('the mugs')
    bench.see()
    bench.answer_next()
    assert bench.scheduler.next_work() is None
    frame = bench.see()
    assert bench.answer_next().frame is frame


def test_on_instruction_answers_once_per_instruction(bench):
    bench.settings.value = Settings(trigger=ON_INSTRUCTION)
    bench.scheduler.instruct('the mugs')
    bench.see()
    bench.answer_next()
    frame = bench.see()
    assert bench.scheduler.next_work() is None
    assert bench.scheduler.instruct('the mugs').id == 2  # the same text asks again
    assert bench.answer_next().frame is frame
    assert bench.scheduler.next_work() is None


def test_a_new_instruction_is_answered_on_the_frame_at_hand(bench):
    bench.scheduler.instruct('the mugs')
    frame = bench.see()
    bench.answer_next()
    second = bench.scheduler.instruct('the cups')
    work = bench.answer_next()
    assert (work.frame, work.instruction) == (frame, second)


def test_a_new_instruction_supersedes_running_work(bench):
    bench.scheduler.instruct('the mugs')
    frame = bench.see()
    work = bench.scheduler.next_work()
    assert not bench.scheduler.is_superseded(work)
    second = bench.scheduler.instruct('the cups')
    bench.see()
    assert bench.scheduler.is_superseded(work)
    assert not bench.scheduler.is_encoding_superseded(work)  # the encoded image serves the new one
    assert not bench.publish(work)
    assert bench.publisher.published == []
    assert bench.statistics.superseded == 1
    again = bench.answer_next()
    assert (again.frame, again.instruction) == (frame, second)  # first on the encoded frame, then on the newer one
    assert bench.answer_next().frame is not frame


def test_an_instruction_after_a_goal_is_answered_on_the_newest_frame(bench):
    bench.scheduler.instruct('the mugs')
    bench.see()
    work = bench.scheduler.next_work()
    request = bench.ask('the spoons')
    bench.scheduler.postpone(work)
    request.cancel()
    newest = bench.see()
    bench.scheduler.instruct('the cups')
    assert bench.scheduler.next_work().frame is newest


def test_on_instruction_a_new_instruction_cancels_the_encoding_of_an_older_frame(bench):
    bench.settings.value = Settings(trigger=ON_INSTRUCTION)
    bench.scheduler.instruct('the mugs')
    bench.see()
    work = bench.scheduler.next_work()
    bench.scheduler.instruct('the cups')
    assert not bench.scheduler.is_encoding_superseded(work)
    newer = bench.see()
    assert bench.scheduler.is_encoding_superseded(work)
    bench.scheduler.postpone(work)
    assert bench.scheduler.next_work().frame is newer


def test_a_stop_ends_running_work_for_good(bench):
    bench.scheduler.instruct('the mugs')
    bench.see()
    work = bench.scheduler.next_work()
    assert bench.scheduler.instruct('') is None
    assert bench.scheduler.is_superseded(work)
    bench.scheduler.postpone(work)
    assert bench.scheduler.next_work() is None
    assert bench.statistics.superseded == 1


def test_repeating_the_instruction_in_force_changes_nothing(bench):
    instruction = bench.scheduler.instruct('the mugs')
    bench.see()
    work = bench.scheduler.next_work()
    assert bench.scheduler.instruct('the mugs') is instruction
    assert not bench.scheduler.is_superseded(work)
    bench.settings.value = Settings(trigger=ON_INSTRUCTION)
    assert bench.scheduler.instruct('the mugs') is instruction  # still being answered
    assert bench.publish(work)
    bench.settings.value = Settings()
    assert bench.scheduler.instruct('the mugs') is instruction
    bench.settings.value = Settings(trigger=ON_INSTRUCTION)
    assert bench.scheduler.instruct('the mugs') is not instruction


def test_a_refused_instruction_is_not_tried_again(bench):
    bench.scheduler.instruct('bad words')
    bench.see()
    assert bench.publish(bench.scheduler.next_work(), is_refused=True)
    bench.see()
    assert bench.scheduler.next_work() is None
    bench.scheduler.instruct('the mugs')
    assert bench.answer_next().instruction.text == 'the mugs'


def test_an_error_that_is_not_a_refusal_is_tried_again_on_the_next_frame(bench):
    bench.scheduler.instruct('the mugs')
    bench.see()
    assert bench.publish(bench.scheduler.next_work())
    bench.see()
    assert bench.scheduler.next_work() is not None


def test_changed_settings_count_from_the_next_work(bench):
    bench.scheduler.instruct('the mugs')
    bench.see()
    work = bench.scheduler.next_work()
    bench.settings.value = Settings(score_threshold=0.9)
    assert work.settings.score_threshold == 0.5
    bench.publish(work)
    bench.see()
    assert bench.scheduler.next_work().settings.score_threshold == 0.9


# Several cameras


def test_cameras_take_turns():
    bench = Bench(cameras=3)
    bench.scheduler.instruct('the mugs')
    for _ in range(3):
        for stream in bench.streams:
            bench.see(stream)
        assert [bench.answer_next().stream for _ in bench.streams] == bench.streams
        assert bench.scheduler.next_work() is None


def test_a_faster_camera_takes_no_more_turns():
    bench = Bench(cameras=2)
    fast, slow = bench.streams
    bench.scheduler.instruct('the mugs')
    answered = []
    for _ in range(4):
        bench.see(slow)
        for _ in range(2):
            for _ in range(10):
                bench.see(fast)
            answered.append(bench.answer_next().stream.name)
    assert answered == ['left', 'right'] * 4


# Goals


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


# Tasks and the session


def test_tasks_go_first_also_without_a_session():
    scheduler = Scheduler([], FakeSettings(), Statistics())
    tasks = [lambda: None, lambda: None]
    for task in tasks:
        scheduler.submit(task)
    assert [scheduler.next_work() for _ in tasks] == tasks


def test_a_task_supersedes_the_stream(bench):
    bench.scheduler.instruct('the mugs')
    bench.see()
    work = bench.scheduler.next_work()
    bench.scheduler.submit(lambda: None)
    assert bench.scheduler.is_superseded(work)
    assert bench.scheduler.is_encoding_superseded(work)


def test_deactivation_voids_everything(bench):
    bench.scheduler.instruct('the mugs')
    bench.see()
    work = bench.scheduler.next_work()
    running = bench.ask('the cups')
    goal_work = bench.scheduler.next_work()
    waiting = bench.ask('the spoons', freshness=NEXT)
    bench.scheduler.deactivate()
    bench.see()
    assert bench.scheduler.is_superseded(work)
    assert bench.scheduler.is_encoding_superseded(work)
    assert bench.scheduler.is_abandoned(goal_work)
    for request in (running, waiting):
        assert request.client.outcome.state == ABORTED
        assert request.client.outcome.answer.message == 'the node was deactivated'
    bench.scheduler.activate()
    assert not bench.publish(work)  # work of an earlier session stays void
    bench.scheduler.postpone(work)
    assert bench.publisher.published == []
    assert bench.statistics.superseded == 0
    assert not bench.streams[0].must_answer_current
    assert bench.scheduler.next_work() is None  # the frames of the earlier session, and between both, are gone
    assert bench.streams[0].mailbox.counts().received == 1
    assert bench.scheduler.instruction.text == 'the mugs'  # the instruction stays in force
    bench.see()
    assert bench.scheduler.next_work() is not None


def test_close_ends_the_wait_for_work(bench):
    bench.scheduler.instruct('the mugs')
    bench.see()
    assert bench.scheduler.wait_for_work() is not None
    bench.see()
    bench.scheduler.close()
    assert bench.scheduler.is_closed
    assert bench.scheduler.wait_for_work() is None


# Memory


def test_frames_are_released_when_nothing_needs_them(bench):
    bench.scheduler.instruct('the mugs')
    first = bench.see()
    first.image = 'decoded'
    bench.answer_next()
    assert first.image == 'decoded'  # kept for the next instruction
    bench.see()
    bench.scheduler.next_work()
    assert first.image is None


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

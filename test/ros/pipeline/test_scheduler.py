"""The scheduler's decisions about frames, instructions, tasks and sessions, call by call."""

import pytest

pytest.importorskip('rclpy', reason='needs ROS 2 or its wheels')

from fakes import FakeSettings
from scheduler_bench import Bench

from instructsam_ros.action import Segment
from instructsam_ros.pipeline.scheduling.goal import ABORTED
from instructsam_ros.pipeline.scheduling.scheduler import Scheduler, StreamWork
from instructsam_ros.pipeline.scheduling.statistics import Statistics
from instructsam_ros.pipeline.settings import ON_INSTRUCTION, Settings


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


def test_the_same_text_asks_again_beside_a_silent_camera():
    bench = Bench(cameras=2)
    bench.settings.value = Settings(trigger=ON_INSTRUCTION)
    bench.scheduler.instruct('the mugs')
    bench.see()
    assert bench.scheduler.instruct('the mugs').id == 1  # not answered yet
    bench.answer_next()
    assert bench.scheduler.instruct('the mugs').id == 2
    bench.see(bench.streams[1])
    bench.answer_next()
    assert bench.scheduler.instruct('the mugs').id == 2  # the other camera has an image to answer


def test_the_same_text_asks_again_after_it_was_refused():
    bench = Bench(cameras=2)
    bench.settings.value = Settings(trigger=ON_INSTRUCTION)
    bench.scheduler.instruct('the mugs')
    bench.see(), bench.see(bench.streams[1])
    assert bench.publish(bench.scheduler.next_work(), is_refused=True)
    assert bench.scheduler.next_work() is None
    assert bench.scheduler.instruct('the mugs').id == 2
    assert bench.scheduler.next_work() is not None


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
    waiting = bench.ask('the spoons', freshness=Segment.Goal.NEXT)
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

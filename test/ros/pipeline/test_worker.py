"""The worker and its jobs, with a fake engine: results are delivered and counted, and errors do not end the thread."""

import threading
import time
import weakref

import numpy as np
import pytest

pytest.importorskip('rclpy', reason='needs ROS 2 or its wheels')

from builtin_interfaces.msg import Time
from fakes import FakeClient, FakeEngine, FakeResults, FakeSettings
from rclpy.clock import Clock
from std_msgs.msg import Header

from instructsam.core import InstructionError
from instructsam_ros.action import Segment
from instructsam_ros.conversions.instances import image_msg
from instructsam_ros.msg import InstanceArray
from instructsam_ros.pipeline.camera_frame import CameraFrame
from instructsam_ros.pipeline.scheduling import worker
from instructsam_ros.pipeline.scheduling.camera_stream import CameraStream
from instructsam_ros.pipeline.scheduling.error_log import ErrorLog
from instructsam_ros.pipeline.scheduling.goal import ABORTED, CANCELED, SUCCEEDED, GoalRequest
from instructsam_ros.pipeline.scheduling.jobs import JobContext
from instructsam_ros.pipeline.scheduling.scheduler import Scheduler
from instructsam_ros.pipeline.scheduling.statistics import Statistics
from instructsam_ros.pipeline.scheduling.worker import Worker
from instructsam_ros.pipeline.transforms import TransformLookup


class FakeLogger:
    def __init__(self):
        self.errors = []

    def error(self, text):
        self.errors.append(text)


class Bench:
    """A worker whose work the test runs step by step, in its own thread."""

    def __init__(self):
        self.engine, self.results, self.logger = FakeEngine(), FakeResults(), FakeLogger()
        self.statistics = Statistics()
        self.stream = CameraStream('', self.results)
        self.settings = FakeSettings()
        self.scheduler = Scheduler([self.stream], self.settings, self.statistics)
        self.error_log = ErrorLog(self.logger, self.statistics)
        transforms = TransformLookup(create_buffer=None)
        context = JobContext(self.scheduler, transforms, self.statistics, self.error_log, Clock())
        self.worker = Worker(context)
        self.worker.load_model(lambda: self.engine)
        self.scheduler.activate()
        self._frames = 0

    @property
    def published(self):
        return self.results.publisher.published

    def see(self, **fields):
        self._frames += 1
        header = Header(stamp=Time(sec=self._frames), frame_id='camera')
        message = image_msg(np.full((48, 64, 3), 128, np.uint8), header)
        for name, value in fields.items():
            setattr(message, name, value)
        frame = CameraFrame(message, float(self._frames))
        self.scheduler.offer(self.stream, frame)
        return frame

    def ask(self, text='the mugs', **fields):
        client = FakeClient()
        goal = Segment.Goal(instruction=text, **fields)
        own_frame = CameraFrame(goal.image, 0.0) if len(goal.image.data) else None
        request = GoalRequest(goal, self.stream, self.settings.current(), client, own_frame)
        self.scheduler.ask(request)
        return request, client

    def work(self):
        """Do all pending work."""
        while (work := self.scheduler.next_work()) is not None:
            self.worker.run_work(work)


@pytest.fixture
def bench():
    return Bench()


def test_a_result_is_published_and_counted(bench):
    bench.scheduler.instruct('the mugs')
    bench.see()
    bench.work()
    ((text, answer),) = bench.published
    assert text == 'the mugs'
    assert answer.geometry_message == 'no depth image has been received'
    assert (bench.statistics.results, bench.statistics.errors, bench.statistics.last_error) == (1, 0, '')
    assert bench.statistics.last_latency_s > 1e6  # the stamp is of 1970
    steps = {'conversion', 'image_encoders', 'prefill', 'masks', 'tracking', 'messages', 'receive_to_publish'}
    assert set(bench.statistics.percentiles()) == steps


def test_steps_that_are_reused_are_not_counted_as_zero(bench):
    bench.scheduler.instruct('the mugs')
    bench.see()
    bench.work()
    bench.scheduler.instruct('the cups')
    bench.work()
    assert [text for text, _ in bench.published] == ['the mugs', 'the cups']
    assert bench.engine.log.count('encode') == 1
    assert bench.statistics.percentiles()['image_encoders'].p50 == 10
    assert bench.statistics.percentiles()['prefill'].p50 == 3.5  # 6 ms, then 1 ms


def test_superseded_work_is_not_published(bench):
    bench.scheduler.instruct('the mugs')
    bench.see()
    work = bench.scheduler.next_work()
    bench.scheduler.instruct('the cups')
    bench.worker.run_work(work)
    assert bench.published == []
    assert bench.statistics.superseded == 1
    bench.work()
    assert [text for text, _ in bench.published] == ['the cups']


def test_errors_become_results_and_are_logged_once(bench):
    bench.engine.error = RuntimeError('out of\nmemory')
    bench.scheduler.instruct('the mugs')
    for _ in range(3):
        bench.see()
        bench.work()
    assert bench.published == [('the mugs', 'RuntimeError: out of memory')] * 3
    assert (bench.statistics.results, bench.statistics.errors) == (3, 3)
    assert bench.statistics.last_error == 'RuntimeError: out of memory'
    (entry,) = bench.logger.errors
    assert 'Traceback' in entry


def test_a_refused_instruction_is_reported_once_without_a_traceback(bench):
    bench.engine.error = InstructionError('words')
    bench.scheduler.instruct('bad words')
    for _ in range(3):
        bench.see()
        bench.work()
    assert bench.published == [('bad words', 'words')]
    assert bench.logger.errors == ['words']


def test_an_image_that_cannot_be_used_is_an_error_result(bench):
    bench.scheduler.instruct('the mugs')
    bench.see(encoding='rainbow')
    bench.work()
    ((_, text),) = bench.published
    assert 'rainbow' in text
    assert 'Traceback' not in bench.logger.errors[0]


def test_after_close_errors_are_not_published(bench):
    """The node may have been destroyed already."""
    bench.scheduler.instruct('the mugs')
    bench.see(encoding='rainbow')
    work = bench.scheduler.next_work()
    bench.scheduler.close()
    bench.worker.run_work(work)
    assert bench.published == []
    assert bench.logger.errors == []


def test_equal_goals_share_one_answer(bench):
    bench.see()
    clients = [bench.ask(points=points)[1] for points in (False, True)]
    bench.work()
    assert bench.engine.log.count('segment') == 1
    feedback = Segment.Feedback
    for client, has_points in zip(clients, (False, True), strict=True):
        assert client.stages == [feedback.QUEUED, feedback.ENCODING, feedback.SEGMENTING, feedback.LOCATING]
        assert client.outcome.state == SUCCEEDED
        assert client.outcome.answer.status == InstanceArray.STATUS_OK
        assert (client.outcome.points is not None) == has_points
    assert bench.published == []  # goals do not publish on the topic


def test_goals_with_the_instruction_in_force_share_its_ids(bench):
    bench.scheduler.instruct('the mugs')
    bench.see()
    bench.work()
    _, client = bench.ask('the mugs')
    bench.work()
    assert bench.engine.log.count('segment') == 1  # answered from memory
    assert client.outcome.answer.instances[0].track_id == 0


def test_a_goal_with_its_own_image_uses_its_own_depth(bench):
    image = image_msg(np.zeros((48, 64, 3), np.uint8), Header(frame_id='elsewhere'))
    request, client = bench.ask(image=image)
    bench.work()
    answer = client.outcome.answer
    assert (answer.header.frame_id, answer.geometry_message) == ('elsewhere', 'the goal has an image but no depth')
    assert answer.instances[0].track_id == -1
    assert request.frame.image is None  # released


def test_errors_abort_goals(bench):
    bench.engine.error = RuntimeError('out of memory')
    bench.see()
    _, client = bench.ask()
    bench.work()
    assert client.outcome.state == ABORTED
    assert client.outcome.answer.message == 'RuntimeError: out of memory'


def test_an_answer_that_a_limit_ended_is_not_one_without_objects(bench):
    bench.engine.finish_reason, bench.engine.finds = 'token_budget', 0
    bench.scheduler.instruct('the mugs')
    bench.see()
    _, client = bench.ask('the cups')
    bench.work()
    text = client.outcome.answer.message
    assert client.outcome.state == ABORTED
    assert 'ended by the token budget before its first phrase was complete: raise max_new_tokens' in text
    assert bench.published == [('the mugs', text)]
    assert bench.logger.errors == [text]


def test_a_goal_that_is_canceled_while_it_runs(bench):
    bench.see()
    request, client = bench.ask()
    work = bench.scheduler.next_work()
    request.cancel()
    bench.worker.run_work(work)
    assert client.outcome.state == CANCELED
    assert bench.engine.log == ['encode']  # cancelled at the first check
    assert bench.logger.errors == []


def test_the_thread_survives_bugs_and_ends_when_closed(bench):
    reached = threading.Event()

    def fail():
        raise RuntimeError('a bug')

    bench.worker.start()
    bench.scheduler.submit(fail)
    bench.scheduler.submit(reached.set)
    assert reached.wait(30)
    assert bench.logger.errors[0].startswith('unexpected error in the thread of the model: RuntimeError: a bug\n  | ')
    assert bench.worker.close(30)


@pytest.mark.parametrize(
    'error', [MemoryError(), SystemExit(1), KeyboardInterrupt(), RuntimeError('out of memory')], ids=repr
)
def test_nothing_that_the_model_raises_ends_the_thread_or_a_goal_without_an_answer(bench, error):
    bench.engine.error = error
    bench.worker.start()
    bench.scheduler.instruct('the mugs')
    frame = bench.see()
    _, client = bench.ask('the cups')
    answered = threading.Event()
    bench.scheduler.submit(answered.set)
    assert answered.wait(30)
    while len(bench.published) < 1:
        assert bench.worker.is_alive()
    assert client.outcome.state == ABORTED
    assert type(error).__name__ in client.outcome.answer.message
    assert type(error).__name__ in bench.published[0][1]
    assert frame.image is None  # freed, because memory may have been what was missing
    assert bench.worker.close(30)


def test_a_bug_while_an_answer_is_delivered_still_ends_the_goal(bench):
    bench.see()
    request, client = bench.ask()
    request.report_stage = request.succeed = None  # calling them raises
    bench.worker.start()
    assert wait_until(lambda: client.outcome)
    assert client.outcome.state == ABORTED
    assert bench.worker.close(30)


def test_a_bug_while_work_is_chosen_does_not_end_the_thread(bench):
    settings, bench.settings.current = bench.settings.current, None  # calling it raises
    bench.worker.start()
    bench.scheduler.instruct('the mugs')
    bench.see()
    assert wait_until(lambda: bench.statistics.bugs)
    bench.settings.current = settings
    assert wait_until(lambda: bench.published)
    assert bench.worker.close(30)


def wait_until(condition):
    deadline = time.monotonic() + 30
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.005)
    return condition()


def test_the_model_is_loaded_and_unloaded(bench):
    bench.worker.unload_model()
    assert bench.worker.engine is None

    def fail():
        raise RuntimeError('no such model')

    with pytest.raises(RuntimeError, match='no such model'):
        bench.worker.load_model(fail)
    assert bench.worker.engine is None


def test_the_memory_of_a_model_that_does_not_load_is_freed(bench, monkeypatch):
    models, is_held = [], []

    def fail():
        model = FakeEngine()
        models.append(weakref.ref(model))
        raise RuntimeError('out of memory')

    monkeypatch.setattr(worker, 'free_device_memory', lambda: is_held.append(models[0]() is not None))
    with pytest.raises(RuntimeError, match='out of memory') as raised:
        bench.worker.load_model(fail)
    del raised
    bench.work()
    assert is_held == [False]

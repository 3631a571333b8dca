"""No exception of a callback ends the executor, nor disables the callback or its neighbors."""

import socket
import threading
from typing import ClassVar

import pytest

pytest.importorskip('rclpy', reason='needs ROS 2 or its wheels')

import rclpy
from action_msgs.msg import GoalStatus
from lifecycle_msgs.srv import GetState
from rclpy.action import ActionClient, CancelResponse
from rclpy.executors import ExternalShutdownException
from rclpy.task import Future
from rclpy.waitable import NumberOfEntities, Waitable
from std_msgs.msg import String

from instructsam.core.exit_codes import DONE, FAILED
from instructsam_ros.action import Segment
from instructsam_ros.node import guarded_executor
from instructsam_ros.node.guarded_executor import GuardedExecutor
from instructsam_ros.node.segment_action import GoalServer

ERRORS = [RuntimeError('a bug'), MemoryError(), SystemExit(1), KeyboardInterrupt()]


class Bench:
    """A node on a domain of its own, in a guarded executor."""

    def __init__(self, domain_id):
        self.context = rclpy.Context()
        rclpy.init(context=self.context, domain_id=domain_id)
        self.node = rclpy.create_node('tested', context=self.context)
        self.reports, self.calls = [], []
        self.executor = GuardedExecutor(self.report, context=self.context)
        self.executor.add_node(self.node)

    def report(self, where, error):
        self.reports.append((where, error))

    def raise_in_turn(self, *_):
        """Raise each of ERRORS once, then return."""
        self.calls.append(True)
        if len(self.calls) <= len(ERRORS):
            raise ERRORS[len(self.calls) - 1]

    def spin_until(self, condition):
        for _ in range(10_000):
            if condition():
                return True
            self.executor.spin_once(0.1)
        return False

    def close(self):
        self.executor.shutdown()
        self.node.destroy_node()
        self.context.try_shutdown()


@pytest.fixture
def bench(domain_id, monkeypatch):
    monkeypatch.setenv('ROS_AUTOMATIC_DISCOVERY_RANGE', 'LOCALHOST')
    bench = Bench(domain_id)
    yield bench
    bench.close()


@pytest.mark.parametrize('has_handlers', [True, False])
def test_timers_and_subscriptions_go_on(bench, monkeypatch, has_handlers):
    """Also with a version of rclpy that makes its handlers in another way, where the report names no callback."""
    if not has_handlers:
        monkeypatch.delattr(GuardedExecutor, '_make_handler')
    publisher = bench.node.create_publisher(String, 'text', 10)
    bench.node.create_timer(0.01, lambda: publisher.publish(String()))
    bench.node.create_timer(0.01, bench.raise_in_turn)
    heard = []

    def hear(message):
        heard.append(message)
        raise RuntimeError('a bug')

    bench.node.create_subscription(String, 'text', hear, 10)
    assert bench.spin_until(lambda: len(bench.calls) > len(ERRORS) and len(heard) > 3)
    assert {type(error) for _, error in bench.reports} == set(map(type, ERRORS))
    reports = {(where, str(error)) for where, error in bench.reports}
    assert ('the callback of /text' if has_handlers else 'a task', 'a bug') in reports
    assert any('Timer' in where for where, _ in reports) == has_handlers


def test_a_service_answers_after_a_request_that_failed(bench):
    def serve(request, response):
        bench.raise_in_turn()
        return response

    bench.node.create_service(GetState, 'ask', serve)
    client = bench.node.create_client(GetState, 'ask')
    assert bench.spin_until(client.service_is_ready)
    futures = [client.call_async(GetState.Request()) for _ in range(len(ERRORS) + 1)]
    assert bench.spin_until(futures[-1].done)
    assert {where for where, _ in bench.reports} == {'the callback of ask'}


def test_a_message_that_cannot_be_taken_does_not_disable_its_group(bench):
    """Without the guard, neither this subscription nor any other callback of the group would be called again."""
    publisher = bench.node.create_publisher(String, 'text', 10)
    heard, ticks = [], []
    subscription = bench.node.create_subscription(String, 'text', heard.append, 10)
    bench.node.create_timer(0.01, lambda: (ticks.append(True), publisher.publish(String())))
    message_type, subscription.msg_type = subscription.msg_type, None  # taking it raises
    assert bench.spin_until(lambda: bench.reports)
    subscription.msg_type = message_type
    before = len(ticks)
    assert bench.spin_until(lambda: heard and len(ticks) > before)


def test_tasks_and_callbacks_of_futures_go_on(bench):
    async def fail():
        raise RuntimeError('a bug')

    done = []
    bench.executor.create_task(fail)
    bench.executor.create_task(bench.raise_in_turn)
    bench.executor.create_task(lambda: done.append(True))
    assert bench.spin_until(lambda: done and len(bench.reports) == 2)


def test_a_shutdown_from_outside_ends_it(bench):
    bench.node.create_timer(0.01, bench.context.shutdown)
    with pytest.raises(ExternalShutdownException):
        bench.spin_until(lambda: False)
    assert not bench.reports


class BrokenWaitable(Waitable):
    """Lets every wait of the executor fail."""

    def __enter__(self):
        raise RuntimeError('this cannot be waited for')

    def get_num_entities(self):
        return NumberOfEntities()

    def add_to_wait_set(self, wait_set):
        raise RuntimeError('this cannot be waited for')


def test_it_gives_up_when_nothing_works(bench, monkeypatch):
    monkeypatch.setattr(guarded_executor, 'GIVE_UP_S', 0.1)
    bench.node.add_waitable(BrokenWaitable(bench.node.default_callback_group))
    with pytest.raises(RuntimeError, match='cannot be waited for'):
        bench.spin_until(lambda: False)
    assert len(bench.reports) > 1


def test_the_exit_code_says_whether_anything_worked(bench, monkeypatch, capsys):
    before = set(threading.enumerate())
    reader, writer = socket.socketpair()
    ended = []
    writer.send(b'1')
    assert guarded_executor.run('program', bench.executor, reader, at_end=lambda: ended.append(True)) == DONE
    assert ended == [True]
    monkeypatch.setattr(guarded_executor, 'GIVE_UP_S', 0.1)
    bench.node.add_waitable(BrokenWaitable(bench.node.default_callback_group))
    assert guarded_executor.run('program', bench.executor, reader) == FAILED
    assert capsys.readouterr().err == 'program: nothing works any more: RuntimeError: this cannot be waited for\n'
    bench.context.shutdown()
    assert guarded_executor.run('program', bench.executor, reader) == DONE
    writer.close()
    for thread in set(threading.enumerate()) - before:  # those that waited for signals
        thread.join(10)
        assert not thread.is_alive()


def test_a_goal_that_was_accepted_but_not_handed_over_has_an_end(bench):
    """As when its client could not be told; rclpy alone would keep it open, with its images, for good."""

    def fail(handle):
        raise RuntimeError('a bug')

    def execute(handle):
        handle.abort()
        return Segment.Result()

    server = GoalServer(
        bench.node,
        Segment,
        'segment',
        execute,
        handle_accepted_callback=fail,
        end_goal=lambda handle: handle.execute(),
        report=bench.report,
    )
    client = ActionClient(bench.node, Segment, 'segment')
    assert bench.spin_until(client.server_is_ready)
    sent = client.send_goal_async(Segment.Goal())
    assert bench.spin_until(sent.done)
    response = sent.result().get_result_async()
    assert bench.spin_until(response.done)
    assert response.result().status == GoalStatus.STATUS_ABORTED
    assert len(bench.reports) == 1
    client.destroy()
    server.destroy()


def test_a_failing_request_does_not_lose_those_taken_with_it(bench):
    handles = []

    def accept(handle):
        handles.append(handle)
        if len(handles) > 1:
            raise RuntimeError('a bug')
        handle.execute()

    async def execute(handle):
        if handle is handles[0]:
            await released
        handle.abort()
        return Segment.Result()

    released = Future(executor=bench.executor)

    class PatientServer(GoalServer):
        """Waits until it has taken a goal and a cancel request, when there is a goal that can be canceled."""

        taken: ClassVar = {}

        def take_data(self):
            self.taken |= super().take_data()
            if handles and not {'goal', 'cancel'} <= set(self.taken):
                return {}
            taken, self.taken = self.taken, {}
            return dict(sorted(taken.items(), key=lambda each: each[0] != 'goal'))

    server = PatientServer(
        bench.node,
        Segment,
        'segment',
        execute,
        handle_accepted_callback=accept,
        cancel_callback=lambda handle: CancelResponse.ACCEPT,
        end_goal=lambda handle: handle.execute(),
        report=bench.report,
    )
    client = ActionClient(bench.node, Segment, 'segment')
    assert bench.spin_until(client.server_is_ready)
    first = client.send_goal_async(Segment.Goal())
    assert bench.spin_until(first.done)
    client.send_goal_async(Segment.Goal())
    canceled = first.result().cancel_goal_async()
    assert bench.spin_until(canceled.done)
    assert len(canceled.result().goals_canceling) == 1
    assert [str(error) for _, error in bench.reports] == ['a bug']
    released.set_result(None)
    assert bench.spin_until(lambda: not any(handle.is_active for handle in handles))
    client.destroy()
    server.destroy()

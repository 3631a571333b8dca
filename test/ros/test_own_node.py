"""Nodes whose callbacks run in a thread: they end, whatever the thread is doing."""

import threading
import time

import pytest

pytest.importorskip('rclpy', reason='needs ROS 2 or its wheels')

from rclpy import executors

from instructsam_ros.client import Perception, PerceptionError
from instructsam_ros.own_node import OwnNode

TIMEOUT_S = 20


@pytest.fixture(autouse=True)
def own_domain(monkeypatch, domain_id):
    monkeypatch.setenv('ROS_DOMAIN_ID', str(domain_id))
    monkeypatch.setenv('ROS_AUTOMATIC_DISCOVERY_RANGE', 'LOCALHOST')


def hold(monkeypatch, own, is_over):
    """Hold the executor where it has chosen what to wait for, and has not locked it yet.

    It goes on when it has got a task, or when `is_over()`.
    """
    is_held, count = threading.Event(), executors.NumberOfEntities

    def pause(*numbers):
        """Called at that moment."""
        monkeypatch.setattr(executors, 'NumberOfEntities', count)
        is_held.set()
        end_s = time.monotonic() + TIMEOUT_S
        while not own.executor._tasks and not is_over() and time.monotonic() < end_s:
            time.sleep(0.001)
        return count(*numbers)

    monkeypatch.setattr(executors, 'NumberOfEntities', pause)
    own.executor.wake()
    assert is_held.wait(TIMEOUT_S)


def test_a_watch_that_ends_while_the_thread_is_about_to_wait(monkeypatch):
    """Destroyed in another thread, its subscription would raise InvalidHandle in that thread."""

    def end(*_):
        before = len(list(own.node.subscriptions))
        hold(monkeypatch, own, lambda: len(list(own.node.subscriptions)) < before)
        raise PerceptionError('the end')

    with Perception() as perception:
        own, is_running = perception._ros, threading.Event()
        monkeypatch.setattr(perception, '_publish', lambda *_: None)  # no node reads it
        monkeypatch.setattr(perception, '_next_message', end)
        with pytest.raises(PerceptionError, match='the end'):
            next(perception.watch('a mug'))
        own.run_soon(is_running.set)
        assert is_running.wait(TIMEOUT_S)
        assert not list(own.node.subscriptions)


def test_a_stop_while_the_thread_is_about_to_wait(monkeypatch):
    """Rclpy's shutdown would destroy what wakes the thread, which it has chosen, and does not hold yet."""
    own = OwnNode('own')
    own.start_thread()
    hold(monkeypatch, own, lambda: own.executor._guard is None)
    closing = threading.Thread(target=own.close, daemon=True)
    closing.start()
    closing.join(TIMEOUT_S)
    assert not closing.is_alive()


def test_a_node_is_closed_once_or_twice_with_and_without_a_thread():
    for is_threaded in (True, False):
        own = OwnNode('own')
        if is_threaded:
            own.start_thread()
        own.stop()
        own.close()
        assert own.thread is None or not own.thread.is_alive()


def test_nothing_is_run_after_a_stop():
    own = OwnNode('own')
    own.start_thread()
    own.stop()
    own.run_soon(pytest.fail)
    own.close()

"""Nodes whose callbacks run in a thread: they end, whatever the thread is doing."""

import threading
import time

import pytest

pytest.importorskip('rclpy', reason='needs ROS 2 or its wheels')

from rclpy import executors

from instructsam_ros.own_node import OwnNode

TIMEOUT_S = 20


@pytest.fixture(autouse=True)
def own_domain(monkeypatch, domain_id):
    monkeypatch.setenv('ROS_DOMAIN_ID', str(domain_id))
    monkeypatch.setenv('ROS_AUTOMATIC_DISCOVERY_RANGE', 'LOCALHOST')


def test_a_stop_while_the_thread_is_about_to_wait(monkeypatch):
    """Rclpy's shutdown would destroy what wakes the thread, which it has chosen, and does not hold yet."""
    own, is_preparing = OwnNode('own'), threading.Event()
    count = executors.NumberOfEntities

    def pause(*numbers):
        """Called between both; returns when the stop has reached the executor."""
        monkeypatch.setattr(executors, 'NumberOfEntities', count)
        is_preparing.set()
        end_s = time.monotonic() + TIMEOUT_S
        while own.executor._guard is not None and not own.executor._tasks and time.monotonic() < end_s:
            time.sleep(0.001)
        return count(*numbers)

    monkeypatch.setattr(executors, 'NumberOfEntities', pause)
    own.start_thread()
    assert is_preparing.wait(TIMEOUT_S)
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

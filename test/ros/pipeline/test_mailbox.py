"""The single-slot mailbox: the newest message wins, and every message is counted."""

import threading

import pytest

pytest.importorskip('rclpy', reason='needs ROS 2 or its wheels')

from instructsam_ros.pipeline.scheduling.mailbox import Mailbox


def test_newest_message_is_taken_and_the_others_count_as_dropped():
    box = Mailbox()
    for message in 'abc':
        box.put(message)
    assert box.has_message
    assert box.take() == 'c'
    assert not box.has_message
    assert box.counts() == (3, 1, 2, 0)


def test_empty_mailbox_has_nothing_to_take():
    box = Mailbox()
    with pytest.raises(IndexError):
        box.take()
    assert box.counts() == (0, 0, 0, 0)


def test_cleared_message_counts_as_dropped():
    box = Mailbox()
    box.clear()
    box.put('a')
    box.clear()
    assert box.counts() == (1, 0, 1, 0)


def test_counts_add_up_at_every_instant():
    box, done = Mailbox(), threading.Event()

    def take_all():
        while not done.is_set() or box.has_message:
            if box.has_message:
                box.take()

    reader = threading.Thread(target=take_all)
    reader.start()
    for number in range(20_000):
        box.put(number)
        counts = box.counts()
        assert counts.received == number + 1 == counts.used + counts.dropped + counts.waiting
    done.set()
    reader.join(10)
    received, used, dropped, waiting = box.counts()
    assert (received, waiting) == (20_000, 0)
    assert used + dropped == 20_000

"""Images that do not reach the node are counted by where they were lost."""

import signal

import pytest

pytest.importorskip('rclpy', reason='needs ROS 2 or its wheels')

from instructsam_ros.node.lost_images import LostImages

ONE, OTHER = frozenset({b'one'}), frozenset({b'other'})


@pytest.mark.parametrize(
    ('arrivals', 'reported', 'in_queue'),
    [
        ([(ONE, 1), (ONE, 2), (ONE, 3)], 0, 0),
        ([(ONE, 7), (ONE, 10), (ONE, 11)], 0, 2),
        ([(ONE, 1), (ONE, 10)], 3, 5),
        ([(ONE, 1), (ONE, None), (ONE, None)], 3, 0),
        ([(ONE, 9), (OTHER, 1), (OTHER, 4)], 0, 2),
        ([(ONE, 9), (ONE | OTHER, 90), (ONE | OTHER, 10), (ONE | OTHER, 91), (OTHER, 92), (OTHER, 94)], 0, 0),
        ([(ONE | OTHER, 9), (OTHER, 90), (OTHER, 93)], 0, 2),
    ],
    ids=['none', 'in the queue', 'in both', 'no numbers', 'new publisher', 'two publishers', 'one of two ends'],
)
def test_numbers_of_one_publisher_are_counted(arrivals, reported, in_queue):
    current = [ONE]
    lost = LostImages(lambda: current[0])
    lost.in_transport = reported
    for publishers, number in arrivals:
        current[0] = publishers
        lost.note_arrival(number)
    assert (lost.in_queue, lost.total) == (in_queue, in_queue + reported)


def test_images_published_while_the_node_is_inactive_are_not_lost():
    lost = LostImages(lambda: ONE)
    lost.note_arrival(1)
    lost.restart()
    lost.note_arrival(50)
    assert lost.total == 0


def test_images_that_come_while_the_node_is_not_scheduled_are_accounted_for(robot):
    """More than the queue of the subscription and the shared memory of the publisher hold.

    A loss shows by the next image that arrives. The first ones after the pause may be lost as well, until the node has
    emptied the memory.
    """
    node = robot.start_active()
    uncounted = robot.frames - _count(robot)  # those before the discovery
    node.process.send_signal(signal.SIGSTOP)
    for _ in range(60):
        robot.see()
    node.process.send_signal(signal.SIGCONT)
    received, attempts = int(robot.status()['frames_in']), 100
    while int(robot.status()['frames_in']) == received or robot.frames - _count(robot) > uncounted:
        robot.see()
        attempts -= 1
        assert attempts, 'images are missing from the counts'
    assert robot.frames - _count(robot) == uncounted


def _count(robot):
    status = robot.status()
    return sum(int(status[name]) for name in ('frames_in', 'frames_lost_in_transport', 'frames_lost_in_queue'))

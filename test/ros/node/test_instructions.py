"""Instructions of latched and of volatile publishers: each is handled once, whichever subscription it comes through."""

import time
from functools import partial

import pytest

rclpy = pytest.importorskip('rclpy', reason='needs ROS 2 or its wheels')

from rclpy.executors import SingleThreadedExecutor  # noqa: E402
from std_msgs.msg import String  # noqa: E402

from instructsam_ros.node import instruction_subscriber, qos  # noqa: E402
from instructsam_ros.node.instruction_subscriber import InstructionSubscriber  # noqa: E402

pytestmark = pytest.mark.skipif(
    not instruction_subscriber.HAS_MESSAGE_INFO, reason='callbacks do not receive the time of publication here'
)
VOLATILE, LATCHED = qos.INSTRUCTION, qos.LATCHED


class Arrivals:
    """Stands in for the node: gives messages to the two subscriptions in a chosen order."""

    def __init__(self):
        self.heard, self.warnings = [], []
        self.now_s = 0.0
        self._callbacks = {}
        InstructionSubscriber(self, self.heard.append, self.warnings.append, clock=lambda: self.now_s)

    def create_subscription(self, message_type, topic, callback, profile, **_):
        self._callbacks[profile.durability] = callback

    def arrive(self, profile, text, source_ns):
        self._callbacks[profile.durability](String(data=text), {'source_timestamp': source_ns})


V, L = VOLATILE, LATCHED
SECOND = 1_000_000_000


@pytest.mark.parametrize(
    ('arrivals', 'heard'),
    [
        ([(V, 'a', 1)], 'a'),
        ([(L, 'a', 1)], 'a'),
        ([(V, 'a', 1), (L, 'a', 1)], 'a'),
        ([(L, 'a', 1), (V, 'a', 1)], 'a'),
        ([(V, 'a', 1), (V, 'b', 2), (L, 'b', 2)], 'ab'),
        ([(V, 'a', 1), (L, 'b', 2), (V, 'b', 2)], 'ab'),
        # The same text again is a new instruction.
        ([(V, 'a', 1), (L, 'a', 1), (V, 'a', 2), (L, 'a', 2)], 'aa'),
        ([(V, 'a', 1), (V, 'b', 1)], 'ab'),
        # The latched subscription was faster by two: the order of the volatile one decides.
        ([(L, 'b', 2), (V, 'a', 1), (V, 'b', 2)], 'bab'),
        # DDS delivers the history of a publisher when it discovers it.
        ([(V, 'new', 5), (L, 'old', 3)], ['new']),
        ([(L, 'old', 3), (L, 'older', 2)], ['old']),
        ([(V, 'a', 5), (L, 'b', 6)], 'ab'),
        # Another machine's clock may be late, and a clock may be set back.
        ([(V, 'a', 5), (V, 'b', 2), (L, 'b', 2)], 'ab'),
    ],
)
def test_each_publication_is_handled_once(arrivals, heard):
    node = Arrivals()
    for profile, text, source_ns in arrivals:
        node.arrive(profile, text, source_ns)
    assert node.heard == list(heard)


def test_a_new_instruction_of_a_machine_whose_clock_is_behind_is_handled():
    node = Arrivals()
    node.arrive(L, 'a', 100 * SECOND)
    node.now_s = 60.0
    node.arrive(L, 'b', 40 * SECOND)
    assert node.heard == ['a', 'b']
    (warning,) = node.warnings
    for part in ("instruction 'b'", '40.000 s', '100.000 s', 'clock'):
        assert part in warning
    for text, source_ns in (('a', 100 * SECOND), ('b', 40 * SECOND)):  # delivered again when a publisher reconnects
        node.arrive(L, text, source_ns)
    assert node.heard == ['a', 'b']
    assert len(node.warnings) == 1


def test_of_instructions_from_before_the_start_the_newest_one_stays_in_force():
    node = Arrivals()
    node.arrive(L, 'new', 5 * SECOND)
    node.arrive(L, 'old', 3 * SECOND)
    (warning,) = node.warnings
    for part in ("instruction 'old'", '3.000 s', '5.000 s', 'ignored'):
        assert part in warning
    node.now_s = 60.0
    node.arrive(L, 'old', 3 * SECOND)  # its publisher reconnects
    assert node.heard == ['new']
    assert len(node.warnings) == 1


def test_publishers_of_either_durability_are_heard(domain_id, capfd, monkeypatch):
    monkeypatch.setenv('ROS_AUTOMATIC_DISCOVERY_RANGE', 'LOCALHOST')
    context = rclpy.Context()
    rclpy.init(context=context, domain_id=domain_id)
    publisher_node = rclpy.create_node('publishers', context=context)
    publish = {}
    for name, profile in (('latched', LATCHED), ('volatile', VOLATILE)):
        publish[name] = publisher_node.create_publisher(String, 'instruction', profile)
    publish['latched'].publish(String(data='before the start'))

    node = rclpy.create_node('listener', context=context)
    heard = []
    InstructionSubscriber(node, heard.append)
    executor = SingleThreadedExecutor(context=context)
    executor.add_node(node)

    def wait_for(condition):
        deadline = time.monotonic() + 30
        while not condition():
            assert time.monotonic() < deadline, heard
            executor.spin_once(0.1)

    expected = ['before the start']
    wait_for(lambda: heard == expected)
    wait_for(lambda: publish['latched'].get_subscription_count() == 2)
    wait_for(lambda: publish['volatile'].get_subscription_count() == 1)
    wait_for(lambda: len(node.get_publishers_info_by_topic('/instruction')) == 2)
    for name, text in (('latched', 'a'), ('volatile', 'b'), ('volatile', 'b'), ('latched', 'b'), ('latched', 'b')):
        publish[name].publish(String(data=text))
        expected.append(text)
        wait_for(partial(lambda count: len(heard) >= count, len(expected)))
    for _ in range(3):  # a second copy would have arrived together with the first
        executor.spin_once(0.05)
    assert heard == expected
    assert 'incompatible QoS' not in capfd.readouterr().err
    executor.shutdown()
    context.shutdown()

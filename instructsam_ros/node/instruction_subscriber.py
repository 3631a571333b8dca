"""Receives instructions from latched publishers, also those published before the node started, and from all others.

A subscription that receives latched messages does not match a volatile publisher, which is the default of
`ros2 topic pub` and of most nodes. A volatile subscription matches both kinds but receives no earlier messages. With
one of each, a message of a latched publisher arrives twice.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

from rclpy.node import Node
from rclpy.subscription import Subscription
from std_msgs.msg import String

try:
    from rclpy.event_handler import SubscriptionEventCallbacks
except ImportError:  # ROS 2 Humble
    from rclpy.qos_event import SubscriptionEventCallbacks

from instructsam_ros.node import qos

TOPIC = 'instruction'
HAS_MESSAGE_INFO = hasattr(Subscription, 'CallbackType')
"""True if callbacks can receive the time of publication; in Humble they cannot, and volatile messages are ignored."""


class Publication(NamedTuple):
    """Identifies one published message among those of all publishers."""

    source_ns: int  # the publisher's clock
    text: str


class InstructionSubscriber:
    """Calls a function once for each published instruction, in the order of arrival. Used in the executor's thread.

    The volatile subscription is authoritative: it receives every new message. The latched one adds only a message that
    was published after the latest one handled, so neither the second copy of a message nor an instruction that has
    been superseded, which DDS delivers again when it rediscovers a publisher, is handled.
    """

    def __init__(self, node: Node, on_instruction: Callable[[str], None]) -> None:
        """Subscribe `node` to the instructions and pass their texts to `on_instruction`."""
        self._on_instruction = on_instruction
        self._latest = Publication(0, '')
        if not HAS_MESSAGE_INFO:
            node.create_subscription(String, TOPIC, self._on_message_without_info, qos.LATCHED)
            return
        # rclpy's annotations know callbacks of one argument only.
        on_message: Any = self._on_message
        on_latched_message: Any = self._on_latched_message
        node.create_subscription(String, TOPIC, on_message, qos.INSTRUCTION)
        node.create_subscription(
            String,
            TOPIC,
            on_latched_message,
            qos.LATCHED,
            # rclpy would log a warning about each volatile publisher, which the other subscription matches.
            event_callbacks=SubscriptionEventCallbacks(use_default_callbacks=False),
        )

    def _on_message_without_info(self, message: String) -> None:
        self._on_instruction(message.data)

    def _on_message(self, message: String, info: dict[str, int]) -> None:
        publication = Publication(info['source_timestamp'], message.data)
        if publication != self._latest:  # equal: the latched subscription was faster
            self._handle(publication)

    def _on_latched_message(self, message: String, info: dict[str, int]) -> None:
        publication = Publication(info['source_timestamp'], message.data)
        if publication.source_ns > self._latest.source_ns:
            self._handle(publication)

    def _handle(self, publication: Publication) -> None:
        self._latest = publication
        self._on_instruction(publication.text)

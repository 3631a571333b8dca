"""Receives instructions from latched publishers, also those published before the node started, and from all others.

A subscription that receives latched messages does not match a volatile publisher, which is the default of
`ros2 topic pub` and of most nodes. A volatile subscription matches both kinds but receives no earlier messages. With
one of each, a message of a latched publisher arrives twice.
"""

import time
from collections.abc import Callable
from typing import Any, NamedTuple

from rclpy.node import Node
from rclpy.subscription import Subscription
from std_msgs.msg import String

try:
    from rclpy.event_handler import SubscriptionEventCallbacks
except ImportError:  # ROS 2 Humble
    from rclpy.qos_event import SubscriptionEventCallbacks

from instructsam.core.text import shorten
from instructsam_ros.node import qos
from instructsam_ros.pipeline.newest import NewestDict

TOPIC = 'instruction'
DISCOVERY_S = 3.0
"""Time after the first latched message in which others from before the start arrive: Fast DDS repeats the announcement
of a participant after 3 s."""

KNOWN = 10_000
"""Publications that are remembered, each by two numbers."""

HAS_MESSAGE_INFO = hasattr(Subscription, 'CallbackType')
"""True if callbacks can receive the time of publication; in Humble they cannot, and volatile messages are ignored."""


class Publication(NamedTuple):
    """Identifies one published message among those of all publishers."""

    source_ns: int  # the publisher's clock
    text: str


class InstructionSubscriber:
    """Calls a function once for each published instruction, in the order of arrival. Used in the executor's thread.

    The volatile subscription is authoritative: it receives every new message. The latched one adds only messages that
    neither has received before, so neither the second copy of a message nor an instruction that has been superseded,
    which DDS delivers again when it rediscovers a publisher, is handled.

    The messages of several latched publishers from before the start arrive in any order, and only the newest counts.
    Later the times of publication do not decide: they are of the publishers' clocks, which may be behind.
    """

    def __init__(
        self,
        node: Node,
        on_instruction: Callable[[str], None],
        warn: Callable[[str], object] | None = None,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Subscribe `node` to the instructions.

        Args:
            node: The node.
            on_instruction: Called with the text of each instruction.
            warn: Called with a text about each latched message that is older than the latest instruction; None: it is
                logged by the node's logger.
            clock: Returns seconds.
        """
        self._on_instruction = on_instruction
        self._warn = warn or node.get_logger().warning
        self._clock = clock
        self._latest = Publication(0, '')
        self._known: NewestDict[tuple[int, int], bool] = NewestDict(KNOWN)  # publications by their time and text's hash
        self._first_s: float | None = None  # time at which the first latched message arrived
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
        now_s = self._clock()
        if self._first_s is None:
            self._first_s = now_s
        if self._is_known(publication):
            return
        is_older = publication.source_ns < self._latest.source_ns
        is_ignored = is_older and now_s - self._first_s <= DISCOVERY_S
        if is_older:
            effect = 'ignored' if is_ignored else 'handled, as it is new here; is the clock of its machine behind?'
            self._warn(
                f"instruction '{shorten(publication.text)}' was published at {_seconds(publication)}, before the "
                f'latest one, {_seconds(self._latest)}: it is {effect}'
            )
        if is_ignored:
            self._remember(publication)
        else:
            self._handle(publication)

    def _is_known(self, publication: Publication) -> bool:
        return (publication.source_ns, hash(publication.text)) in self._known

    def _remember(self, publication: Publication) -> None:
        self._known[publication.source_ns, hash(publication.text)] = True

    def _handle(self, publication: Publication) -> None:
        self._latest = publication
        self._remember(publication)
        self._on_instruction(publication.text)


def _seconds(publication: Publication) -> str:
    return f'{publication.source_ns * 1e-9:.3f} s'

"""Checks of running nodes: who publishes the topics that a node reads, with which QoS, and at which rate."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from rclpy.qos import QoSCompatibility, QoSProfile, qos_check_compatible
from sensor_msgs.msg import CameraInfo, CompressedImage, Image

from instructsam.core.doctor.check import Check, fault, note, ok
from instructsam.core.text import shorten
from instructsam_ros.node import qos
from instructsam_ros.own_node import OwnNode, split_name

DISCOVERY_S = 1.5  # time to discover the other nodes, before anything is reported as absent
IMAGES = {'sensor_msgs/msg/Image': Image, 'sensor_msgs/msg/CompressedImage': CompressedImage}
STREAMS: dict[str, Any] = {**IMAGES, 'sensor_msgs/msg/CameraInfo': CameraInfo}
"""Types of the topics whose messages are counted, and whose silence is a fault."""

IGNORED = ('/parameter_events', '/rosout', '/clock')


@dataclass
class _Rate:
    """Messages of one topic, counted while they arrive."""

    times_s: list[float] = field(default_factory=list)
    largest: int = 0

    def add(self, message: bytes) -> None:
        self.times_s.append(time.monotonic())
        self.largest = max(self.largest, len(message))

    def describe(self) -> str:
        count, size = len(self.times_s), f'{self.largest / 1e6:.2g} MB each'
        if count < 2:
            return f'{count} message, {size}'
        return f'{(count - 1) / max(self.times_s[-1] - self.times_s[0], 1e-9):.1f} Hz, {size}'


class TopicChecks:
    """Observes topics with a separate node; a context manager.

    Args:
        seconds: Time for which messages are counted.
    """

    def __init__(self, seconds: float = 3.0) -> None:
        self._seconds = seconds
        self._ros = OwnNode('instructsam_doctor')
        self._node = self._ros.node

    def check_node(self, name: str) -> Iterator[Check]:
        """Check a running node: its diagnostics, and every topic that it reads, with its own QoS."""
        name = f'/{name.strip("/")}'
        base, namespace = split_name(name)
        names = self._node.get_node_names_and_namespaces
        if not self._ros.spin(DISCOVERY_S, lambda: (base, namespace) in names()):
            others = sorted({f'{space.rstrip("/")}/{each}' for each, space in names() if each != self._node.get_name()})
            yield fault(
                name,
                f'there is no such node; there are {shorten(", ".join(others)) or "no others either"}',
                'start it, or check its name and that ROS_DOMAIN_ID and the discovery range are the same here',
            )
            return
        self._ros.spin(DISCOVERY_S)  # its endpoints arrive after its name
        yield from self._diagnostics(name)
        subscribed = dict(self._node.get_subscriber_names_and_types_by_node(base, namespace))
        topics = {topic: types for topic, types in subscribed.items() if topic not in IGNORED}
        profiles = {topic: self._profiles_of(base, namespace, topic) for topic in topics}
        yield from self._check(topics, profiles)

    def check_images(self, topics: list[str]) -> Iterator[Check]:
        """Check topics of images with the QoS that the node would read them with."""
        absolute = {f'/{topic.strip("/")}': [] for topic in topics}
        self._ros.spin(DISCOVERY_S, lambda: all(map(self._publishers, absolute)))
        yield from self._check(absolute, {topic: [qos.CAMERA_INPUT] for topic in absolute})

    def _check(self, topics: dict[str, list[str]], profiles: dict[str, list[QoSProfile]]) -> Iterator[Check]:
        rates = {topic: self._count(topic) for topic in topics}
        self._ros.spin(self._seconds)
        for topic, types in topics.items():
            yield from self._check_topic(topic, types, profiles[topic], rates[topic])

    def _check_topic(
        self, topic: str, types: list[str], profiles: list[QoSProfile], rate: _Rate | None
    ) -> Iterator[Check]:
        publishers = self._publishers(topic)
        is_read_as = types or list(IMAGES)
        if not publishers:
            known = [name for name, kinds in self._node.get_topic_names_and_types() if set(kinds) & set(is_read_as)]
            others = [name for name in sorted(known) if name != topic and self._publishers(name)]
            advice = f'published are {shorten(", ".join(others))}: remap it' if others else 'start the camera driver'
            # Only images are missed: depth is optional, and an instruction comes when somebody has one.
            is_optional = types and ('depth' in topic or not set(types) & set(IMAGES))
            yield (note if is_optional else fault)(topic, 'it has no publisher', advice)
            return
        wrong = sorted({publisher.topic_type for publisher in publishers} - set(is_read_as))
        if wrong:
            yield fault(
                topic,
                f'published as {", ".join(wrong)}, read as {", ".join(is_read_as)}: such messages never arrive',
                'remap the topic, or set image_transport or depth_transport',
            )
        for publisher in publishers:
            for profile in profiles:
                compatibility, reason = qos_check_compatible(publisher.qos_profile, profile)
                if compatibility == QoSCompatibility.ERROR:
                    yield fault(
                        topic,
                        f'the QoS of /{publisher.node_name.strip("/")} does not match: {shorten(reason)}',
                        "change the publisher's QoS; docs/node.md#qos names the node's",
                    )
        of = f'{len(publishers)} publisher{"s" if len(publishers) > 1 else ""}'
        if wrong:
            return
        if rate is None:
            yield ok(topic, of)
        elif rate.times_s:
            yield ok(topic, f'{of}, {rate.describe()}')
        else:
            yield fault(
                topic,
                f'{of}, but no message in {self._seconds:g} s',
                'check that the camera streams; large images of a driver on this machine: '
                'docs/node.md#large-images-on-one-machine',
            )

    def _diagnostics(self, name: str) -> Iterator[Check]:
        """Report the node's own diagnostics, which it publishes once per second."""
        found: list[DiagnosticStatus] = []
        node = name.strip('/')

        def keep(message: DiagnosticArray) -> None:
            found.extend(
                s for s in message.status if node in (s.name.split(':')[0].strip('/ '), s.hardware_id.strip('/'))
            )

        subscription = self._node.create_subscription(DiagnosticArray, '/diagnostics', keep, 10)
        self._ros.spin(DISCOVERY_S + 1.0, lambda: found)
        self._node.destroy_subscription(subscription)
        if not found:
            yield note(name, 'it runs, and has published no diagnostics', 'is it an InstructSAM node?')
            return
        status = found[-1]
        if status.level == DiagnosticStatus.OK:
            yield ok(name, status.message)
        elif status.level == DiagnosticStatus.WARN:
            yield note(name, status.message)
        else:
            yield fault(name, status.message, 'see the log of the node, and docs/node.md#diagnostics')

    def _profiles_of(self, node: str, namespace: str, topic: str) -> list[QoSProfile]:
        return [
            info.qos_profile
            for info in self._node.get_subscriptions_info_by_topic(topic)
            if (info.node_name, info.node_namespace) == (node, namespace)
        ]

    def _publishers(self, topic: str) -> list[Any]:
        return [
            info for info in self._node.get_publishers_info_by_topic(topic) if info.node_name != self._node.get_name()
        ]

    def _count(self, topic: str) -> _Rate | None:
        """Count the messages of a stream, as bytes; None if it is not one or has no publisher."""
        kinds = [STREAMS.get(publisher.topic_type) for publisher in self._publishers(topic)]
        if not kinds or kinds[0] is None:
            return None
        kind, rate = kinds[0], _Rate()
        self._node.create_subscription(kind, topic, rate.add, qos.CAMERA_INPUT, raw=True)
        return rate

    def __enter__(self) -> TopicChecks:
        return self

    def __exit__(self, *_: object) -> None:
        self._ros.close()

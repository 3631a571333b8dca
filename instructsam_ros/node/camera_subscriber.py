"""Subscriptions of one camera: images go to the scheduler, depth images and camera infos to the stream's buffer."""

import math
import time
from collections.abc import Callable
from functools import partial
from typing import Any

from rclpy.subscription import Subscription
from sensor_msgs.msg import CameraInfo, CompressedImage, Image

try:
    from rclpy.event_handler import QoSMessageLostInfo, SubscriptionEventCallbacks
except ImportError:  # ROS 2 Humble
    from rclpy.qos_event import QoSMessageLostInfo, SubscriptionEventCallbacks

from instructsam.core.text import shorten
from instructsam_ros.conversions.stamps import nanoseconds
from instructsam_ros.conversions.transports import (
    TRANSPORTS,
    UNREAD_TRANSPORTS,
    message_type,
    split_topic,
    transport_topic,
    type_name,
)
from instructsam_ros.node import qos
from instructsam_ros.node.diagnostics import SILENCE_S
from instructsam_ros.node.instruction_subscriber import HAS_MESSAGE_INFO
from instructsam_ros.node.lifecycle import AsyncLifecycleNode
from instructsam_ros.node.lost_images import LostImages
from instructsam_ros.pipeline.camera_frame import CameraFrame
from instructsam_ros.pipeline.scheduling.camera_stream import CameraStream
from instructsam_ros.pipeline.scheduling.scheduler import Scheduler
from instructsam_ros.pipeline.transforms import TransformLookup

MUCH_LOST = 0.1  # lost images per received image of a camera, above which a warning is logged
SHOWN_TOPICS = 5  # most topics that a log entry names
REMIND_S = 30.0  # time between two warnings about the same problem


class CameraSubscriber:
    """Receives the messages of one camera while it is open. Used in the executor's thread."""

    def __init__(
        self,
        node: AsyncLifecycleNode,
        stream: CameraStream,
        scheduler: Scheduler,
        transforms: TransformLookup,
        on_frame: Callable[[CameraStream, CameraFrame], None] | None = None,
    ) -> None:
        """Create a closed subscriber, which passes every image to `transforms` and `on_frame`."""
        self._node = node
        self._stream = stream
        self._scheduler = scheduler
        self._transforms = transforms
        self._on_frame = on_frame
        self.lost = LostImages(self._publishers)
        self._subscriptions: list[Subscription] = []
        self._last_image_s: float | None = None  # time.monotonic() of the latest image since open()
        self._opened_s = 0.0
        self._next_report_s: dict[str, float] = {}  # {kind: time.monotonic() before which it is not reported again}
        self._stamp_round = 0  # round of the latest image, see StampRounds
        self._transports: dict[str, str] = {}  # {parameter: value}, set by open()
        self._raw_topics: dict[str, str] = {}  # {parameter: absolute topic of the raw images}, set by open()

    def open(self, transports: dict[str, str]) -> None:
        """Create the subscriptions; `transports` is {parameter: value} of the parameters in TRANSPORTS."""
        prefix = f'{self._stream.name}/' if self._stream.name else ''
        self._last_image_s, self._opened_s = None, time.monotonic()
        self._next_report_s.clear()
        self.lost.restart()
        self._transports = transports
        # Resolved first, so that remapping the raw topic moves those of all transports.
        names = {'image_transport': f'{prefix}image', 'depth_transport': f'{prefix}depth'}
        self._raw_topics = {parameter: self._node.resolve_topic_name(name) for parameter, name in names.items()}
        depth = self._stream.depth
        depth.image_topic = self._raw_topics['image_transport']
        lost = SubscriptionEventCallbacks(message_lost=self._on_message_lost)
        on_image = self._on_image if HAS_MESSAGE_INFO else partial(self._on_image, info={})
        # One by one, so that close() finds those before one that fails.
        self._subscriptions.append(self._subscribe('image_transport', on_image, event_callbacks=lost))
        self._subscriptions.append(self._subscribe('depth_transport', depth.put_depth))
        info = self._node.create_subscription(CameraInfo, f'{prefix}camera_info', depth.put_info, qos.CAMERA_INPUT)
        self._subscriptions.append(info)

    def _subscribe(self, parameter: str, callback: Callable[..., None], **options: Any) -> Subscription:
        """Subscribe to the topic of the transport that `parameter` selects."""
        transport = self._transports[parameter]
        topic = transport_topic(self._raw_topics[parameter], transport)
        return self._node.create_subscription(message_type(transport), topic, callback, qos.CAMERA_INPUT, **options)

    def close(self) -> None:
        """Destroy the subscriptions."""
        for subscription in self._subscriptions:
            self._node.destroy_subscription(subscription)
        self._subscriptions = []

    @property
    def silence_s(self) -> float:
        """Seconds since the latest image, or since open()."""
        return time.monotonic() - (self._last_image_s or self._opened_s)

    def warn_if_silent(self) -> None:
        """Log a warning if no image has arrived for too long."""
        silence_s = self.silence_s
        if silence_s <= SILENCE_S or not self._subscriptions or not self._is_due('no image'):
            return
        topic = self._subscriptions[0].topic_name
        publishers = self._node.count_publishers(topic)
        reason = self._explain_silence('image_transport')
        if not (reason or publishers) and (others := self._published_images()):
            shown = ', '.join(others[:SHOWN_TOPICS]) + (', ...' if len(others) > SHOWN_TOPICS else '')
            reason = f'images are published on {shown}; remap the topic `image`'
        text = f'no image on {topic} for {silence_s:.0f} s ({publishers} publishers)'
        self._node.log.warning(f'no image{self._stream.of_camera}', text + (f': {reason}' if reason else ''))

    def warn_if_much_is_lost(self) -> None:
        """Log a warning if many images of this camera are lost before they reach the node."""
        received = self._stream.mailbox.counts().received
        if self.lost.total <= MUCH_LOST * received or not self._subscriptions or not self._is_due('lost images'):
            return
        if self.lost.in_transport > self.lost.in_queue:
            reason = "the buffers of the publisher's middleware are too small (Fast DDS: see config/fastdds_images.xml)"
        else:
            reason = 'the machine is too busy for the node to take them in time; lower the rate or size of the images'
        self._node.log.warning(
            f'lost images{self._stream.of_camera}',
            f'images of {self._subscriptions[0].topic_name}: {received} received, {self.lost.in_transport} lost in '
            f'transport, {self.lost.in_queue} replaced in the queue: {reason}',
        )

    def warn_if_depth_is_elsewhere(self) -> None:
        """Log that no depth arrives: a warning if it is published elsewhere, otherwise once."""
        if not self._subscriptions or self._stream.depth.received or time.monotonic() - self._opened_s <= SILENCE_S:
            return
        if not self._is_due('no depth'):
            return
        kind, topic = f'no depth{self._stream.of_camera}', self._subscriptions[1].topic_name
        if reason := self._explain_silence('depth_transport'):
            self._node.log.warning(kind, f'no depth on {topic}, so nothing is located in 3D: {reason}')
        elif self._is_due('depth is not published', math.inf):
            self._node.log.info(kind, f'no depth on {topic}: results have no 3D geometry')

    def _is_due(self, kind: str, remind_s: float = REMIND_S) -> bool:
        """Return whether `kind` has not been reported for `remind_s` since open(), and note that it is reported now.

        To be called before the search for the reason, which takes time.
        """
        now_s = time.monotonic()
        if now_s < self._next_report_s.get(kind, 0.0):
            return False
        self._next_report_s[kind] = now_s + remind_s
        return True

    def _explain_silence(self, parameter: str) -> str:
        """Return a sentence about another transport of the topic that is published; '' if none is, or if this one is.

        `parameter` is the one that selects the topic's transport.
        """
        raw_topic, transport = self._raw_topics[parameter], self._transports[parameter]
        if self._node.count_publishers(transport_topic(raw_topic, transport)):
            return ''
        for other in (*TRANSPORTS[parameter], *UNREAD_TRANSPORTS):
            topic = transport_topic(raw_topic, other)
            if self._node.count_publishers(topic):
                is_read = other in TRANSPORTS[parameter]
                advice = f'set {parameter} to {other}' if is_read else f'{other} cannot be read'
                return f'it has no publisher, but {topic} has: {advice}'
        return ''

    def _published_images(self) -> list[str]:
        """Return the topics on which other nodes publish images that can be read, with their transport."""
        own = self._node.get_name(), self._node.get_namespace()
        found = []
        for topic, types in self._node.get_topic_names_and_types():
            raw_topic, transport = split_topic(topic)
            if transport in TRANSPORTS['image_transport'] and type_name(message_type(transport)) in types:
                publishers = self._node.get_publishers_info_by_topic(topic)
                if any((each.node_name, each.node_namespace) != own for each in publishers):
                    found.append(f'{shorten(raw_topic)} (image_transport: {transport})')
        return sorted(found)

    def _on_image(self, message: Image | CompressedImage, info: dict[str, Any]) -> None:
        # ROS 2 Humble and some middlewares do not give the number.
        self.lost.note_arrival(info.get('publication_sequence_number'))
        if self._last_image_s is None:
            self._log_first_image(message)
        self._last_image_s = time.monotonic()
        frame = CameraFrame(message, time.perf_counter())
        frame.transform_round = self._transforms.put_image(self._stream.name, nanoseconds(frame.header.stamp))
        self._scheduler.offer(self._stream, frame)
        if self._on_frame is not None:
            self._on_frame(self._stream, frame)
        if frame.stamp_round > self._stamp_round:
            self._stamp_round = frame.stamp_round
            if self._is_due('stamps'):
                self._node.log.info(
                    f'stamps{self._stream.of_camera}',
                    f'the stamps of {self._subscriptions[0].topic_name} went back: a recording has started again, or '
                    'the clock was set back',
                )

    def _log_first_image(self, message: Image | CompressedImage) -> None:
        is_compressed = isinstance(message, CompressedImage)
        form = shorten(message.format if is_compressed else f'{message.width} x {message.height} {message.encoding}')
        kind = f'first image{self._stream.of_camera}'
        self._node.log.info(kind, f'{kind}: {form}')

    def _on_message_lost(self, event: QoSMessageLostInfo) -> None:
        self.lost.in_transport += event.total_count_change

    def _publishers(self) -> frozenset[bytes]:
        publishers = self._node.get_publishers_info_by_topic(self._subscriptions[0].topic_name)
        return frozenset(bytes(publisher.endpoint_gid) for publisher in publishers)

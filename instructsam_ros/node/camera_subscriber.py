"""Subscriptions of one camera: images go to the scheduler, depth images and camera infos to the stream's buffer."""

import time

from rclpy.node import Node
from rclpy.subscription import Subscription
from sensor_msgs.msg import CameraInfo, CompressedImage, Image

try:
    from rclpy.event_handler import QoSMessageLostInfo, SubscriptionEventCallbacks
except ImportError:  # ROS 2 Humble
    from rclpy.qos_event import QoSMessageLostInfo, SubscriptionEventCallbacks

from instructsam_ros.node import qos
from instructsam_ros.node.diagnostics import SILENCE_S
from instructsam_ros.pipeline.camera_frame import CameraFrame
from instructsam_ros.pipeline.scheduling.camera_stream import CameraStream
from instructsam_ros.pipeline.scheduling.scheduler import Scheduler
from instructsam_ros.pipeline.scheduling.statistics import Statistics

MUCH_LOST = 0.1  # lost images per received image, above which a warning is logged
REMIND_S = 30.0  # time between two warnings about the same problem


class CameraSubscriber:
    """Receives the messages of one camera while it is open. Used in the executor's thread."""

    def __init__(self, node: Node, stream: CameraStream, scheduler: Scheduler, statistics: Statistics) -> None:
        self._node = node
        self._stream = stream
        self._scheduler = scheduler
        self._statistics = statistics
        self._subscriptions: list[Subscription] = []
        self._last_image_s: float | None = None  # time.monotonic() of the latest image since open()
        self._opened_s = 0.0
        self._stamp_round = 0  # of the latest image, see StampRounds

    def open(self, *, is_compressed: bool) -> None:
        """Create the subscriptions, to `image/compressed` instead of `image` if `is_compressed`."""
        prefix = f'{self._stream.name}/' if self._stream.name else ''
        self._last_image_s, self._opened_s = None, time.monotonic()
        topic, message_type = self._node.resolve_topic_name(f'{prefix}image'), Image
        if is_compressed:
            topic, message_type = f'{topic}/compressed', CompressedImage
        self._stream.depth.image_topic = topic
        image = self._node.create_subscription(
            message_type,
            topic,
            self._on_image,
            qos.CAMERA_INPUT,
            event_callbacks=SubscriptionEventCallbacks(message_lost=self._on_message_lost),
        )
        depth = self._stream.depth
        self._subscriptions = [
            image,
            self._node.create_subscription(Image, f'{prefix}depth', depth.put_depth, qos.CAMERA_INPUT),
            self._node.create_subscription(CameraInfo, f'{prefix}camera_info', depth.put_info, qos.CAMERA_INPUT),
        ]

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
        if silence_s > SILENCE_S and self._subscriptions:
            topic = self._subscriptions[0].topic_name
            self._node.get_logger().warning(
                f'no image on {topic} for {silence_s:.0f} s ({self._node.count_publishers(topic)} publishers)',
                throttle_duration_sec=REMIND_S,
            )

    def _on_image(self, message: Image | CompressedImage) -> None:
        if self._last_image_s is None:
            self._log_first_image(message)
        self._last_image_s = time.monotonic()
        frame = CameraFrame(message, time.perf_counter())
        self._scheduler.offer(self._stream, frame)
        if frame.stamp_round > self._stamp_round:
            self._stamp_round = frame.stamp_round
            self._node.get_logger().info(
                f'the stamps of {self._subscriptions[0].topic_name} went back: a recording has started again, or the '
                'clock was set back',
                throttle_duration_sec=REMIND_S,
            )

    def _log_first_image(self, message: Image | CompressedImage) -> None:
        is_compressed = isinstance(message, CompressedImage)
        form = message.format if is_compressed else f'{message.width} x {message.height} {message.encoding}'
        of_camera = f' of {self._stream.name}' if self._stream.name else ''
        self._node.get_logger().info(f'first image{of_camera}: {form}')

    def _on_message_lost(self, event: QoSMessageLostInfo) -> None:
        self._statistics.lost += event.total_count_change
        lost, received = self._statistics.lost, self._stream.mailbox.counts().received
        if lost > MUCH_LOST * received:
            self._node.get_logger().warning(
                f'{lost} images were lost on the way to the node, {received} were received: the buffers of the '
                "publisher's middleware are too small (Fast DDS: see config/fastdds_images.xml)",
                throttle_duration_sec=REMIND_S,
            )

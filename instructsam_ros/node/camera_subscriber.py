"""One camera's subscriptions: its images go to the worker, its depth images and camera infos are kept by the stream."""

import time

from sensor_msgs.msg import CameraInfo, CompressedImage, Image

try:
    from rclpy.event_handler import SubscriptionEventCallbacks
except ImportError:  # ROS 2 Humble
    from rclpy.qos_event import SubscriptionEventCallbacks

from instructsam_ros.node import qos
from instructsam_ros.node.diagnostics import SILENCE_S

MUCH_LOST = 0.1  # images, against those that came
REMIND_S = 30.0  # of what goes on being wrong


class Camera:
    """Listens while it is open. Everything runs in the executor's thread."""

    def __init__(self, node, stream, worker, statistics):
        self._node = node
        self._stream = stream
        self._worker = worker
        self._statistics = statistics
        self._subscriptions = []
        self._last_image_s = None  # time.monotonic(); None before the first since it was opened
        self._opened_s = 0.0

    def open(self, is_compressed):
        """Begins to listen."""
        prefix = f'{self._stream.name}/' if self._stream.name else ''
        self._last_image_s, self._opened_s = None, time.monotonic()
        topic, kind = self._node.resolve_topic_name(f'{prefix}image'), Image
        if is_compressed:
            topic, kind = f'{topic}/compressed', CompressedImage
        image = self._node.create_subscription(
            kind,
            topic,
            self._on_image,
            qos.CAMERA_INPUT,
            event_callbacks=SubscriptionEventCallbacks(message_lost=self._on_message_lost),
        )
        depths = self._stream.depths
        self._subscriptions = [
            image,
            self._node.create_subscription(Image, f'{prefix}depth', depths.put, qos.CAMERA_INPUT),
            self._node.create_subscription(CameraInfo, f'{prefix}camera_info', depths.put_info, qos.CAMERA_INPUT),
        ]

    def close(self):
        """Stops listening."""
        for subscription in self._subscriptions:
            self._node.destroy_subscription(subscription)
        self._subscriptions = []

    def silence_s(self, tell):
        """Seconds since the latest image, or since it was opened. tell: where that is long, somebody should know."""
        silence_s = time.monotonic() - (self._last_image_s or self._opened_s)
        if tell and silence_s > SILENCE_S and self._subscriptions:
            topic = self._subscriptions[0].topic_name
            self._node.get_logger().warning(
                f'no image on {topic} for {silence_s:.0f} s ({self._node.count_publishers(topic)} publishers)',
                throttle_duration_sec=REMIND_S,
            )
        return silence_s

    def _on_image(self, message):
        if self._last_image_s is None:
            kind = (
                message.format
                if isinstance(message, CompressedImage)
                else (f'{message.width} x {message.height} {message.encoding}')
            )
            of = f' of {self._stream.name}' if self._stream.name else ''
            self._node.get_logger().info(f'first image{of}: {kind}')
        self._last_image_s = time.monotonic()
        self._worker.offer(self._stream, message)

    def _on_message_lost(self, event):
        self._statistics.lost += event.total_count_change
        lost, received = self._statistics.lost, self._stream.mailbox.counts().received
        if lost > MUCH_LOST * received:
            self._node.get_logger().warning(
                f"{lost} images were lost on the way to the node, {received} came: the publisher's middleware has too "
                'little room for them (Fast DDS: see config/fastdds_images.xml)',
                throttle_duration_sec=REMIND_S,
            )

"""The topics of image_transport: the same images on one topic per transport, below the topic of the raw images.

Why not image_transport itself: its Python bindings are not among the ROS wheels on PyPI, and they do not decode.
"""

from typing import Any

from sensor_msgs.msg import CompressedImage, Image

RAW = 'raw'
COMPRESSED = 'compressed'
COMPRESSED_DEPTH = 'compressedDepth'

TRANSPORTS = {'image_transport': (RAW, COMPRESSED), 'depth_transport': (RAW, COMPRESSED_DEPTH, COMPRESSED)}
"""The transports that are read, by the parameter of the node that selects one. The best come first."""

UNREAD_TRANSPORTS = ('theora', 'ffmpeg', 'foxglove', 'zstd', 'avif')
"""Other plugins of image_transport."""


def transport_topic(raw_topic: str, transport: str) -> str:
    """Return the topic of `transport` for images whose raw topic is `raw_topic`."""
    if transport == RAW:
        return raw_topic
    return f'{raw_topic.removesuffix(f"/{transport}")}/{transport}'


def split_topic(topic: str) -> tuple[str, str]:
    """Return the topic of the raw images and the transport of `topic`."""
    raw_topic, _, transport = topic.rpartition('/')
    if raw_topic and transport in (COMPRESSED, COMPRESSED_DEPTH, *UNREAD_TRANSPORTS):
        return raw_topic, transport
    return topic, RAW


def type_name(type_: Any) -> str:
    """Return the name of a message type as ROS writes it, such as sensor_msgs/msg/Image."""
    return f'{type_.__module__.split(".")[0]}/msg/{type_.__name__}'


def message_type(transport: str) -> type[Image | CompressedImage]:
    """Return the type of the messages of a transport that is read."""
    return Image if transport == RAW else CompressedImage

"""The TF buffer of the node, if tf2_ros is installed."""

import importlib
from types import ModuleType
from typing import Any

from rclpy.node import Node

from instructsam_ros.pipeline.localization import TransformError
from instructsam_ros.pipeline.transforms import TransformLookup

MISSING = (
    'target_frame needs tf2_ros, which is not installed here (Debian package ros-$ROS_DISTRO-tf2-ros-py): leave it '
    "empty to get geometry in the camera's frame"
)


def import_tf2() -> ModuleType:
    """Return the module tf2_ros.

    Raises:
        TransformError: It is not installed.
    """
    try:
        return importlib.import_module('tf2_ros')
    except ImportError as error:
        raise TransformError(MISSING) from error


def create_tf_buffer(node: Node, receiver: TransformLookup) -> Any:
    """Return an empty tf2_ros.Buffer, and pass the transforms that `node` receives from now on to `receiver`.

    Raises:
        TransformError: tf2_ros is not installed.
    """
    tf2 = import_tf2()
    buffer = tf2.Buffer()
    buffer.listener = tf2.TransformListener(receiver, node, spin_thread=False)  # kept alive as long as the buffer
    return buffer

"""Transforms between coordinate frames from TF, if tf2_ros is installed."""

import importlib
from types import ModuleType
from typing import Any

from builtin_interfaces.msg import Time as StampMsg
from rclpy.duration import Duration
from rclpy.node import Node
from rclpy.time import Time

from instructsam_ros.conversions.poses import position_of, rotation_of
from instructsam_ros.pipeline.localization import TransformError
from instructsam_ros.pipeline.protocols import Transform

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


class TransformLookup:
    """TransformSource over TF. Subscribes at the first lookup, so that a node without a target frame does not."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._buffer: Any = None  # tf2_ros.Buffer
        self._listener: Any = None  # tf2_ros.TransformListener

    def lookup(self, target: str, source: str, stamp: StampMsg, timeout_s: float) -> Transform:
        """Return the transform from frame `source` to frame `target` at `stamp`, never that of another time.

        Waits up to timeout_s for it, so it must not be called in the executor's thread.

        Raises:
            TransformError: TF does not have it, or tf2_ros is not installed.
        """
        if self._buffer is None:
            tf2 = import_tf2()
            self._buffer = tf2.Buffer()
            self._listener = tf2.TransformListener(self._buffer, self._node, spin_thread=False)
        try:
            stamped = self._buffer.lookup_transform(
                target, source, Time.from_msg(stamp), timeout=Duration(seconds=timeout_s)
            )
        except Exception as error:  # tf2 raises four types without a common base
            raise TransformError(f"no transform from {source!r} to {target!r} at the image's stamp: {error}") from error
        transform = stamped.transform
        return Transform(rotation_of(transform.rotation), position_of(transform.translation))

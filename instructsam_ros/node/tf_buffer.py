"""The TF buffer of the node, if tf2_ros is installed."""

import importlib
from types import ModuleType
from typing import Any

from geometry_msgs.msg import TransformStamped
from rclpy.node import Node

from instructsam_ros.conversions.stamps import nanoseconds
from instructsam_ros.pipeline.localization import TransformError

MISSING = (
    'target_frame needs tf2_ros, which is not installed here (Debian package ros-$ROS_DISTRO-tf2-ros-py): leave it '
    "empty to get geometry in the camera's frame"
)

RESTART_NS = 1_000_000_000
"""Transforms that go back by more than this mean that time went back; their publishers may overtake each other."""


def import_tf2() -> ModuleType:
    """Return the module tf2_ros.

    Raises:
        TransformError: It is not installed.
    """
    try:
        return importlib.import_module('tf2_ros')
    except ImportError as error:
        raise TransformError(MISSING) from error


def create_tf_buffer(node: Node) -> Any:
    """Return a tf2_ros.Buffer that `node` fills from now on. Raises TransformError if tf2_ros is not installed."""
    tf2 = import_tf2()

    class Buffer(tf2.Buffer):
        """Starts again when the stamps of transforms or images go back, as those of a looped bag or a simulation do.

        tf2 would answer with transforms of the round before, and ignore new ones until they reach the old stamps. Used
        in the executor's thread, apart from lookups.
        """

        def __init__(self) -> None:
            super().__init__()
            self._latest_ns: dict[tuple[str, str], int] = {}  # of what it holds, by parent and child frame

        def set_transform(self, transform: TransformStamped, authority: str) -> None:
            """Store a transform that is not static."""
            frames = transform.header.frame_id, transform.child_frame_id
            stamp_ns = nanoseconds(transform.header.stamp)
            if stamp_ns < self._latest_ns.get(frames, stamp_ns) - RESTART_NS:
                self._start_again()
            self._latest_ns[frames] = stamp_ns
            super().set_transform(transform, authority)

        def restart_at(self, stamp_ns: int) -> None:
            """Start again if there are later transforms: the stamps of a camera's images went back to `stamp_ns`.

            Otherwise the transforms went back before, and those of the new round must be kept.
            """
            if any(latest_ns > stamp_ns + RESTART_NS for latest_ns in self._latest_ns.values()):
                self._start_again()

        def _start_again(self) -> None:
            self.clear()  # keeps static transforms
            self._latest_ns = {}

    buffer = Buffer()
    buffer.listener = tf2.TransformListener(buffer, node, spin_thread=False)  # kept alive as long as the buffer
    return buffer

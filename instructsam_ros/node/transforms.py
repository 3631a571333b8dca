"""Geometry in another frame than the camera's: TF at the image's stamp, where tf2_ros is installed."""

import importlib

import numpy as np
from rclpy.duration import Duration
from rclpy.time import Time
from scipy.spatial.transform import Rotation

MISSING = (
    'target_frame needs tf2_ros, which is not installed here (Debian package ros-$ROS_DISTRO-tf2-ros-py): leave it '
    'empty, and geometry is in the frame of the camera'
)


class TransformError(Exception):
    """There is no transform; the message says from where to where and why."""


def tf2_ros():
    """The module. Raises TransformError where it is not installed."""
    try:
        return importlib.import_module('tf2_ros')
    except ImportError as error:
        raise TransformError(MISSING) from error


class Frames:
    """Listens to TF from the first question on, so that a node without a target frame does not."""

    def __init__(self, node):
        self._node = node
        self._buffer = None

    def listen(self):
        """Begins to collect transforms. Raises TransformError where there is no tf2_ros."""
        if self._buffer is None:
            tf2 = tf2_ros()
            self._buffer = tf2.Buffer()
            self._listener = tf2.TransformListener(self._buffer, self._node, spin_thread=False)

    def between(self, target, source, stamp, timeout_s):
        """(rotation [3, 3], translation [3] m) that take a point of frame `source` to `target`, at `stamp`.

        Never that of another time. Waits up to timeout_s for it, so not in the executor's thread.
        Raises TransformError.
        """
        self.listen()
        try:
            found = self._buffer.lookup_transform(
                target, source, Time.from_msg(stamp), timeout=Duration(seconds=timeout_s)
            ).transform
        except Exception as error:  # tf2's own, which are four
            raise TransformError(f"no transform from {source!r} to {target!r} at the image's stamp: {error}") from error
        turn, move = found.rotation, found.translation
        rotation = Rotation.from_quat([turn.x, turn.y, turn.z, turn.w]).as_matrix()
        return rotation, np.array([move.x, move.y, move.z])

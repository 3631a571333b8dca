"""Transforms between coordinate frames, from a TF buffer."""

from collections.abc import Callable
from typing import Any

from builtin_interfaces.msg import Time as StampMsg
from rclpy.duration import Duration
from rclpy.time import Time

from instructsam.core.errors import GeometryError
from instructsam_ros.conversions.poses import position_of, rotation_of
from instructsam_ros.conversions.stamps import is_set
from instructsam_ros.pipeline.localization import TransformError
from instructsam_ros.pipeline.protocols import Transform


class TransformLookup:
    """TransformSource over TF. Creates its buffer at the first lookup: without a target frame nothing subscribes."""

    def __init__(self, create_buffer: Callable[[], Any]) -> None:
        """Look up in the buffer that `create_buffer` returns (see node/tf_buffer.py)."""
        self._create_buffer = create_buffer
        self._buffer: Any = None  # tf2_ros.Buffer with restart_at()

    def restart_at(self, stamp_ns: int) -> None:
        """Forget the transforms of the round before: the stamps of a camera's images went back to `stamp_ns`."""
        if self._buffer is not None:
            self._buffer.restart_at(stamp_ns)

    def lookup(self, target: str, source: str, stamp: StampMsg, timeout_s: float) -> Transform:
        """Return the transform from frame `source` to frame `target` at `stamp`, never that of another time.

        Waits up to timeout_s for it, so it must not be called in the executor's thread.

        Raises:
            TransformError: TF does not have it, the stamp is not set, or tf2_ros is not installed.
        """
        if not is_set(stamp):  # tf2 would return the latest transform.
            raise TransformError(
                f'no transform from {source!r} to {target!r}: the stamp of the image is 0, which means that it is not '
                'set; its publisher must set header.stamp'
            )
        if self._buffer is None:
            self._buffer = self._create_buffer()
        try:
            stamped = self._buffer.lookup_transform(
                target, source, Time.from_msg(stamp), timeout=Duration(seconds=timeout_s)
            )
        except Exception as error:  # tf2 raises four types without a common base
            raise TransformError(f"no transform from {source!r} to {target!r} at the image's stamp: {error}") from error
        transform = stamped.transform
        try:
            return Transform(rotation_of(transform.rotation), position_of(transform.translation))
        except GeometryError as error:
            raise TransformError(f'the transform from {source!r} to {target!r} cannot be used: {error}') from error

"""Transforms between coordinate frames, from TF."""

import threading
import time
from collections.abc import Callable
from typing import Any

from builtin_interfaces.msg import Time as StampMsg
from geometry_msgs.msg import TransformStamped
from rclpy.time import Time

from instructsam.core.errors import GeometryError
from instructsam.core.text import shorten
from instructsam_ros.conversions.poses import position_of, rotation_of
from instructsam_ros.conversions.stamps import is_set, nanoseconds
from instructsam_ros.pipeline.depth_sync import POLL_S
from instructsam_ros.pipeline.localization import TransformError
from instructsam_ros.pipeline.protocols import Caller, Transform
from instructsam_ros.pipeline.settings import Settings
from instructsam_ros.pipeline.transform_history import TransformHistory


class RoundTransforms:
    """TransformSource of the images of one round of stamps."""

    def __init__(self, transforms: 'TransformLookup', stamp_round: int | None) -> None:
        self._transforms = transforms
        self._round = stamp_round

    def lookup(self, target: str, source: str, stamp: StampMsg, settings: Settings, caller: Caller) -> Transform:
        """Return the transform from frame `source` to frame `target` at `stamp` (see TransformSource)."""
        return self._transforms.lookup(target, source, stamp, settings, self._round, caller.is_cancelled)


class TransformLookup:
    """Looks up transforms in TF, and refuses those that tf2 would guess. Thread-safe.

    The history has everything that arrives, and tf2's buffer only usable transforms; tf2 chains and interpolates.
    """

    def __init__(self, create_buffer: 'Callable[[TransformLookup], Any]') -> None:
        """Create a lookup without a subscription, see subscribe().

        Args:
            create_buffer: Returns a tf2_ros.Buffer, and lets what arrives go to set_transform and set_transform_static
                of its argument (see node/tf_buffer.py).
        """
        self._create_buffer = create_buffer
        self._changed = threading.Condition()  # guards everything below
        self._buffer: Any = None
        self._history = TransformHistory(on_forget=self._clear)

    def subscribe(self) -> None:
        """Subscribe to TF, once; without a target frame nothing needs it. Raises what create_buffer() raises."""
        if self._buffer is None:
            self._buffer = self._create_buffer(self)

    def put_image(self, camera: str, stamp_ns: int) -> int:
        """Return the round of an image for in_round(); called for every image of the cameras in the order of arrival.

        If the stamps of a camera go back, the dynamic transforms of the previous round are forgotten.
        """
        with self._changed:
            return self._history.put_image(camera, stamp_ns)

    def forget(self) -> None:
        """Forget the dynamic transforms: time may have gone back while no image was received."""
        with self._changed:
            self._history.forget()

    def set_transform(self, transform: TransformStamped, authority: str) -> None:
        """Store a dynamic transform; called by tf2's listener, as the next one."""
        with self._changed:
            if self._history.put(transform, is_static=False):
                self._buffer.set_transform(transform, authority)
            self._changed.notify_all()

    def set_transform_static(self, transform: TransformStamped, authority: str) -> None:
        """Store a static transform."""
        with self._changed:
            if self._history.put(transform, is_static=True):
                self._buffer.set_transform_static(transform, authority)
            self._changed.notify_all()

    def in_round(self, stamp_round: int | None) -> RoundTransforms:
        """Return the TransformSource of images for which put_image() returned `stamp_round`; None: of no camera."""
        return RoundTransforms(self, stamp_round)

    def lookup(
        self,
        target: str,
        source: str,
        stamp: StampMsg,
        settings: Settings,
        stamp_round: int | None = None,
        cancelled: Callable[[], bool] | None = None,
    ) -> Transform:
        """Return the transform from frame `source` to frame `target` at `stamp`, never that of another time.

        Waits for it up to depth_timeout_s or until `cancelled()` is true, so it must not be called in the executor's
        thread.

        Raises:
            TransformError: TF does not have it, or its transforms around the stamp do not determine it; or the stamp is
                not set.
        """
        wanted = f"no transform from '{shorten(source)}' to '{shorten(target)}'"
        if not is_set(stamp):  # tf2 would return the latest transform.
            raise TransformError(
                f'{wanted}: the stamp of the image is 0, which means that it is not set; its publisher must set '
                'header.stamp'
            )
        end_s = time.monotonic() + settings.depth_timeout_s
        max_gap_ns = round(settings.tf_max_gap_s * 1e9)
        with self._changed:
            while True:
                if stamp_round not in (None, self._history.newest_round):
                    raise TransformError(
                        f'{wanted}: the stamps of the images have gone back since, and the transforms before are '
                        'forgotten'
                    )
                found = self._find(target, source, stamp, max_gap_ns)
                if isinstance(found, Transform):
                    return found
                left_s = end_s - time.monotonic()
                if left_s <= 0 or (cancelled is not None and cancelled()):
                    raise TransformError(f"{wanted} at the image's stamp: {found}")
                self._changed.wait(min(left_s, POLL_S))  # also ends early, with every transform

    def _find(self, target: str, source: str, stamp: StampMsg, max_gap_ns: int) -> Transform | str:
        """Return the transform, or the reason why there is none."""
        if reason := self._history.gap_in(target, source, nanoseconds(stamp), max_gap_ns):
            return reason
        try:
            transform = self._buffer.lookup_transform(target, source, Time.from_msg(stamp)).transform
            return Transform(rotation_of(transform.rotation), position_of(transform.translation))
        except GeometryError as error:
            return f'it cannot be used: {error}'
        except Exception as error:  # tf2 raises four types without a common base
            return str(error)

    def _clear(self) -> None:
        if self._buffer is not None:
            self._buffer.clear()  # keeps static transforms

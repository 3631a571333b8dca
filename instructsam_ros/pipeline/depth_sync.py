"""Pairs color images with depth images and camera infos by their stamps.

A color image without a matching depth image gets none, and the error gives the reason; nothing is guessed. If a stamp
does not identify one message of a topic, no image is paired.

Why not message_filters: its synchronizers hold back the color image until all its partners have arrived, so an image
whose depth was lost would never be answered. Here only an image that is being answered waits for its depth, for a
limited time, and is answered without 3D if none comes.
"""

import threading
import time
from collections import deque
from collections.abc import Callable
from itertools import islice
from typing import Any, TypeVar

from builtin_interfaces.msg import Time
from sensor_msgs.msg import CameraInfo, CompressedImage, Image

from instructsam.core.errors import InstructSAMError
from instructsam_ros.conversions.stamps import is_set, nanoseconds
from instructsam_ros.pipeline.newest import NewestDict
from instructsam_ros.pipeline.protocols import Caller, DepthPair
from instructsam_ros.pipeline.settings import Settings
from instructsam_ros.pipeline.stamp_rounds import StampRounds

KEPT_DEPTH_IMAGES = 30
"""One second of a camera at 30 Hz."""

RECENT = 10
"""Messages of a topic among which a stamp must not be repeated. The camera stream keeps as many images."""

PAIRED_IMAGES = 2
"""Images among the RECENT ones with a camera info of their stamp, from which on every image needs its own.

One may be a coincidence, or the stamp of a camera info that is published once, or once per second.
"""

LATER_NS = 1_000_000
"""A depth image that is later by more than this shows that no earlier one will arrive."""

LARGEST_TOLERANCE_NS = 1_000_000_000
"""Upper limit of the parameter depth_tolerance_s: a larger difference is no reason to name it."""

INFO_JITTER_NS = 1_000_000_000
"""Stamps of camera infos may go back by this much without a new round: several programs may publish them."""

POLL_S = 0.05
"""Longest wait between two checks for cancellation."""


class NoDepthError(InstructSAMError):
    """A color image has no depth image or no camera info; the message says why."""


def _never() -> bool:
    return False


Key = tuple[int, int]
"""Round and stamp in ns."""

Message = TypeVar('Message')


class Received(NewestDict[Key, Message]):
    """The latest messages of one topic.

    Two recent messages with one stamp that differ are from two cameras or programs, or from a clock that is coarser
    than the rate of the camera. Their rounds do not matter: stamps go back where the messages of one camera are later
    than those of the other. Each of the latest messages may then be the wrong one, also where the other has not arrived
    yet.
    """

    def __init__(self, name: str, size: int) -> None:
        """Keep up to `size` messages; `name` is their plural in errors."""
        super().__init__(size)
        self._name = name
        self._differences: deque[bool] = deque(maxlen=size)  # True: differs from an earlier message with its stamp

    def __setitem__(self, key: Key, message: Message) -> None:
        stamp_ns = key[1]
        recent = islice(reversed(self), RECENT)
        self._differences.append(any(other[1] == stamp_ns and self[other] != message for other in recent))
        super().__setitem__(key, message)

    def clear(self) -> None:
        """Drop all messages and what is known about them."""
        super().clear()
        self._differences.clear()

    def check_stamps(self) -> None:
        """Raise NoDepthError unless each stamp identifies one message."""
        if any(self._differences):
            raise NoDepthError(
                f'several {self._name} have the stamp of the image, or of one shortly before or after it, and differ: '
                'a topic must have the messages of one camera and one publisher, with a stamp for each'
            )


def _contents(info: CameraInfo) -> tuple[Any, ...]:
    """Return the contents of a camera info without its stamp."""
    roi = info.roi
    return (
        info.header.frame_id,
        *(info.height, info.width, info.distortion_model),
        *(tuple(values) for values in (info.d, info.k, info.r, info.p)),
        *(info.binning_x, info.binning_y),
        *(roi.x_offset, roi.y_offset, roi.height, roi.width, roi.do_rectify),
    )


class RoundDepth:
    """DepthSource of the color images of one round of stamps."""

    def __init__(self, buffer: 'DepthBuffer', stamp_round: int, *, is_counted: bool) -> None:
        self._buffer = buffer
        self._round = stamp_round
        self._is_counted = is_counted

    def find_depth(self, stamp: Time, settings: Settings, caller: Caller) -> DepthPair:
        """Find the depth of the color image with `stamp` (see DepthSource)."""
        buffer = self._buffer
        try:
            pair = buffer.find(
                stamp, settings.depth_tolerance_s, settings.depth_timeout_s, caller.is_cancelled, self._round
            )
        except NoDepthError:
            buffer.unpaired += self._is_counted and buffer.received > 0 and not caller.is_cancelled()
            raise
        buffer.paired += self._is_counted
        return pair


class DepthBuffer:
    """The latest depth images and camera infos of one camera. Thread-safe."""

    def __init__(self, size: int = KEPT_DEPTH_IMAGES) -> None:
        """Keep up to `size` messages of each type."""
        self.image_topic = ''  # topic of the color images; its name shows if they are rectified
        self.received = 0  # depth images since the start or clear()
        self.paired = 0  # color images for which a RoundDepth found a depth image
        self.unpaired = 0  # color images for which it found none although depth images are received
        self._changed = threading.Condition()  # guards everything below
        self._rounds = StampRounds()
        self._images: Received[object] = Received('images', RECENT)
        self._depth_images: Received[Image | CompressedImage] = Received('depth images', size)
        self._camera_infos: Received[CameraInfo] = Received('camera infos', size)
        self._newest_info: CameraInfo | None = None
        self._info_round = 0  # round of the newest camera info with a stamp
        # Rounds in which each image needs the camera info of its stamp.
        self._paired_rounds: NewestDict[int, None] = NewestDict(size)
        self._last_contents: deque[tuple[Any, ...]] = deque(maxlen=size)  # contents of the last camera infos
        self._has_unset_stamps = False

    def put_image(self, stamp_ns: int, message: object = None) -> int:
        """Return the round of a color image that has arrived, for in_round(); `message` in any form, to be compared."""
        with self._changed:
            if not stamp_ns:
                return self._rounds.newest
            key = self._rounds.assign('image', stamp_ns), stamp_ns
            self._images[key] = message
            self._note_pairing(key[0])
            return key[0]

    def put_depth(self, message: Image | CompressedImage) -> None:
        """Store a depth image; one without a stamp is counted only, since no color image is paired with it."""
        with self._changed:
            self.received += 1
            if not is_set(message.header.stamp):
                self._has_unset_stamps = True
                return
            stamp_ns = nanoseconds(message.header.stamp)
            key = self._rounds.assign('depth', stamp_ns), stamp_ns
            self._depth_images[key] = message
            self._note_pairing(key[0])
            self._changed.notify_all()

    def put_info(self, message: CameraInfo) -> None:
        """Store a camera info; one without a stamp serves all images as long as the camera infos do not change."""
        with self._changed:
            self._newest_info = message
            self._last_contents.append(_contents(message))
            if is_set(message.header.stamp):
                stamp_ns = nanoseconds(message.header.stamp)
                key = self._rounds.assign('info', stamp_ns, INFO_JITTER_NS), stamp_ns
                self._camera_infos[key] = message
                self._info_round = key[0]
                self._note_pairing(key[0])
            self._changed.notify_all()

    def clear(self) -> None:
        """Drop all messages, and count those that are received from 0 again."""
        with self._changed:
            self.received = 0
            for kept in (self._images, self._depth_images, self._camera_infos, self._paired_rounds):
                kept.clear()
            self._newest_info = None
            self._last_contents.clear()
            self._has_unset_stamps = False

    def in_round(self, stamp_round: int, *, is_counted: bool = True) -> RoundDepth:
        """Return the DepthSource of the images for which put_image() returned `stamp_round`.

        `is_counted` if images with and without depth are counted in `paired` and `unpaired`.
        """
        return RoundDepth(self, stamp_round, is_counted=is_counted)

    def find(
        self,
        stamp: Time,
        tolerance_s: float = 0.0,
        timeout_s: float = 0.0,
        cancelled: Callable[[], bool] = _never,
        stamp_round: int = 0,
    ) -> DepthPair:
        """Return the depth image nearest to `stamp` within the tolerance, and its camera info.

        A zoom or another mode of the camera changes the camera info, and positions computed with that of another image
        are wrong. So once camera infos have had the stamps of images, each image needs the one of its stamp, until a
        round begins in which they have other stamps. If they have other stamps or none, the newest one serves as long
        as the last ones are equal.

        Args:
            stamp: Stamp of the color image.
            tolerance_s: Largest difference between the two stamps.
            timeout_s: Longest wait for a depth image that may still arrive.
            cancelled: Called while waiting; ends the wait by returning true.
            stamp_round: Round of the color image; only depth images of the same round match.

        Raises:
            NoDepthError: There is no such depth image, no camera info, or a stamp is not set.
        """
        if not is_set(stamp):
            raise NoDepthError(
                'the stamp of the image is 0, which means that it is not set, so no depth image can be paired with it: '
                'its publisher must set header.stamp'
            )
        wanted, tolerance = nanoseconds(stamp), round(tolerance_s * 1e9)
        with self._changed:
            self._check_depth_images()
            end_s = time.monotonic() + timeout_s
            while (
                not self.is_decided(wanted, tolerance, stamp_round)
                and (left_s := end_s - time.monotonic()) > 0
                and not cancelled()
            ):
                self._changed.wait(min(left_s, POLL_S))  # also ends early, with every message of the camera
            self._check_depth_images()  # They may have been cleared meanwhile.
            stamps = self._stamps_in(stamp_round)
            if not stamps:
                raise NoDepthError(
                    'the stamps went back (a recording has started again, or the clock was set back), and no depth '
                    "image of the image's round is there"
                )
            nearest = min(stamps, key=lambda other: abs(other - wanted))
            difference = abs(nearest - wanted)
            if difference > tolerance:
                hint = ' (see the parameter depth_tolerance_s)' if difference <= LARGEST_TOLERANCE_NS else ''
                raise NoDepthError(
                    f'no depth image with the stamp of the image, the nearest is {difference * 1e-9:.3f} s off{hint}'
                )
            for received in (self._images, self._depth_images, self._camera_infos):
                received.check_stamps()
            info = self._info_of(stamp_round, wanted, nearest)
            return DepthPair(self._depth_images[stamp_round, nearest], info, self.image_topic)

    def is_decided(self, stamp_ns: int, tolerance_ns: int, stamp_round: int) -> bool:
        """Return whether find() need not wait: depth and camera info have arrived, or certainly will not.

        Args:
            stamp_ns: Stamp of the color image, ns.
            tolerance_ns: Largest difference between the two stamps, ns.
            stamp_round: Round of the color image.
        """
        with self._changed:
            late = stamp_round, stamp_ns + tolerance_ns + LATER_NS
            has_depth = (stamp_round, stamp_ns) in self._depth_images or any(key > late for key in self._depth_images)
            return has_depth and self._is_info_decided(stamp_round, stamp_ns)

    def _is_info_decided(self, stamp_round: int, stamp_ns: int) -> bool:
        """Return whether the camera info of an image has arrived, or will not."""
        if not self._needs_own_info(stamp_round):
            return self._newest_info is not None
        return any(key >= (stamp_round, stamp_ns) for key in self._camera_infos)

    def _note_pairing(self, stamp_round: int) -> None:
        """Note whether camera infos have the stamps of images, or of depth images, in this round."""
        for topic in (self._images, self._depth_images):
            latest = islice(reversed(topic), RECENT)
            if sum(key[0] == stamp_round and key in self._camera_infos for key in latest) >= PAIRED_IMAGES:
                self._paired_rounds[stamp_round] = None

    def _needs_own_info(self, stamp_round: int) -> bool:
        """Return whether an image can be used only with the camera info of its stamp.

        The round of the newest camera info counts as well, because none may have arrived in the round of the image.
        """
        return not self._paired_rounds.keys().isdisjoint((stamp_round, self._info_round))

    def _info_of(self, stamp_round: int, stamp_ns: int, depth_ns: int) -> CameraInfo:
        """Return the camera info of an image and its depth; raise NoDepthError if none is certain to belong."""
        if self._newest_info is None:
            raise NoDepthError('a depth image has been received, but no camera info')
        for key in ((stamp_round, stamp_ns), (stamp_round, depth_ns)):
            if key in self._camera_infos:
                return self._camera_infos[key]
        if self._needs_own_info(stamp_round):
            raise NoDepthError(
                'the camera info with the stamp of the image has not been received, and those of other images do not '
                'count, since the camera may have changed: publish one with each image'
            )
        if len(set(self._last_contents)) > 1:
            raise NoDepthError('the camera infos change, and their stamps are not those of the images')
        return self._newest_info

    def _check_depth_images(self) -> None:
        if self._depth_images:
            return
        if self._has_unset_stamps:
            raise NoDepthError(
                'the stamps of the depth images are 0, which means that they are not set, so none can be paired with '
                'an image: their publisher must set header.stamp'
            )
        raise NoDepthError('no depth image has been received')

    def _stamps_in(self, stamp_round: int) -> list[int]:
        """Return the stamps of the depth images in a round, ns."""
        return [stamp_ns for each_round, stamp_ns in self._depth_images if each_round == stamp_round]

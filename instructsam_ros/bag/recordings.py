"""Recordings that can be replayed: ROS 2 bags and image files, as messages with the time at which each is due."""

import re
from collections.abc import Container, Iterator
from pathlib import Path
from typing import Protocol

from sensor_msgs.msg import Image
from std_msgs.msg import Header

from instructsam.core.errors import ImageError
from instructsam.core.files.image_file import read_image
from instructsam.core.modes import IMAGE_ENDINGS
from instructsam_ros.bag.reader import BagFile
from instructsam_ros.bag.storage.errors import RecordingError as RecordingError
from instructsam_ros.bag.storage.files import BAG_SUFFIXES, SUFFIXES, is_bag
from instructsam_ros.bag.storage.limits import Limits
from instructsam_ros.conversions.instances import image_msg

IMAGE_TOPIC = 'image'  # relative, so that a namespace and a remapping apply
FRAME_ID = 'camera_optical_frame'


class Recording(Protocol):
    """Messages with the time at which each is due.

    Attributes:
        types: {topic: 'package/msg/Name'}.
        period_s: time from the start of one round to the start of the next, s.
        notes: what was odd about the recording, and what is left out of it.
    """

    types: dict[str, str]
    period_s: float
    notes: list[str]

    def messages(self, topics: Container[str]) -> Iterator[tuple[float, str, bytes | Image]]:
        """Yield (time since the first message in s, topic, message) for every message on `topics`.

        A message is either serialized, as it was recorded, or an Image without a stamp.
        """
        ...


def open_recording(path: str | Path, fps: float = 10.0, limits: Limits | None = None) -> Recording:
    """Open a bag (a folder, an .mcap or a .db3 file), an image file, or a folder of image files.

    Args:
        path: the file or folder.
        fps: rate of image files, Hz.
        limits: largest sizes of decompressed data in a bag.

    Raises:
        RecordingError: there is nothing at `path` that can be replayed.
    """
    path = Path(path)
    if not path.exists():
        raise RecordingError(f'{path} does not exist; give a bag, an image file or a folder of image files')
    if is_bag(path) or path.suffix in ('.bag', *BAG_SUFFIXES):
        return RecordedBag(path, limits)
    if path.is_file() and path.suffix.lower() in IMAGE_ENDINGS:
        return ImageFiles([path], fps)
    if not path.is_dir():
        raise RecordingError(
            f'{path} is neither a bag ({", ".join(SUFFIXES)}) nor an image file ({", ".join(IMAGE_ENDINGS)})'
        )
    files = sorted((file for file in path.iterdir() if file.suffix.lower() in IMAGE_ENDINGS), key=_natural_order)
    if not files:
        raise RecordingError(
            f'{path} holds no image files ({", ".join(IMAGE_ENDINGS)}) and no bag (metadata.yaml, '
            f'{", ".join(SUFFIXES)}); give the folder that holds them itself'
        )
    return ImageFiles(files, fps)


def _natural_order(file: Path) -> list[int | str]:
    """Sort key that puts frame_2 before frame_10."""
    return [int(part) if part.isdecimal() else part for part in re.split(r'(\d+)', file.name)]


class RecordedBag:
    """A ROS 2 bag as a Recording."""

    def __init__(self, path: Path, limits: Limits | None = None) -> None:
        self._bag = BagFile(path, limits)
        self.types = self._bag.types
        self.notes = self._bag.notes + [
            f'{count} messages on {topic} are not ROS 2 messages and are left out'
            for topic, count in self._bag.left_out.items()
        ]
        count = self._bag.counts.total()
        # One mean interval separates the last message from the first message of the next round.
        self.period_s = self._bag.duration_s * count / (count - 1) if count > 1 else 1.0

    def messages(self, topics: Container[str]) -> Iterator[tuple[float, str, bytes]]:
        """Yield (time since the first message in s, topic, serialized message) for every message on `topics`."""
        start_ns = None
        for connection, time_ns, data in self._bag.messages(topics):
            start_ns = time_ns if start_ns is None else start_ns
            yield (time_ns - start_ns) * 1e-9, connection.topic, data


class ImageFiles:
    """Image files as a Recording of rgb8 images on the topic `image`."""

    def __init__(self, files: list[Path], fps: float) -> None:
        self.types = {IMAGE_TOPIC: 'sensor_msgs/msg/Image'}
        self.period_s = len(files) / fps
        self.notes: list[str] = []
        self._files = files
        self._fps = fps

    def messages(self, topics: Container[str]) -> Iterator[tuple[float, str, Image]]:
        """Yield (time since the first image in s, topic, image without a stamp) for every file."""
        for index, file in enumerate(self._files):
            try:
                rgb = read_image(file)
            except ImageError as error:
                raise RecordingError(str(error)) from error
            yield index / self._fps, IMAGE_TOPIC, image_msg(rgb, Header(frame_id=FRAME_ID))

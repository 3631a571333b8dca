"""`instructsam bag show`: draws the results in a bag on their images, as a video, an animation or a strip of images."""

import argparse
import os
from collections.abc import Collection, Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import cv2
import numpy as np
from PIL import Image as PillowImage
from rclpy.serialization import deserialize_message
from rich.console import Console
from rich.progress import track
from sensor_msgs.msg import CompressedImage, Image

from instructsam.core.atomic_write import check_path, replaced
from instructsam.core.display.overlay import draw_overlay
from instructsam.core.errors import InstructSAMError, StorageError
from instructsam.core.files.image_file import write_image
from instructsam.core.modes import MAX_MEGAPIXELS_RANGE
from instructsam.core.text import one_line
from instructsam_ros.bag import topics
from instructsam_ros.bag.names import SHOW_SUFFIXES
from instructsam_ros.bag.reader import BagFile, print_notes
from instructsam_ros.bag.recordings import RecordingError
from instructsam_ros.bag.storage.limits import limits_from
from instructsam_ros.conversions.images import to_rgb
from instructsam_ros.conversions.instances import result_from_msg
from instructsam_ros.conversions.stamps import serialized_stamp_ns
from instructsam_ros.msg import InstanceArray
from instructsam_ros.pipeline.newest import NewestDict

Item = TypeVar('Item')

MAX_WAITING_IMAGES = 32  # answered images that wait for their results; a node works on one at a time
MAX_FPS = 60.0
SHORTEST_GIF_MS = 20  # browsers show an image of a GIF that is to last less for 100 ms
PROBED_BYTES = 1 << 16


def show(args: argparse.Namespace) -> int:
    """Write the file and return exit code 0.

    Raises:
        InstructSAMError: the bag has no results that can be drawn, or the file cannot be written.
    """
    path = Path(args.file)
    if path.suffix.lower() not in SHOW_SUFFIXES:
        raise InstructSAMError(f'FILE ends in {", ".join(SHOW_SUFFIXES)}, got {args.file}')
    check_path(path)
    bag = BagFile(args.bag, limits_from(args))
    print_notes(bag)
    overlays = Overlays(bag, args.topic, args.name)
    fps = args.fps or overlays.fps
    if path.suffix.lower() == '.mp4':
        drawn = write_video(path, overlays, fps)
    elif path.suffix.lower() == '.gif':
        drawn = write_animation(path, overlays, fps, args.width)
    else:
        drawn = write_strip(path, overlays, args.frames, args.width)
    print(one_line(f'{drawn} of {len(overlays)} results on {overlays.topic} drawn: {path.resolve()}'))
    return 0


class Overlays:
    """The results in a bag drawn on their images.

    Args:
        bag: A bag with results.
        image: Topic of the images; '' is the only one.
        name: Prefix of the topics of results, if there are several.

    Attributes:
        topic: The topic of the results.
        fps: Results per second.

    Raises:
        RecordingError: The bag has no results, or a topic is missing or ambiguous.
    """

    def __init__(self, bag: BagFile, image: str = '', name: str = '') -> None:
        self._bag = bag
        self.topic = topics.instances_topic(bag, name)
        self._image = topics.image_topic(bag, image)
        self._image_type = CompressedImage if bag.types[self._image] == topics.COMPRESSED else Image
        results = [(time_ns, serialized_stamp_ns(data)) for _, time_ns, data in bag.messages({self.topic})]
        times_ns = [time_ns for time_ns, _ in results]
        self._stamps = {stamp_ns for _, stamp_ns in results}
        interval_s = float(np.median(np.diff(times_ns))) * 1e-9 if len(times_ns) > 1 else 0.0
        self.fps = min(MAX_FPS, 1 / interval_s) if interval_s > 0 else 1.0
        self._count = len(times_ns)

    def __len__(self) -> int:
        """Return the number of results, including those that cannot be drawn."""
        return self._count

    def draw(self, indices: Collection[int] | None = None) -> Iterator[np.ndarray]:
        """Yield the overlay, [H, W, 3] uint8 RGB, of each result, or of those with the given indices.

        Results whose image is not in the bag or cannot be read are skipped.
        """
        images: NewestDict[int | None, bytes] = NewestDict(MAX_WAITING_IMAGES)
        index = -1
        for connection, _, data in self._bag.messages({self.topic, self._image}):
            if connection.topic == self._image:
                stamp_ns = serialized_stamp_ns(data)
                if stamp_ns in self._stamps:  # A node answers few of the images, and seconds later.
                    images[stamp_ns] = data
                continue
            index += 1
            if indices is None or index in indices:
                overlay = self._overlay(deserialize_message(data, InstanceArray), images.get(serialized_stamp_ns(data)))
                if overlay is not None:
                    yield overlay

    def _overlay(self, message: InstanceArray, data: bytes | None) -> np.ndarray | None:
        if data is None:
            return None
        try:
            # The image has been answered, so it was within the limit of that run.
            image = to_rgb(deserialize_message(data, self._image_type), MAX_MEGAPIXELS_RANGE[1])
        except Exception:  # the result is an error that reports the same
            if message.status != InstanceArray.STATUS_ERROR:
                raise
            return None
        result = result_from_msg(message)
        height, width = image.shape[:2]
        if message.status == InstanceArray.STATUS_ERROR:
            result = replace(result, height=height, width=width, warning=f'ERROR: {message.message}')
        if (height, width) != (result.height, result.width):
            raise RecordingError(
                f'a result on {self.topic} is of {result.width} x {result.height} px, but the image with its stamp on '
                f'{self._image} has {width} x {height}; name the topic of the images with --topic'
            )
        return draw_overlay(image, result)


def write_video(path: Path, overlays: Overlays, fps: float) -> int:
    """Write an MP4 (MPEG-4 Part 2, which OpenCV's wheels can encode) of the first overlay's size.

    Returns:
        The number of overlays.
    """
    writer, size, number = None, (0, 0), 0
    with replaced(path) as part:
        try:
            for overlay in progress(overlays.draw(), len(overlays)):
                if writer is None:
                    size = overlay.shape[1] // 2 * 2, overlay.shape[0] // 2 * 2  # the codec requires even sizes
                    _check_space(part)
                    writer = cv2.VideoWriter(str(part), cv2.VideoWriter.fourcc(*'mp4v'), fps, size)
                    if not writer.isOpened():
                        raise InstructSAMError(f'cannot write {path}: OpenCV has no MP4 here; write a .gif instead')
                writer.write(cv2.cvtColor(_resized(overlay, size), cv2.COLOR_RGB2BGR))
                number += 1
        finally:
            if writer is not None:
                writer.release()
        _checked(number, overlays)
        if (held := _frames(part)) != number:
            _check_space(part)
            raise StorageError(f'cannot write {path}: {held} of {number} images can be read back; check the disk')
    return number


def _check_space(part: Path) -> None:
    """Raise OSError if nothing more can be written to the file `part`: OpenCV ignores every error of writing."""
    with part.open('ab') as file:
        size = file.tell()
        file.write(bytes(PROBED_BYTES))
        file.flush()
        os.fsync(file.fileno())
        file.truncate(size)


def _frames(path: Path) -> int:
    """Return the number of images in a video; 0 if it is incomplete, since its index is written last."""
    video = cv2.VideoCapture(str(path))
    try:
        return max(0, int(video.get(cv2.CAP_PROP_FRAME_COUNT)))
    finally:
        video.release()


def write_animation(path: Path, overlays: Overlays, fps: float, width: int) -> int:
    """Write a GIF of overlays at most `width` px wide, with 256 colours each; return their number."""
    images, size = [], None
    for overlay in progress(overlays.draw(), len(overlays)):
        size = size or _size_at_most(overlay, width)
        images.append(PillowImage.fromarray(_resized(overlay, size)).quantize(dither=PillowImage.Dither.NONE))
    _checked(len(images), overlays)
    with replaced(path) as part:
        duration_ms = max(SHORTEST_GIF_MS, round(1000 / fps))
        images[0].save(part, save_all=True, append_images=images[1:], duration=duration_ms, loop=0)
    return len(images)


def write_strip(path: Path, overlays: Overlays, frames: int, width: int) -> int:
    """Write `frames` overlays side by side, evenly spread over the bag, each at most `width` px wide.

    Returns:
        The number of overlays.
    """
    indices = set(np.linspace(0, len(overlays) - 1, frames).round().astype(int).tolist())
    images, size = [], None
    for overlay in progress(overlays.draw(indices), len(indices)):
        size = size or _size_at_most(overlay, width)
        images.append(_resized(overlay, size))
    _checked(len(images), overlays)
    write_image(path, np.hstack(images))
    return len(images)


def _size_at_most(image: np.ndarray, width: int) -> tuple[int, int]:
    """Return the size (width, height) of `image` scaled down to `width` px, or its own if it is not wider."""
    width = min(width, image.shape[1])
    return width, max(1, round(image.shape[0] * width / image.shape[1]))


def _resized(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Return `image` [H, W, 3] at `size` (width, height); scaled down by area, which keeps thin outlines visible."""
    if image.shape[1::-1] == size:
        return image
    is_smaller = image.shape[1] > size[0]
    return cv2.resize(image, size, interpolation=cv2.INTER_AREA if is_smaller else cv2.INTER_CUBIC)


def _checked(number: int, overlays: Overlays) -> int:
    if not number:
        raise RecordingError(f'no result on {overlays.topic} belongs to an image that is in the bag and can be read')
    return number


def progress(items: Iterable[Item], total: int) -> Iterable[Item]:
    """Return the items, with a progress bar on a terminal; total: their number."""
    console = Console(stderr=True)
    return track(items, 'drawing', total=total, console=console, disable=not console.is_terminal)

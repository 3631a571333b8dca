"""`instructsam bag show`: the results in a bag drawn on the images that they are about, as a video or a picture."""

from collections import OrderedDict
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
from PIL import Image as Picture
from rclpy.serialization import deserialize_message
from rich.console import Console
from rich.progress import track
from sensor_msgs.msg import CompressedImage, Image

from instructsam.core.commands.arguments import count, seconds
from instructsam.core.display.overlay import draw_overlay
from instructsam.core.errors import InstructSAMError
from instructsam.core.image_file import check_path, write_image
from instructsam_ros.bag import topics as bag_topics
from instructsam_ros.bag.bag_file import BagFile
from instructsam_ros.bag.offline_camera import stamp_ns
from instructsam_ros.bag.recordings import RecordingError
from instructsam_ros.conversions.images import to_rgb
from instructsam_ros.conversions.instances import result_from_msg
from instructsam_ros.msg import InstanceArray

KEPT_IMAGES = 32  # that wait for their result; one, in a bag that `instructsam bag` wrote
STRIP, WIDTH_PX = 6, 480
MOST_FPS = 60.0
ENDINGS = ('.mp4', '.gif', '.png')


def add_arguments(parser):
    group = parser.add_argument_group('of show', 'together with --topic and --name, where there are several')
    group.add_argument('--fps', type=seconds, metavar='N', help='pictures a second (default: as recorded)')
    group.add_argument(
        '--frames',
        type=count,
        metavar='N',
        default=STRIP,
        help='pictures of a strip, evenly spread (default: %(default)s)',
    )
    group.add_argument(
        '--width',
        type=count,
        metavar='PX',
        default=WIDTH_PX,
        help='at most, of a GIF or each picture of a strip (default: %(default)s)',
    )


def run(args):
    """Writes what the command names; returns exit code 0. Raises InstructSAMError and RecordingError."""
    path = Path(args.file or '')
    if path.suffix.lower() not in ENDINGS:
        raise InstructSAMError(f'FILE ends in {", ".join(ENDINGS)}: instructsam bag show OUT FILE')
    check_path(path)
    shown = Overlays(BagFile(args.output), args.topic, args.name)
    fps = args.fps or shown.fps
    if path.suffix.lower() == '.mp4':
        number = write_video(path, shown, fps)
    elif path.suffix.lower() == '.gif':
        number = write_animation(path, shown, fps, args.width)
    else:
        number = write_strip(path, shown, args.frames, args.width)
    print(f'{number} of {len(shown)} results on {shown.topic} drawn: {path.resolve()}')
    return 0


class Overlays:
    """The overlays in a bag, in order: [H, W, 3] uint8 RGB. `fps` is how many there are a second."""

    def __init__(self, bag, image='', name=''):
        """Raises RecordingError where the bag has no results, or images of several topics and none is named."""
        self._bag = bag
        self.topic = _instances_topic(bag, name)
        self._image = bag_topics.image_topic(bag, image)
        self._kind = CompressedImage if bag.types[self._image] == bag_topics.COMPRESSED else Image
        times_ns = [time_ns for _, time_ns, _ in bag.messages({self.topic})]
        apart_s = np.median(np.diff(times_ns)) * 1e-9 if len(times_ns) > 1 else 0.0
        self.fps = min(MOST_FPS, 1 / apart_s) if apart_s > 0 else 1.0
        self._count = len(times_ns)

    def __len__(self):
        """How many results there are, those included that cannot be drawn."""
        return self._count

    def draw(self, wanted=None):
        """Yields the overlay of each result, or of those whose numbers are in `wanted`; without those on images that
        are not in the bag or cannot be read.
        """
        images, index = OrderedDict(), -1
        for connection, _, data in self._bag.messages({self.topic, self._image}):
            if connection.topic == self._image:
                images[stamp_ns(data)] = data
                if len(images) > KEPT_IMAGES:
                    images.popitem(last=False)
                continue
            index += 1
            if wanted is None or index in wanted:
                overlay = self._overlay(deserialize_message(data, InstanceArray), images.get(stamp_ns(data)))
                if overlay is not None:
                    yield overlay

    def _overlay(self, message, data):
        if data is None:
            return None
        try:
            picture = to_rgb(deserialize_message(data, self._kind))
        except Exception:  # the result, an error, tells of it
            if message.status != message.STATUS_ERROR:
                raise
            return None
        result = result_from_msg(message)
        if message.status == message.STATUS_ERROR:
            result = replace(result, height=len(picture), width=picture.shape[1], warning=f'ERROR: {message.message}')
        if picture.shape[:2] != (result.height, result.width):
            raise RecordingError(
                f'a result on {self.topic} is of {result.width} x {result.height} px, the image of its stamp on '
                f'{self._image} has {picture.shape[1]} x {len(picture)}; name the topic of the images with --topic'
            )
        return draw_overlay(picture, result)


def _instances_topic(bag, name):
    found = sorted(topic for topic, kind in bag.types.items() if kind == bag_topics.INSTANCES)
    if not found:
        raise RecordingError(f'{bag.path} has no results; make some with `instructsam bag {bag.path} OUT`')
    if len(found) > 1:
        found = [topic for topic in found if topic == f'/{name.strip("/")}/instances']
    if len(found) != 1:
        raise RecordingError(f'{bag.path} has several topics of results; name one with --name')
    if not bag.counts[found[0]]:
        raise RecordingError(f'{bag.path} has the topic {found[0]} but no result on it')
    return found[0]


def write_video(path, shown, fps):
    """An MP4 (MPEG-4 Part 2, which OpenCV's wheels can write), of the first picture's size. Returns the pictures."""
    writer, size, number = None, None, 0
    try:
        for overlay in _progress(shown.draw(), len(shown)):
            if writer is None:
                size = overlay.shape[1] // 2 * 2, overlay.shape[0] // 2 * 2  # video has no odd sizes
                writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*'mp4v'), fps, size)
                if not writer.isOpened():
                    raise InstructSAMError(f'cannot write {path}: OpenCV has no MP4 here; write a .gif instead')
            writer.write(cv2.cvtColor(_fit(overlay, size), cv2.COLOR_RGB2BGR))
            number += 1
    finally:
        if writer is not None:
            writer.release()
    return _checked(number, shown)


def write_animation(path, shown, fps, width):
    """A GIF of pictures at most `width` px wide, 256 colours each. Returns the pictures."""
    pictures, size = [], None
    for overlay in _progress(shown.draw(), len(shown)):
        size = size or _shrunk(overlay, width)
        pictures.append(Picture.fromarray(_fit(overlay, size)).quantize(dither=Picture.Dither.NONE))
    _checked(len(pictures), shown)
    try:
        pictures[0].save(path, save_all=True, append_images=pictures[1:], duration=round(1000 / fps), loop=0)
    except OSError as error:
        raise InstructSAMError(f'cannot write {path}: {error.strerror or error}') from error
    return len(pictures)


def write_strip(path, shown, frames, width):
    """`frames` overlays in a row, evenly spread over the bag, each at most `width` px wide. Returns the pictures."""
    wanted = set(np.linspace(0, len(shown) - 1, frames).round().astype(int).tolist())
    pictures, size = [], None
    for overlay in _progress(shown.draw(wanted), len(wanted)):
        size = size or _shrunk(overlay, width)
        pictures.append(_fit(overlay, size))
    _checked(len(pictures), shown)
    write_image(path, np.hstack(pictures))
    return len(pictures)


def _shrunk(picture, width):
    """The size (w, h) of `picture` at `width`, its own where it is not wider."""
    width = min(width, picture.shape[1])
    return width, max(1, round(picture.shape[0] * width / picture.shape[1]))


def _fit(picture, size):
    """[h, w, 3] of `size` (w, h); smaller pictures by area, so that thin outlines stay."""
    if picture.shape[1::-1] == size:
        return picture
    is_smaller = picture.shape[1] > size[0]
    return cv2.resize(picture, size, interpolation=cv2.INTER_AREA if is_smaller else cv2.INTER_CUBIC)


def _checked(number, shown):
    if not number:
        raise RecordingError(f'no result on {shown.topic} belongs to an image that is in the bag and can be read')
    return number


def _progress(overlays, total):
    console = Console(stderr=True)
    return track(overlays, 'drawing', total=total, console=console, disable=not console.is_terminal)

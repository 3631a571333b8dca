"""What can be replayed, a ROS 2 bag or pictures, as messages with the time at which each is due."""

import contextlib
import re
from pathlib import Path

from rosbags.rosbag2 import Reader
from std_msgs.msg import Header

from instructsam.core import ImageError
from instructsam.core.image_file import read_image
from instructsam_ros.conversions.instances import image_msg

PICTURES = ('.bmp', '.jpeg', '.jpg', '.png', '.ppm', '.tif', '.tiff', '.webp')
BAGS = ('.mcap', '.db3')
IMAGE_TOPIC = 'image'  # relative, so that a namespace and a remapping apply
FRAME_ID = 'camera_optical_frame'


class RecordingError(Exception):
    """The recording is missing, empty or damaged; the message says which and what to do."""


def open_recording(path, fps=10.0):
    """The Bag or Pictures at `path`: a bag's folder, .mcap or .db3 file, a picture, or a folder of pictures."""
    path = Path(path)
    if not path.exists():
        raise RecordingError(f'{path} does not exist; give a bag, a picture or a folder of pictures')
    if path.suffix in BAGS or (path / 'metadata.yaml').is_file():
        return Bag(path)
    if path.is_file() and path.suffix.lower() in PICTURES:
        return Pictures([path], fps)
    if not path.is_dir():
        raise RecordingError(f'{path} is neither a bag ({", ".join(BAGS)}) nor a picture ({", ".join(PICTURES)})')
    pictures = sorted((file for file in path.iterdir() if file.suffix.lower() in PICTURES), key=_natural)
    if not pictures:
        raise RecordingError(
            f'{path} holds no pictures ({", ".join(PICTURES)}) and is no bag (metadata.yaml is missing); '
            f'a bag without it is given by its file ({", ".join(BAGS)})'
        )
    return Pictures(pictures, fps)


def _natural(file):
    """frame_2 before frame_10."""
    return [int(part) if part.isdecimal() else part for part in re.split(r'(\d+)', file.name)]


class Bag:
    """A ROS 2 bag. `types` is {topic: 'package/msg/Name'}, `period_s` the time from one round to the next."""

    def __init__(self, path):
        self._path = path
        with readable(path), Reader(path) as reader:
            self.types = {connection.topic: connection.msgtype for connection in reader.connections}
            count = reader.message_count
            # one mean interval lies between the last message and the first of the next round
            self.period_s = reader.duration * 1e-9 * count / (count - 1) if count > 1 else 1.0

    def messages(self, topics):
        """Yields (s since the first message, topic, serialized message) of `topics`, the bytes as recorded."""
        start_ns = None
        with readable(self._path), Reader(self._path) as reader:
            wanted = [c for c in reader.connections if c.topic in topics and c.msgtype == self.types[c.topic]]
            for connection, time_ns, data in reader.messages(wanted):
                start_ns = time_ns if start_ns is None else start_ns
                yield (time_ns - start_ns) * 1e-9, connection.topic, data


@contextlib.contextmanager
def readable(path):
    try:
        yield
    except Exception as error:  # a damaged file makes rosbags raise anything from KeyError to OverflowError
        reason = ' '.join(str(error).split()) or type(error).__name__
        raise RecordingError(
            f'{path} cannot be read as a bag ({reason}); a recording that was cut off can be mended with '
            '`ros2 bag reindex` or `mcap recover`'
        ) from error


class Pictures:
    """Pictures as rgb8 images on the topic `image`, `fps` a second."""

    types = {IMAGE_TOPIC: 'sensor_msgs/msg/Image'}

    def __init__(self, files, fps):
        self._files = files
        self._fps = fps
        self.period_s = len(files) / fps

    def messages(self, topics):
        """Yields (s since the first picture, topic, sensor_msgs/Image without a stamp)."""
        for index, file in enumerate(self._files):
            try:
                rgb = read_image(file)
            except ImageError as error:
                raise RecordingError(str(error)) from error
            yield index / self._fps, IMAGE_TOPIC, image_msg(rgb, Header(frame_id=FRAME_ID))

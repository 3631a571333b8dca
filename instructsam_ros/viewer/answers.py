"""Pairs answers with their images, depth, camera infos and points by the stamps, and shows them in a recording."""

from __future__ import annotations

from collections.abc import Generator, Iterable
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from rclpy.serialization import deserialize_message
from sensor_msgs.msg import CameraInfo

from instructsam.core.errors import InstructSAMError
from instructsam.core.modes import MAX_MEGAPIXELS
from instructsam.core.result import Result
from instructsam.core.spatial.calibration import camera_model, check_frames, frame_name
from instructsam.core.spatial.camera_model import CameraModel
from instructsam.core.spatial.geometry import check_alignment
from instructsam.core.spatial.surface import back_project, to_meters
from instructsam.core.text import shorten
from instructsam_ros.conversions.camera_info import calibration, is_rectified_topic
from instructsam_ros.conversions.depth import to_depth
from instructsam_ros.conversions.images import to_rgb
from instructsam_ros.conversions.instances import result_from_msg
from instructsam_ros.conversions.point_clouds import read_cloud
from instructsam_ros.conversions.stamps import nanoseconds, serialized_stamp_ns
from instructsam_ros.msg import InstanceArray
from instructsam_ros.pipeline.newest import NewestDict
from instructsam_ros.viewer.labels import class_ids, class_map

if TYPE_CHECKING:  # needs Rerun
    from instructsam_ros.viewer.recording import Recording

KEPT_MESSAGES = 64
"""Answers that wait for messages, and the fewest messages of each role that wait for their answer: 2 s at 30 Hz."""

MOST_MESSAGES, MOST_BYTES = 600, 256 << 20
"""Bounds of the messages of a role that wait, as an answer may take longer: 9 s of raw images of 640 x 480 px."""

MOST_POINTS = 20_000
"""Points of an answer that are taken from depth; of more, every n-th is."""


class Role(Enum):
    """The meaning of a topic's messages."""

    ANSWER = 'answer'
    IMAGE = 'image'
    DEPTH = 'depth'
    CAMERA_INFO = 'camera info'
    POINTS = 'points'


@dataclass(frozen=True)
class Topic:
    """A topic that is shown."""

    name: str
    role: Role
    type: type


class _Answer(NamedTuple):
    message: InstanceArray
    result: Result
    bag_time_ns: int | None


class AnswerLog:
    """Shows answers, and the images, depth, camera infos and points of their stamps, whichever comes first.

    Args:
        recording: Where they are shown.
        topics: The topics; others may be added later.
        max_megapixels: Largest image that is decoded.

    Attributes:
        answers: Number of answers so far.
        drawn: Number of answers whose image has been shown.
        notes: What could not be shown, and why, each reason once. The recording has all of them.
    """

    def __init__(
        self, recording: Recording, topics: Iterable[Topic] = (), max_megapixels: float = MAX_MEGAPIXELS
    ) -> None:
        self.answers = self.drawn = 0
        self.notes: dict[str, None] = {}  # in order
        self._recording = recording
        self._topics = {topic.name: topic for topic in topics}
        self._max_megapixels = max_megapixels
        self._waiting: dict[Role, NewestDict[int, tuple[Topic, bytes]]] = {
            role: NewestDict(MOST_MESSAGES) for role in Role
        }
        self._answers: NewestDict[int, _Answer] = NewestDict(KEPT_MESSAGES)
        self._newest_info: tuple[Topic, bytes] | None = None
        self._camera: CameraModel | None = None  # the one that is shown

    def add_topic(self, topic: Topic) -> None:
        """Show the messages of one more topic."""
        self._topics[topic.name] = topic

    def has_topic(self, name: str) -> bool:
        """Return whether messages of a topic are shown."""
        return name in self._topics

    def put(self, topic_name: str, data: bytes, bag_time_ns: int | None = None) -> None:
        """Take a serialized message of one of the topics.

        Args:
            topic_name: Name of its topic.
            data: The message.
            bag_time_ns: Time at which it was recorded.

        Raises:
            OSError: The recording cannot be continued.
        """
        topic, stamp_ns = self._topics[topic_name], serialized_stamp_ns(data) or 0
        if topic.role is Role.ANSWER:
            self.answers += 1
            with self._noted(topic):
                self._put_answer(_read(topic, data), stamp_ns, bag_time_ns)
            return
        waiting = self._waiting[topic.role]
        waiting[stamp_ns] = topic, data
        while len(waiting) > KEPT_MESSAGES and sum(len(each) for _, each in waiting.values()) > MOST_BYTES:
            waiting.popitem(last=False)
        answer, roles = self._answers.get(stamp_ns), [topic.role]
        if topic.role is Role.CAMERA_INFO:
            if self._newest_info is None and self._answers:  # the first one; the depth could not be used without
                answer, roles = next(reversed(self._answers.values())), [Role.CAMERA_INFO, Role.DEPTH]
            self._newest_info = topic, data
        if answer is not None and stamp_ns:  # what has no stamp belongs to the answer that follows
            self._show(answer, roles)

    def _put_answer(self, message: InstanceArray, stamp_ns: int, bag_time_ns: int | None) -> None:
        result = result_from_msg(message)
        size = result.height, result.width
        if size[0] * size[1] > 1e6 * self._max_megapixels:
            raise InstructSAMError(f'its image has {size[1]} x {size[0]} px')
        for instance in result.instances:
            if (instance.mask.height, instance.mask.width) != size:
                raise InstructSAMError(
                    f'its image has {size[1]} x {size[0]} px, a mask {instance.mask.width} x {instance.mask.height}'
                )
        self._recording.set_time(message.header.stamp, bag_time_ns)
        self._recording.log_answer(message, result)
        answer = self._answers[stamp_ns] = _Answer(message, result, bag_time_ns)
        self._show(answer, (Role.IMAGE, Role.CAMERA_INFO, Role.DEPTH, Role.POINTS))

    def _show(self, answer: _Answer, roles: Iterable[Role]) -> None:
        """Show those messages of an answer that have arrived."""
        self._recording.set_time(answer.message.header.stamp, answer.bag_time_ns)
        show = {
            Role.IMAGE: self._show_image,
            Role.CAMERA_INFO: self._show_camera,
            Role.DEPTH: self._show_depth,
            Role.POINTS: self._show_points,
        }
        for role in roles:
            waiting = self._waiting_for(answer, role)
            if waiting is not None:
                with self._noted(waiting[0]):
                    show[role](answer, *waiting)

    def _waiting_for(self, answer: _Answer, role: Role) -> tuple[Topic, bytes] | None:
        """Return the message of a role with the stamp of an answer; of camera infos else the newest."""
        waiting = self._waiting[role].get(nanoseconds(answer.message.header.stamp))
        return self._newest_info if waiting is None and role is Role.CAMERA_INFO else waiting

    def _show_image(self, answer: _Answer, topic: Topic, data: bytes) -> None:
        image = to_rgb(_read(topic, data), self._max_megapixels)
        height, width = image.shape[:2]
        size = answer.result.height, answer.result.width
        if (height, width) != size and any(size):  # an error may not know the size
            raise InstructSAMError(
                f'a result is of {size[1]} x {size[0]} px, but the image with its stamp has {width} x {height}; name '
                'the topic of the images with --topic'
            )
        self._recording.log_image(image)
        self.drawn += 1

    def _show_camera(self, answer: _Answer, topic: Topic, data: bytes) -> None:
        if not answer.result.height:  # an error may not know the size
            return
        camera = self._camera_model(answer, _read(topic, data))
        if camera is not self._camera:
            self._recording.log_camera(camera)
            self._camera = camera

    def _camera_model(self, answer: _Answer, info: CameraInfo) -> CameraModel:
        images = [topic.name for topic in self._topics.values() if topic.role is Role.IMAGE]
        is_rectified = is_rectified_topic(images[0]) if images else False
        size = answer.result.height, answer.result.width
        return camera_model(calibration(info), size, is_rectified=is_rectified)

    def _show_depth(self, answer: _Answer, topic: Topic, data: bytes) -> None:
        """Show the depth, and the points of the measured objects unless there is a topic of them."""
        info = self._waiting_for(answer, Role.CAMERA_INFO)
        if info is None or not answer.result.height:
            return
        message, camera_info, header = _read(topic, data), _read(*info), answer.message.header
        if not answer.message.geometry_frame_id:  # otherwise the node has accepted the frames
            check_frames(header.frame_id, message.header.frame_id, camera_info.header.frame_id)
        size = answer.result.height, answer.result.width
        depth = to_depth(message, self._max_megapixels, size)
        check_alignment(depth, size)
        depth_m, camera = to_meters(depth), self._camera_model(answer, camera_info)
        self._recording.log_depth(depth_m)
        has_points = any(topic.role is Role.POINTS for topic in self._topics.values())
        if not has_points and answer.message.geometry_frame_id == frame_name(header.frame_id):
            self._recording.log_points(*_points_of(answer, depth_m, camera))

    def _show_points(self, answer: _Answer, topic: Topic, data: bytes) -> None:
        points, owners = read_cloud(_read(topic, data))
        classes = class_ids(answer.result.instances)
        if len(owners) and owners.max() >= len(classes):
            raise InstructSAMError(f'it has points of instance {owners.max()}, and the answer has {len(classes)}')
        self._recording.log_points(points, classes[owners])

    @contextmanager
    def _noted(self, topic: Topic) -> Generator[None, None, None]:
        """Note an error about a message of a topic, rather than raise it: the others can be shown."""
        try:
            yield
        except (InstructSAMError, ValueError) as error:
            note = f'{topic.role.value} on {topic.name} cannot be shown: {shorten(error)}'
            self._recording.log_warning(note)
            self.notes.setdefault(note)


def _points_of(answer: _Answer, depth_m: np.ndarray, camera: CameraModel) -> tuple[np.ndarray, np.ndarray]:
    """Return the points [N, 3] m of the measured objects, in the camera's frame, and the class [N] of each."""
    classes = class_map(answer.result)
    measured = [each.has_geometry for each in answer.message.instances]
    is_point = np.isin(classes, class_ids(answer.result.instances)[measured]) & (depth_m > 0)
    is_point &= np.isfinite(camera.rays[0])
    step = 1 + np.count_nonzero(is_point) // MOST_POINTS
    rows, columns = (each[::step] for each in np.nonzero(is_point))
    return back_project(depth_m, (rows, columns), camera.rays), classes[rows, columns]


def _read(topic: Topic, data: bytes) -> Any:
    """Return a message; raise InstructSAMError if it cannot be deserialized."""
    try:
        return deserialize_message(data, topic.type)
    except Exception as error:  # The type that rclpy raises for malformed bytes depends on the middleware.
        raise InstructSAMError(f'it is not a valid {topic.type.__name__} ({shorten(error)})') from error

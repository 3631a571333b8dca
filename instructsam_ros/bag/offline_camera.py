"""Answers the images of a bag as the node would, but every one of them, in order and independent of real time."""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from builtin_interfaces.msg import Time
from rclpy.serialization import deserialize_message
from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from std_msgs.msg import Header

from instructsam.core.text import one_line
from instructsam_ros.bag.reader import BagFile
from instructsam_ros.bag.timeline import InstructionTimeline
from instructsam_ros.bag.topics import COMPRESSED, Topics
from instructsam_ros.conversions.images import ImageFormatError
from instructsam_ros.conversions.instances import error_msg, result_from_msg
from instructsam_ros.conversions.stamps import serialized_stamp_ns
from instructsam_ros.msg import InstanceArray
from instructsam_ros.pipeline.answer import Query, answer_query
from instructsam_ros.pipeline.camera_frame import CameraFrame
from instructsam_ros.pipeline.depth_sync import DepthBuffer
from instructsam_ros.pipeline.instruction import Instruction
from instructsam_ros.pipeline.localization import TransformError
from instructsam_ros.pipeline.protocols import Caller, Transform
from instructsam_ros.pipeline.scheduling.error_log import explain
from instructsam_ros.pipeline.settings import Settings
from instructsam_ros.pipeline.tracker_pool import TrackerPool

if TYPE_CHECKING:  # importing the engine imports torch
    from instructsam.core import InstructSAM

Message = TypeVar('Message')

LOOK_AHEAD_NS = 1_000_000_000  # longest bag time that an image waits for its depth


@dataclass(frozen=True, eq=False)
class RecordedFrame:
    """A recorded image and the instruction in force at its time."""

    index: int  # index among the topic's images, from 0
    time_ns: int  # bag time
    data: bytes  # the serialized message
    instruction: Instruction | None
    stamp_round: int  # see DepthBuffer.put_image


class RecordedAnswer(NamedTuple):
    """The message that the node would publish, and the error that it reports, if any."""

    message: InstanceArray
    error: Exception | None


class NoTransforms:
    """The TransformSource of a bag: it has none, so geometry stays in the camera's optical frame."""

    def lookup(self, target: str, source: str, stamp: Time, settings: Settings, caller: Caller) -> Transform:
        """Raise TransformError."""
        raise TransformError(f'no transform from {source!r} to {target!r}: transforms of a bag are not read')


class BatchCaller:
    """The Caller of a bag: it wants every answer and ignores the progress."""

    def is_cancelled(self) -> bool:
        """Return False."""
        return False

    def is_encoding_cancelled(self) -> bool:
        """Return False."""
        return False

    def report_step(self, step: str) -> None:
        """Do nothing."""


class OfflineCamera:
    """Yields the frames of a bag and answers them one after the other, as camera and worker do with live images."""

    def __init__(self, bag: BagFile, topics: Topics, timeline: InstructionTimeline, settings: Settings) -> None:
        """Prepare to read `bag`.

        Args:
            bag: The recording.
            topics: Its image, depth and camera info topics.
            timeline: The instruction in force at each time.
            settings: How to answer; a target frame is not supported.
        """
        self._bag, self._topics, self._timeline, self._settings = bag, topics, timeline, settings
        self._image_type = CompressedImage if bag.types[topics.image] == COMPRESSED else Image
        self._depth_type = CompressedImage if bag.types.get(topics.depth) == COMPRESSED else Image
        self._depth = DepthBuffer()
        self._depth.image_topic = topics.image
        self._trackers = TrackerPool()
        self.unreadable = 0  # number of unreadable depth images and camera infos

    def frames(self) -> Iterator[RecordedFrame]:
        """Yield every frame in order, each as soon as its depth has been read or will not come.

        Raises:
            RecordingError: The bag cannot be read.
        """
        image, depth, info = self._topics.image, self._topics.depth, self._topics.camera_info
        waiting: deque[RecordedFrame] = deque()
        index = 0
        for connection, time_ns, data in self._bag.messages({image, depth, info}):
            if connection.topic == image:
                instruction = self._timeline.at(time_ns)
                stamp_round = self._depth.put_image(serialized_stamp_ns(data) or 0, data)
                waiting.append(RecordedFrame(index, time_ns, data, instruction, stamp_round))
                index += 1
            elif connection.topic == depth:
                self._put_depth(data)
            else:
                self._put_info(data)
            while waiting and (time_ns - waiting[0].time_ns > LOOK_AHEAD_NS or self._is_ready(waiting[0])):
                yield waiting.popleft()
        yield from waiting

    def _is_ready(self, frame: RecordedFrame) -> bool:
        """Return whether the frame can be answered: its depth has been read, will not come, or is not wanted."""
        wanted_ns = serialized_stamp_ns(frame.data)
        if not self._topics.depth or frame.instruction is None or not wanted_ns:
            return True
        return self._depth.is_decided(wanted_ns, round(self._settings.depth_tolerance_s * 1e9), frame.stamp_round)

    def _put_depth(self, data: bytes) -> None:
        if (message := self._deserialize(data, self._depth_type)) is not None:
            self._depth.put_depth(message)

    def _put_info(self, data: bytes) -> None:
        if (message := self._deserialize(data, CameraInfo)) is not None:
            self._depth.put_info(message)

    def _deserialize(self, data: bytes, message_type: type[Message]) -> Message | None:
        try:
            return deserialize_message(data, message_type)
        except Exception:  # The type that rclpy raises for malformed bytes depends on the middleware.
            self.unreadable += 1
            return None

    def answer(self, engine: 'InstructSAM', recorded: RecordedFrame, instruction: Instruction) -> RecordedAnswer:
        """Answer `instruction` on a frame, as the node would publish it."""
        try:
            frame = self._camera_frame(recorded)
        except Exception as error:  # The type that rclpy raises for malformed bytes depends on the middleware.
            text = f'the recorded message is not a valid {self._image_type.__name__}: {one_line(error)}'
            return RecordedAnswer(
                error_msg(text, Header(), instruction.text, instruction.id), error=ImageFormatError(text)
            )
        try:
            answer = answer_query(
                engine,
                frame,
                Query(instruction.text, self._settings, instruction),
                depth_source=self._depth.in_round(recorded.stamp_round),
                transforms=NoTransforms(),
                trackers=self._trackers,
                caller=BatchCaller(),
            )
            return RecordedAnswer(answer.to_msg(frame.header, instruction.text, instruction.id), error=None)
        except Exception as error:
            text, _ = explain(error)
            message = error_msg(text, frame.header, instruction.text, instruction.id, frame.size)
            return RecordedAnswer(message, error)
        finally:
            frame.release()

    def recall(self, recorded: RecordedFrame, message: InstanceArray) -> None:
        """Track the objects of a frame's finished result, so that the ids of later results continue from there."""
        is_error = message.status == InstanceArray.STATUS_ERROR
        try:
            frame = self._camera_frame(recorded)
            frame.decode(self._settings.max_megapixels)
        except Exception:  # The type that rclpy raises for malformed bytes depends on the middleware.
            if is_error:  # It is what the result reports, and no object was tracked.
                return
            raise
        if is_error:
            self._trackers.follow(frame, recorded.instruction)
        else:
            self._trackers.track(result_from_msg(message), frame, recorded.instruction)

    def _camera_frame(self, recorded: RecordedFrame) -> CameraFrame:
        """Return the frame; its index stands for the time of arrival, which only has to increase."""
        return CameraFrame(deserialize_message(recorded.data, self._image_type), recorded.index)

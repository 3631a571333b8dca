"""The result topics of one camera: the instances, and views of them for subscribers."""

from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from builtin_interfaces.msg import Time
from diagnostic_msgs.msg import DiagnosticArray
from geometry_msgs.msg import PoseArray
from rclpy.publisher import Publisher
from sensor_msgs.msg import Image, PointCloud2
from std_msgs.msg import Header
from visualization_msgs.msg import MarkerArray

from instructsam.core.display.overlay import draw_overlay
from instructsam_ros.conversions.grasps import grasp_poses, grasp_status
from instructsam_ros.conversions.instances import error_msg, image_msg, label_image
from instructsam_ros.conversions.markers import markers
from instructsam_ros.conversions.point_clouds import cloud
from instructsam_ros.conversions.vision_msgs import detections_2d, detections_3d, import_vision_msgs
from instructsam_ros.msg import InstanceArray, TrackedInstanceArray
from instructsam_ros.pipeline.answer import Answer
from instructsam_ros.pipeline.camera_frame import CameraFrame
from instructsam_ros.pipeline.instruction import Instruction

View: TypeAlias = Callable[[CameraFrame, Answer], Any]
"""Makes the message of a view from a frame and the answer on it."""

CreatePublisher: TypeAlias = Callable[[type, str, int], Publisher]
"""Creates the publisher of a message type on a topic with a queue of that depth."""


class OutgoingMessage(NamedTuple):
    """A message and its publisher: ready to be published, which is quick."""

    publisher: Publisher
    message: object

    def publish(self) -> None:
        """Publish the message."""
        self.publisher.publish(self.message)


class CarriedAnswer(NamedTuple):
    """An answer that was carried to a later image."""

    answer: Answer  # as if it were about that image
    confidence: list[float]  # confidence of each instance
    answer_stamp: Time  # stamp of the image that the model answered about
    age_s: float
    has_target: bool  # whether it had any instance


class ResultPublisher:
    """The result topics of one camera.

    Makes the messages; the scheduler publishes them (publish_if_current), so that publishing under its lock is quick.
    Used in the worker's thread unless noted.
    """

    def __init__(self, create_publisher: CreatePublisher, camera: str = '', *, vision_msgs: bool = False) -> None:
        """Create the publishers.

        Args:
            create_publisher: Creates one.
            camera: Topics begin with the name of the camera, which is '' for the only one.
            vision_msgs: Whether to publish vision_msgs as well.

        Raises:
            MissingMessagesError: vision_msgs are to be published and not installed.
        """
        prefix = f'~/{camera}/' if camera else '~/'
        self._instances = create_publisher(InstanceArray, f'{prefix}instances', 10)
        self._tracked = create_publisher(TrackedInstanceArray, f'{prefix}tracked/instances', 10)
        self._tracked_overlay = create_publisher(Image, f'{prefix}tracked/overlay', 1)
        views: tuple[tuple[str, type, View], ...] = (
            ('label_image', Image, _label_image),
            ('overlay', Image, _overlay),
            ('points', PointCloud2, _points),
            ('markers', MarkerArray, _markers),
            ('grasp_candidates', PoseArray, _grasp_candidates),
            ('grasp_status', DiagnosticArray, _grasp_status),
        )
        self._views: list[tuple[Publisher, View]] = []
        for topic, message_type, make in views:
            self._views.append((create_publisher(message_type, prefix + topic, 1), make))
        self._detections: list[tuple[Publisher, Callable[[InstanceArray], Any]]] = []
        if vision_msgs:
            types = import_vision_msgs()
            self._detections = [
                (create_publisher(types.Detection2DArray, f'{prefix}detections_2d', 10), detections_2d),
                (create_publisher(types.Detection3DArray, f'{prefix}detections_3d', 10), detections_3d),
            ]

    def result_messages(self, frame: CameraFrame, instruction: Instruction, answer: Answer) -> list[OutgoingMessage]:
        """Return the instances and every view that has a subscriber."""
        instances = answer.to_msg(frame.header, instruction.text, instruction.id)
        messages = [OutgoingMessage(self._instances, instances)]
        for publisher, make in self._views:
            if publisher.get_subscription_count():
                messages.append(OutgoingMessage(publisher, make(frame, answer)))
        for publisher, convert in self._detections:
            if publisher.get_subscription_count():
                messages.append(OutgoingMessage(publisher, convert(instances)))
        return messages

    @property
    def is_tracked(self) -> bool:
        """True if anybody subscribes to masks at the camera's rate."""
        return any(each.get_subscription_count() for each in (self._tracked, self._tracked_overlay))

    def tracked_messages(
        self, frame: CameraFrame, image: np.ndarray, instruction: Instruction, carried: CarriedAnswer
    ) -> list[OutgoingMessage]:
        """Return the messages of an answer that was carried to a later frame; called in the thread that carries it.

        Args:
            frame: That frame.
            image: Its decoded image, [H, W, 3] uint8 RGB.
            instruction: The instruction that is answered.
            carried: The answer.
        """
        messages = []
        if self._tracked.get_subscription_count():
            result = carried.answer.to_msg(frame.header, instruction.text, instruction.id)
            result.status = InstanceArray.STATUS_OK if carried.has_target else InstanceArray.STATUS_NO_TARGET
            message = TrackedInstanceArray(
                header=frame.header,
                result=result,
                confidence=carried.confidence,
                answer_stamp=carried.answer_stamp,
                age_s=carried.age_s,
            )
            messages.append(OutgoingMessage(self._tracked, message))
        if self._tracked_overlay.get_subscription_count():
            overlay = image_msg(draw_overlay(image, carried.answer.result), frame.header)
            messages.append(OutgoingMessage(self._tracked_overlay, overlay))
        return messages

    def error_messages(self, frame: CameraFrame, instruction: Instruction, text: str) -> list[OutgoingMessage]:
        """Return the InstanceArray that says why there is no answer."""
        message = error_msg(text, frame.header, instruction.text, instruction.id, frame.size)
        return [OutgoingMessage(self._instances, message)]


def _label_image(frame: CameraFrame, answer: Answer) -> Image:
    result = answer.result
    return label_image(result.instances, result.height, result.width, frame.header)


def _overlay(frame: CameraFrame, answer: Answer) -> Image:
    return image_msg(draw_overlay(frame.decode(), answer.result), frame.header)


def _points(frame: CameraFrame, answer: Answer) -> PointCloud2:
    return cloud(answer.result, frame.decode(), _header_3d(frame, answer))


def _markers(frame: CameraFrame, answer: Answer) -> MarkerArray:
    return markers(answer.result, _header_3d(frame, answer))


def _grasp_candidates(frame: CameraFrame, answer: Answer) -> PoseArray:
    return grasp_poses(answer.grasps, _header_3d(frame, answer))


def _grasp_status(frame: CameraFrame, answer: Answer) -> DiagnosticArray:
    return grasp_status(answer.result.instances, answer.grasps, _header_3d(frame, answer))


def _header_3d(frame: CameraFrame, answer: Answer) -> Header:
    return answer.geometry_header(frame.header)

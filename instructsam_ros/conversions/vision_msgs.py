"""The topics `~/detections_2d` and `~/detections_3d`: a result in vision_msgs, which many programs already read.

The package vision_msgs is optional, so it is imported when it is first needed. Its fields are those of version 4, which
is that of Humble and later.
"""

import importlib
from typing import Any

from instructsam.core.errors import InstructSAMError
from instructsam_ros.msg import Instance, InstanceArray

MISSING = (
    'vision_msgs needs the package vision_msgs, which is not installed here: `sudo apt install '
    'ros-$ROS_DISTRO-vision-msgs`, or leave it false and subscribe to ~/instances'
)


class MissingMessagesError(InstructSAMError):
    """A package of messages is not installed."""


def import_vision_msgs() -> Any:
    """Return the module vision_msgs.msg. Raises MissingMessagesError if it is not installed."""
    try:
        return importlib.import_module('vision_msgs.msg')
    except ImportError as error:
        raise MissingMessagesError(MISSING) from error


def detections_2d(message: InstanceArray) -> Any:
    """Return the vision_msgs/Detection2DArray of a result: one detection for each instance, in the same order.

    The edges of `bbox`, at its center plus and minus half its size, are those of `roi` in pixels of the image.
    """
    vision_msgs = import_vision_msgs()
    array = vision_msgs.Detection2DArray(header=message.header)
    for instance in message.instances:
        detection = _detection(vision_msgs.Detection2D, instance, message.header)
        roi = instance.roi
        detection.bbox.center.position.x = roi.x_offset + roi.width / 2
        detection.bbox.center.position.y = roi.y_offset + roi.height / 2
        detection.bbox.size_x = float(roi.width)
        detection.bbox.size_y = float(roi.height)
        array.detections.append(detection)
    return array


def detections_3d(message: InstanceArray) -> Any:
    """Return the vision_msgs/Detection3DArray of a result: one detection for each instance that was measured in 3D.

    The others are left out, since a box without a size would be read as one at the origin of the frame. The frame is
    that of the geometry; without any geometry the array is empty and has the header of the image. Covariances are zero,
    which stands for unknown.
    """
    vision_msgs = import_vision_msgs()
    array = vision_msgs.Detection3DArray(header=message.header)
    if message.geometry_frame_id:
        array.header = type(message.header)(stamp=message.header.stamp, frame_id=message.geometry_frame_id)
    for instance in message.instances:
        if instance.has_geometry:
            detection = _detection(vision_msgs.Detection3D, instance, array.header)
            detection.bbox.center = detection.results[0].pose.pose = instance.geometry.pose
            detection.bbox.size = instance.geometry.size
            array.detections.append(detection)
    return array


def _detection(message_type: Any, instance: Instance, header: Any) -> Any:
    """Return a detection with its only hypothesis, which is the phrase that the instance belongs to, and its id."""
    detection = message_type(header=header)
    hypothesis = import_vision_msgs().ObjectHypothesisWithPose()
    hypothesis.hypothesis.class_id = instance.phrase
    hypothesis.hypothesis.score = instance.score
    detection.results = [hypothesis]
    detection.id = '' if instance.track_id == Instance.UNTRACKED else str(instance.track_id)
    return detection
